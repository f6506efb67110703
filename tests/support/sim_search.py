"""A search's evaluator on the simulated engine."""

from __future__ import annotations

from pathlib import Path

from bench.plan.target import target_of
from bench.records.folder import RunFolder
from bench.scenario import scenariofile
from search.engine_evaluator import EngineEvaluator
from search.objective import Goal
from search.timed import Timed

SCENARIO = """
schema: 1
name: tiny
question: Does the search measure what it says?
device: cpu
model: {name: Llama-3.1-8B, path: llama-3.1-8b, shape: llama-3.1-8b, tokenizer: none}
engines:
  - engine: sim
    settings: {max_model_len: 1024, sim: {gpu: %s, shape: llama-3.1-8b, seed: 1, time_scale: 0.2}}
    space: {quantization: [none, fp8], max_num_seqs: {low: 4, high: 64, log: true}}
workloads:
  - {name: chat, input_tokens: 64, output_tokens: 8, concurrency: 8, requests: 64, warmup_requests: 1}
search: {goal: %s}
slos: ["ttft:p50<=2s"]
price: {per_hour: 4.0, currency: %s, source: a test, date: 2026-05-01}
"""

COST = "minimize usd_per_million_good_tokens"


def oracle(tmp_path: Path, gpu: str = "h200", goal: str = COST, currency: str = "USD") -> EngineEvaluator:
    file = tmp_path / "tiny.yaml"
    file.write_text(SCENARIO % (gpu, goal, currency))
    scenario = scenariofile.load(file)
    folder = RunFolder.create(tmp_path / "study", {"calibration": None}, file.read_bytes())
    return EngineEvaluator(scenario, folder, target_of("cpu", scenario.model), Goal.of(scenario), Timed())
