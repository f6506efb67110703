"""A scenario and a measurement of few requests: too few for some percentiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.records.model import RequestError, Run
from bench.result import PointResult, outcome
from bench.scenario import scenariofile
from tests.support.synthetic import HEALTHY, point, record

SCENARIO = """
schema: 1
name: few
question: Can so few requests tell it?
device: cpu
model: {name: Llama-3.1-8B, path: llama-3.1-8b, shape: llama-3.1-8b, tokenizer: none}
engines:
  - engine: sim
    settings: {max_model_len: 1024, sim: {gpu: h200, shape: llama-3.1-8b, seed: 1, time_scale: 0.05}}
workloads:
  - {name: chat, input_tokens: 32, output_tokens: 4, LOAD, warmup_requests: 0}
slos: ["SLO"]
"""


def scenario(tmp_path: Path, load: str, slo: str = "ttft:p99<=2s") -> Path:
    file = tmp_path / "few.yaml"
    file.write_text(SCENARIO.replace("LOAD", load).replace("SLO", slo))
    return file


def run_of(requests: int, *, failed: int = 0, slow: int = 0) -> Run:
    """An open loop that is steady from its first request; `slow` of them take 3 s, `failed` at its end."""
    every = requests // slow if slow else requests + 1
    records = [record(i, i * 0.05, ttft_s=3.0 if i % every == 1 else 0.1) for i in range(requests)]
    records[requests - failed :] = [
        replace(r, error=RequestError.HTTP_STATUS, status=500, first_s=None, last_s=None, event_s=())
        for r in records[requests - failed :]
    ]
    asked = point(arrivals="constant", rate_per_s=20.0, requests=requests)
    return Run(asked, records=tuple(records), client=HEALTHY, load_end_s=requests * 0.05)


def measured(
    tmp_path: Path, requests: int, *, failed: int = 0, slow: int = 0, slo: str = "ttft:p99<=2s"
) -> PointResult:
    """`run_of`, judged by one SLO."""
    run = run_of(requests, failed=failed, slow=slow)
    return outcome(run, scenariofile.load(scenario(tmp_path, "concurrency: 4, requests: 9", slo)))
