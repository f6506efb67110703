"""A finished run made of synthetic records: several engines, failures, verdicts, simulated points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.plan.expand import expand
from bench.point import Point
from bench.records.folder import RunFolder
from bench.records.model import ClientHealth, Record, RequestError, Run, Sample
from bench.scenario import scenariofile
from serving.errors import Failure, FailureKind

SCENARIO = """
schema: 1
name: engines-compared
question: Which engine, quantization and batch size serves SmolLM2-135M cheapest within chat SLOs?
device: cpu
model: {name: SmolLM2-135M-Instruct, path: .models/smollm2}
engines:
  - engine: vllm
    settings: {max_model_len: 1024, kv_cache_bytes: 1GiB}
    grid: {quantization: [none, w8a8, w4a16], max_num_seqs: [4, 32]}
  - engine: transformers
    grid: {quantization: [none, bnb-4bit, bnb-8bit]}
SIM
workloads:
  - {name: chat, input_tokens: [128, 512], output_tokens: 32, concurrency: [2, 8], requests: 700}
slos: ["ttft:p90<=600ms", "tpot:p50<=40ms", "error_rate<=1%"]
price: {per_hour: 0.0816, currency: USD, source: example price list, date: 2026-06-17}
repeats: REPEATS
"""
SIM = """  - engine: sim
    settings: {sim: {gpu: h200, shape: llama-3.1-8b}}
    grid: {quantization: [none, fp8]}
    price: {per_hour: 4.0, currency: USD, source: example price list, date: 2026-05-01, per: gpu}"""

STEP_S = {("vllm", "none"): 0.016, ("vllm", "w8a8"): 0.010, ("vllm", "w4a16"): 0.0125,
          ("transformers", "none"): 0.034, ("transformers", "bnb-8bit"): 0.061,
          ("sim", "none"): 0.0065, ("sim", "fp8"): 0.0042}  # fmt: skip
"""Seconds a decode step of one sequence takes."""


def build(
    path: Path, *, requests: int = 700, repeats: int = 1, sim: bool = True,
    scenario: str = SCENARIO, change: Callable[[Run], Run] = lambda run: run,
) -> RunFolder:  # fmt: skip
    """The run at `path`, through RunFolder.save; 44 points with `sim`. `change` edits each Run before."""
    text = scenario.replace("SIM\n", f"{SIM}\n" if sim else "").replace("REPEATS", str(repeats))
    file = path.with_suffix(".yaml")
    file.write_text(text, encoding="utf-8")
    loaded = scenariofile.load(file)
    points, dropped = expand(loaded, "cpu")
    folder = RunFolder.create(path, manifest(points, dropped, loaded.sha256), text.encode())
    folder.append("started")
    for number, point in enumerate(points):
        folder.save(change(run_of(point, number, requests)))
    folder.append("finished")
    return folder


def manifest(points: list[Point], dropped: list[object], sha256: str) -> dict[str, object]:
    return {
        "scenario": "engines-compared",
        "scenario_sha256": sha256,
        "seed": 0,
        "device": "cpu",
        "started_unix_s": 1_790_000_000.0,
        "plan": {
            "points": len(points),
            "launches": len({p.config.key for p in points}),
            "dropped": [
                {"point": "vllm fp8", "reason": "fp8 needs a GPU of compute capability 8.9", "points": 4}
            ],
            "estimated_s": 600.0,
        },
        "environment": {
            "servetune": {"version": "0.1.0", "commit": "0123abc", "dirty": False},
            "python": {"version": "3.11.7"},
            "os": {"system": "Linux", "distribution": "Debian 12", "kernel": "6.1.0"},
            "cpu": {"model": "Example CPU @ 2.60GHz", "logical_cores": 2, "flags": ["avx2", "avx512f"]},
            "memory": {"total_bytes": 24 * 2**30, "available_bytes": 20 * 2**30},
            "gpus": [],
            "gpus_reason": "no NVIDIA driver",
            "packages": {"locust": "2.40.0", "numpy": "2.3.0"},
        },
    }


def run_of(point: Point, number: int, requests: int) -> Run:
    """One Run by the point's engine: healthy, failed, or with something to be said about it."""
    config, load = point.config, point.load
    base = Run(point, started_unix_s=1_790_000_000.0 + 20 * number, simulated=config.engine == "sim",
               engine_version={"vllm": "0.32.0", "transformers": "5.23.0"}.get(config.engine, "1"),
               launch=f"{number // 4 + 1:03d}-{config.key}", ready_s=31.5 + number % 3)  # fmt: skip
    failure = failure_of(point)
    if failure:
        return replace(base, failure=failure, ready_s=None)
    users = min(load.concurrency or 1, config.max_num_seqs or 64)
    step = STEP_S[config.engine, config.quantization] * (1 + 0.06 * users)
    wait = step * (2 + load.input_tokens / 64) * max(1.0, (load.concurrency or 1) / users)
    count = requests if config.engine != "transformers" else max(24, requests // 8)
    records = closed_loop(
        load.concurrency or 1, count, wait, step, load.output_tokens, load.input_tokens, number
    )
    if config.engine == "vllm" and config.quantization == "w4a16" and load.concurrency == 8:
        records = [broken(r) if r.index % 25 == 7 else r for r in records]
    busy = 0.97 if config.engine == "sim" and config.quantization == "fp8" and users == 8 else 0.18
    end_s = max(r.last_s or 0.0 for r in records)
    rss = {"none": 2.1e9, "w8a8": 1.7e9, "w4a16": 1.5e9}.get(config.quantization, 1.2e9)
    times = np.arange(0.0, end_s, max(0.5, end_s / 40))
    samples = [Sample(float(t), "rss_bytes", rss + 4e6 * users) for t in times]
    samples += [Sample(float(t), "server:vllm:kv_cache_usage_perc", 0.1 + 0.01 * users) for t in times]
    events = sum(len(r.event_s) for r in records)
    return replace(
        base,
        records=tuple(records),
        samples=tuple(samples),
        load_end_s=max(r.planned_s for r in records),
        client=ClientHealth(1, busy, busy * end_s, events, 0.6, 4.0),
        effective={"max_num_seqs": config.max_num_seqs, "dtype": "bfloat16"},
    )


def failure_of(point: Point) -> Failure | None:
    config, load = point.config, point.load
    if config.quantization == "bnb-4bit":
        tail = (*(f"loading shard {i}" for i in range(6)), "Killed")
        cause = "the process was ended by the kernel while it loaded the weights (signal 9)"
        hint = "use a smaller quantization or a machine with more memory"
        return Failure(FailureKind.OOM_LAUNCH, cause, hint, -9, tail, config.settings)
    hangs = (config.engine, config.quantization, config.max_num_seqs) == ("vllm", "none", 32)
    if hangs and (load.input_tokens, load.concurrency) == (512, 8):
        cause, hint = "no token for 60 s while 8 requests were running", "look at the end of the log"
        return Failure(FailureKind.HANG, cause, hint, None, ("step 812", "step 813"), config.settings)
    return None


def broken(record: Record) -> Record:
    return replace(record, error=RequestError.RESET, error_detail="connection reset by peer",
                   finish_reason=None, output_tokens=None, counted_output_tokens=None)  # fmt: skip


def closed_loop(
    users: int, requests: int, wait_s: float, step_s: float, tokens: int, prompt: int, seed: int
) -> list[Record]:
    """`users` clients that each send the next request when the last one ended."""
    rng = np.random.default_rng(seed)
    waits = wait_s * rng.lognormal(0, 0.25, requests)
    gaps = step_s * rng.lognormal(0, 0.12, (requests, tokens - 1))
    free = list(rng.uniform(0, 0.02, users))
    out = []
    for i in range(requests):
        user = int(np.argmin(free))
        planned = float(free[user])
        first = planned + 0.0004 + float(waits[i])
        events = (first, *(first + np.cumsum(gaps[i])).tolist())
        free[user] = events[-1] + 0.001
        out.append(
            Record(
                index=i,
                planned_s=planned,
                sent_s=planned + 0.0004,
                header_s=first - 0.001,
                first_s=first,
                first_answer_s=first,
                last_s=events[-1],
                closed_s=events[-1] + 0.0005,
                event_s=events,
                asked_input_tokens=prompt,
                asked_output_tokens=tokens,
                input_tokens=prompt,
                output_tokens=tokens,
                counted_output_tokens=tokens,
                finish_reason="length",
                status=200,
            )
        )
    return out
