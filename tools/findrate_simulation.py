"""Proof by simulation: does `bench.findrate.find` find a capacity that is known, and at what cost?

    .venv/bin/python tools/findrate_simulation.py [--seeds 20] [--model mmc ...]

Servers whose capacity at the SLO is known: by formula (M/M/c, independent requests) or from a very long
simulation (continuous batching). Each seed is one whole search. Nothing here is measured on a real server.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from findrate_servers import MODELS, Model, Serve, model

from bench.findrate.capacity import Capacity
from bench.findrate.find import find_rate
from bench.point import Load, Point
from bench.records.model import Judgement, Record, Run
from serving.config import ServingConfig

CONFIG = ServingConfig(engine="sim", model="m")


class Clock:
    """Time of the simulated server."""

    def __init__(self) -> None:
        self.now = 0.0
        self.requests = 0

    def __call__(self) -> float:
        return self.now


def simulated(serve: Serve, clock: Clock, seed: int) -> Callable[[float, float, int], Run]:
    """What `find_rate` measures with: Poisson arrivals at a server that starts empty and drains."""

    def measure(rate: float, duration_s: float, number: int) -> Run:
        rng = np.random.default_rng((seed, number))
        due = np.cumsum(rng.exponential(1 / rate, round(rate * duration_s * 1.5) + 50))
        due = due[due <= duration_s]
        if not due.size:
            due = np.array([duration_s / 2])
        first, last = serve(due, rng, rate)
        clock.now += max(duration_s, float(last.max()))
        clock.requests += due.size
        records = tuple(
            Record(i, at, at, first_s=f, first_answer_s=f, last_s=e, event_s=(f, e), output_tokens=2)
            for i, (at, f, e) in enumerate(zip(due.tolist(), first.tolist(), last.tolist(), strict=True))
        )
        load = Load("simulated", 1, 2, "poisson", rate_per_s=rate, duration_s=duration_s)
        return Run(Point(CONFIG, load, seed), records, load_end_s=duration_s, simulated=True)

    return measure


def believe(run: Run) -> Judgement:
    """The simulated client is never late."""
    return Judgement("ok")


@dataclass(frozen=True)
class Outcome:
    """One search: its answer, requests sent, and decisions that were wrong."""

    found: Capacity
    requests: int
    wrong_meets: int
    wrong_breaks: int


def search(chosen: Model, seed: int, **options: float) -> Outcome:
    """One whole search on a simulated server."""
    clock = Clock()
    settings = {"max_s": 1800.0, "resolution": 0.05, **options}
    found = find_rate(
        simulated(chosen.serve, clock, seed), [chosen.slo], start_rate_per_s=chosen.start, seed=seed * 1000,
        clock=clock, trust=believe, **settings,  # type: ignore[arg-type]
    )  # fmt: skip
    meets = sum(p.decision == "meets" and p.rate_per_s > chosen.capacity for p in found.probes)
    breaks = sum(p.decision == "breaks" and p.rate_per_s < chosen.capacity for p in found.probes)
    return Outcome(found, clock.requests, meets, breaks)


def fixed_bisection(
    chosen: Model, seed: int, requests: int = 662, resolution: float = 0.05
) -> tuple[bool, int]:
    """What is usually done: bisect, one run of so many requests a rate, its percentile believed.

    (whether the capacity is in the final bracket, requests sent)
    """
    clock, number = Clock(), 0
    measure = simulated(chosen.serve, clock, seed)

    def met(rate: float) -> bool:
        nonlocal number
        number += 1
        run = measure(rate, requests / rate, number)
        took = np.array([(r.first_s or 0.0) - r.planned_s for r in run.records]) * 1e3
        if chosen.slo.statistic == "mean":
            return float(took.mean()) <= chosen.slo.limit
        q = float((chosen.slo.statistic or "p50")[1:]) / 100
        return float(np.quantile(took, q, method="inverted_cdf")) <= chosen.slo.limit

    low = high = chosen.start
    if met(high):
        while met(high := high * 1.6):
            low = high
    else:
        while not met(low := low / 1.4):
            high = low
    while high / low > 1 + resolution:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if met(middle) else (low, middle)
    return low <= chosen.capacity <= high, clock.requests


def row(name: str, seeds: Sequence[int], **options: float) -> dict[str, float | str]:
    """One line of the table. Wrong decisions are shares of the rates on the side where they can happen."""
    chosen = model(name)
    done = [search(chosen, seed, **options) for seed in seeds]
    fixed = [fixed_bisection(chosen, seed) for seed in seeds]
    ends = [(o.found.interval[0] or 0.0, o.found.interval[1] or math.inf) for o in done]
    above = sum(p.rate_per_s > chosen.capacity for o in done for p in o.found.probes)
    below = sum(p.rate_per_s < chosen.capacity for o in done for p in o.found.probes)
    misses = [max(low / chosen.capacity, chosen.capacity / high) - 1 for low, high in ends]
    guesses = [abs(o.found.estimate_per_s / chosen.capacity - 1) for o in done if o.found.estimate_per_s]
    costs = np.array([o.requests for o in done])
    return {
        "server": name,
        "capacity": chosen.capacity,
        "covered": float(np.mean([miss <= 0 for miss in misses])),
        "worst miss": max(0.0, *misses),
        "wrong meets": sum(o.wrong_meets for o in done) / max(1, above),
        "wrong breaks": sum(o.wrong_breaks for o in done) / max(1, below),
        "low p50": float(np.median([low for low, _ in ends])),
        "high p50": float(np.median([high for _, high in ends])),
        "estimate off p50": float(np.median(guesses)) if guesses else math.nan,
        "ok": float(np.mean([o.found.verdict == "ok" for o in done])),
        "requests p50": float(np.median(costs)),
        "rates p50": float(np.median([len(o.found.probes) for o in done])),
        "fixed covered": float(np.mean([inside for inside, _ in fixed])),
        "fixed requests p50": float(np.median([sent for _, sent in fixed])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--model", choices=MODELS, nargs="*", default=MODELS)
    parser.add_argument("--max-s", type=float, default=3600.0, help="time of each search, simulated seconds")
    asked = parser.parse_args()
    gc.disable()  # a hundred thousand records a search, none in a cycle
    for position, name in enumerate(asked.model):
        begun = time.monotonic()
        found = row(name, range(asked.seeds), max_s=asked.max_s)
        if position == 0:
            print("| " + " | ".join(found) + " |")
            print("|" + "---|" * len(found))
        print(
            "| " + " | ".join(v if isinstance(v, str) else f"{v:.4g}" for v in found.values()) + " |",
            flush=True,
        )
        print(
            f"{name}: {asked.seeds} searches in {time.monotonic() - begun:.0f} s",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
