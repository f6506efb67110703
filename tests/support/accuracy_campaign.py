"""A campaign with an evaluation inside, on launches of the simulated engine."""

from __future__ import annotations

import json
from pathlib import Path

from bench.measure import measure
from bench.plan import planning
from bench.plan.planning import Plan
from bench.records.folder import RunFolder
from bench.scenario import scenariofile
from servetune.report.progress import LineWatch

TEXT = """\
schema: 1
name: acc
question: does it hold?
device: cpu
model: {name: smollm2-135m, path: smollm2-135m, shape: smollm2-135m, tokenizer: none}
engines:
  - engine: sim
    settings: {max_model_len: 2048, sim: {gpu: h200, shape: smollm2-135m, seed: 1FAULT}}
    grid: {quantization: [none, int8], max_num_seqs: [4, 8]}
workloads:
  - {name: chat, input_tokens: 64, output_tokens: 4, concurrency: 3, requests: 6, warmup_requests: 0,
     request_timeout_s: 5s, silence_timeout_s: 2s}
repeats: REPEATS
limits: {ready_s: 8s}
accuracy: ACCURACY
"""

ACCURACY = "{tasks: [facts, text, repeats], items: 6}"


def scenario(tmp_path: Path, accuracy: str = ACCURACY, fault: str = "", repeats: str = "1") -> Path:
    file = tmp_path / "acc.yaml"
    said = f", fault: {json.dumps(fault)}" if fault else ""
    file.write_text(TEXT.replace("ACCURACY", accuracy).replace("FAULT", said).replace("REPEATS", repeats))
    return file


def campaign(tmp_path: Path, file: Path, into: str = "run") -> tuple[Plan, RunFolder]:
    plan = planning.plan(scenariofile.load(file))
    manifest = {"plan": planning.as_json(plan), "started_unix_s": 0.0}
    run = RunFolder.create(tmp_path / into, manifest, file.read_bytes())
    run.append("started")
    with (tmp_path / "said").open("w") as said:
        measure(plan, run, LineWatch(plan, frozenset(), said))
    run.append("finished")
    return plan, run
