"""Writes `results/reference/sim-*`: SIMULATED grids with known optima, for comparing searchers by replay.

    .venv/bin/python tools/make_reference_grids.py [NAME ...] [--out results/reference]

Every configuration goes through the simulated engine's own scheduler and cost model in virtual time
(`serving.sim.virtual`), without noise: the optimum is exact. No engine, no device, nothing measured.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.plan.estimate import ready_s
from bench.plan.target import Target
from search.objective import Goal
from search.replay.grids import Cell, Grid, write
from search.result import Settings, key_of
from search.space import Axis, Space
from serving.config import ServingConfig
from serving.costmodel import hardware, memory, quantization, shapes
from serving.costmodel.defaults import of_config
from serving.engines import engine
from serving.sim.loop import quality_loss
from serving.sim.scheduler import Setup, setup
from serving.sim.settings import VERSION, SimSettings
from serving.sim.virtual import OutOfMemoryError, Served, SimArrival, simulate

MEASURE_S = 60.0
WARMUP_S = 5.0
"""What one look is taken to cost on the device besides its launch."""
LENGTHS = (0.6, 1.4)
"""Prompts and outputs are spread evenly over these shares of their mean."""


@dataclass(frozen=True)
class Recipe:
    """One grid. `limits`: promise -> limit (`ttft:p95<=500ms` in seconds; accuracy: share of changed tokens)."""

    name: str
    question: str
    gpu: str
    shape: str
    max_model_len: int
    axes: tuple[Axis, ...]
    goal: tuple[str, bool]
    usd_per_hour: float
    users: int
    requests: int
    input_tokens: int
    output_tokens: int
    limits: Mapping[str, float]
    rate_per_s: float | None = None


def choices(name: str, *values: Any, default: Any = None) -> Axis:
    return Axis(name, choices=values, default=default)


RECIPES = (
    Recipe(
        "sim-h200-8b-chat",
        "most output tokens per second of a chat on one H200, 120 users",
        "h200",
        "llama-3.1-8b",
        2048,
        (
            choices("quantization", "none", "fp8", "w4a16", default="none"),
            choices("kv_cache_dtype", "auto", "fp8", default="auto"),
            choices("max_num_seqs", 16, 32, 64, 128, 256),
            choices("max_num_batched_tokens", 256, 512, 1024, 2048, 4096),
            choices("enable_chunked_prefill", False),
            choices("enforce_eager", True),
        ),
        ("output_token_throughput_per_s", False),
        4.0,
        120,
        360,
        400,
        60,
        {"ttft:p95<=1500ms": 1.5, "tpot:p95<=14ms": 0.014, "accuracy": 0.015},
    ),
    Recipe(
        "sim-l4-7b-rag",
        "cheapest million output tokens of long prompts on one L4, 24 users",
        "l4",
        "qwen2.5-7b",
        8192,
        (
            choices("quantization", "none", "fp8", "int8", "awq", default="none"),
            choices("kv_cache_dtype", "auto", "fp8", default="auto"),
            choices("gpu_memory_utilization", 0.8, 0.86, 0.95, 0.98),
            choices("max_num_seqs", 2, 4, 8, 12, 16),
            choices("max_num_batched_tokens", 512, 1024, 4096, 8192),
        ),
        ("cost_per_million_output_tokens", True),
        0.8,
        24,
        72,
        3000,
        120,
        {"ttft:p95<=30000ms": 30.0, "tpot:p95<=170ms": 0.17, "accuracy": 0.04},
    ),
    Recipe(
        "sim-a100-32b-code",
        "cheapest million output tokens of code completion on one to four A100, 48 users",
        "a100-80g",
        "qwen2.5-32b",
        8192,
        (
            choices("tensor_parallel_size", 1, 2, 4, default=1),
            choices("quantization", "none", "w8a16", "int8", "awq", default="none"),
            choices("max_num_seqs", 4, 8, 16, 32, 48),
            choices("max_num_batched_tokens", 512, 1024, 4096, 8192),
            choices("enforce_eager", True),
        ),
        ("cost_per_million_output_tokens", True),
        1.8,
        48,
        150,
        1200,
        100,
        {"ttft:p95<=8000ms": 8.0, "tpot:p95<=45ms": 0.045, "accuracy": 0.04},
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--out", type=Path, default=Path("results/reference"))
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    for recipe in RECIPES:
        if given.names and recipe.name not in given.names:
            continue
        start = time.monotonic()
        grid = made_grid(recipe, given.processes)
        write(grid, given.out / recipe.name)
        took = time.monotonic() - start
        best = grid.best
        print(f"{recipe.name}: SIMULATED, {len(grid.cells)} configurations in {took:.0f} s, {grid.counts()}")
        print(
            f"  best {best.value:.5g}: {dict(best.settings)}; default: {cell(recipe, grid.space.default())}"
        )
    return 0


def made_grid(recipe: Recipe, processes: int) -> Grid:
    space = Space({"sim": recipe.axes})
    asked = list(space.all())
    with get_context("spawn").Pool(processes) as pool:
        found: Sequence[Cell] = pool.starmap(cell, [(recipe, one) for one in asked], chunksize=8)
    about = {
        "question": recipe.question,
        "made_by": "tools/make_reference_grids.py",
        "engine_version": VERSION,
        "noise": 0.0,
        "setup": {
            "gpu": recipe.gpu,
            "shape": recipe.shape,
            "max_model_len": recipe.max_model_len,
            "usd_per_device_hour": recipe.usd_per_hour,
            "load": {
                "users": recipe.users,
                "rate_per_s": recipe.rate_per_s,
                "requests": recipe.requests,
                "input_tokens": recipe.input_tokens,
                "output_tokens": recipe.output_tokens,
                "lengths": LENGTHS,
            },
        },
    }
    return Grid(
        recipe.name,
        Goal((recipe.goal,)),
        space,
        ("runs", *recipe.limits),
        {key_of(one.settings): one for one in found},
        True,
        about,
    )


def cell(recipe: Recipe, settings: Settings) -> Cell:
    """What the simulated engine makes of one configuration."""
    asked: dict[str, Any] = dict(settings)
    config = ServingConfig(
        model=recipe.shape,
        max_model_len=recipe.max_model_len,
        sim={"gpu": recipe.gpu, "shape": recipe.shape},
        **asked,
    )
    device, shape = hardware.HARDWARE[recipe.gpu], shapes.SHAPES[recipe.shape]
    scheme = quantization.find(config.quantization)
    assert scheme is not None
    resolved = of_config(config, device, shape)
    launch_s = ready_s(config.model_copy(update={"engine": "vllm", "device": "cuda"}),
                       Target("cuda", device, shape))  # fmt: skip
    if [p for p in engine("sim").problems(config) if "tokenizer" not in p]:
        return Cell(settings, (), {}, "bad_flag", {"waste": 10.0})
    server = setup(resolved, device, shape, SimSettings(gpu=recipe.gpu, shape=recipe.shape))
    if memory.refusal(server.budget, resolved, device.device):
        return Cell(settings, (), {}, "oom_at_launch", {"waste": launch_s * 0.6})
    try:
        served = simulate(server, requests(recipe), concurrency=recipe.users)
    except OutOfMemoryError:
        return Cell(settings, (), {}, "oom_under_load", {"waste": launch_s + WARMUP_S})
    value, missed = told(recipe, server, served)
    return Cell(settings, (value,), missed, None,
                {"launch": launch_s, "warmup": WARMUP_S, "measure": MEASURE_S})  # fmt: skip


def requests(recipe: Recipe) -> list[SimArrival]:
    """The same for every configuration."""
    source = random.Random(f"{recipe.name}:requests")  # noqa: S311 -- a simulation

    def spread(mean: int) -> int:
        return max(1, round(mean * source.uniform(*LENGTHS)))

    return [
        SimArrival(0.0, spread(recipe.input_tokens), spread(recipe.output_tokens))
        for _ in range(recipe.requests)
    ]


def told(recipe: Recipe, server: Setup, served: Sequence[Served]) -> tuple[float, dict[str, float]]:
    """The goal and the promises, over the requests that end after the first and before the last users' ramps."""
    steady = served[recipe.users // 2 : len(served) - recipe.users // 2]
    span_s = steady[-1].last_s - served[recipe.users // 2 - 1].last_s
    rate = sum(one.arrival.output_tokens for one in steady) / span_s
    tp = server.resolved.tensor_parallel_size
    cost = recipe.usd_per_hour * tp / 3600 / rate * 1e6
    reached = {
        "ttft": percentile([one.ttft_s for one in steady]),
        "tpot": percentile([one.tpot_s for one in steady]),
        "accuracy": quality_loss(server),
    }
    missed = {
        name: max(-1.0, reached[name.split(":")[0]] / limit - 1) for name, limit in recipe.limits.items()
    }
    return (cost if recipe.goal[0].startswith("cost") else rate), missed


def percentile(values: Sequence[float], share: float = 0.95) -> float:
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


if __name__ == "__main__":
    sys.exit(main())
