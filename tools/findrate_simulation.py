"""Proof by simulation: does `bench.findrate` find a capacity that is known, and at what cost?

    .venv/bin/python tools/findrate_simulation.py [--seeds 100] [--model mmc ...]

Servers whose capacity at the SLO is known: by formula (M/M/c, independent requests) or from a very long
simulation (continuous batching). Each seed is one whole search. Nothing here is measured on a real server.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bench.capacity import Capacity
from bench.findrate import find_rate
from bench.grid import Load, Point
from bench.records import Judgement, Record, Run
from bench.slo import Slo, parse
from serving.config import ServingConfig

Array = NDArray[np.float64]
Serve = Callable[[Array, np.random.Generator, float], tuple[Array, Array]]
"""(arrival times, rng, rate) -> (time of the first token, of the last) of each request; empty before."""
CONFIG = ServingConfig(engine="sim", model="m")


def mmc(servers: int, service_s: float) -> Serve:
    """M/M/c: the first token comes when a server takes the request."""

    def serve(arrivals: Array, rng: np.random.Generator, rate: float) -> tuple[Array, Array]:
        free = [0.0] * servers
        first = np.empty(arrivals.size)
        last = np.empty(arrivals.size)
        spent = rng.exponential(service_s, arrivals.size)
        for i, (at, needs) in enumerate(zip(arrivals.tolist(), spent.tolist(), strict=True)):
            begun = max(at, free[0])
            first[i] = begun
            last[i] = begun + needs
            heapq.heapreplace(free, begun + needs)
        return first, last

    return serve


def mmc_capacity(servers: int, service_s: float, limit_s: float, share: float) -> float:
    """Rate at which P(wait > limit) = share: Erlang's C times an exponential (Kleinrock 1975, 3.5)."""
    low, high = 0.0, servers / service_s * (1 - 1e-9)
    for _ in range(80):
        rate = (low + high) / 2
        load = rate * service_s
        blocked = 1.0
        for k in range(1, servers + 1):
            blocked = load * blocked / (k + load * blocked)
        waits = blocked / (1 - load / servers * (1 - blocked))
        beyond = waits * math.exp(-(servers / service_s - rate) * limit_s)
        low, high = (rate, high) if beyond < share else (low, rate)
    return low


def batching(slots: int, base_s: float, each_s: float, prefill_s: float, tokens: int) -> Serve:
    """Continuous batching: a step gives every running request a token; a new one costs a prefill first."""

    def serve(arrivals: Array, rng: np.random.Generator, rate: float) -> tuple[Array, Array]:
        wanted = (1 + rng.geometric(1 / tokens, arrivals.size)).tolist()
        times = arrivals.tolist()
        first, last = np.empty(arrivals.size), np.empty(arrivals.size)
        now, step, came, running = 0.0, 0, 0, 0
        ends: list[tuple[int, int]] = []
        while came < len(times) or ends:
            if not ends and times[came] > now:
                now = times[came]
            new = []
            while came < len(times) and times[came] <= now and running < slots:
                new.append(came)
                came += 1
                running += 1
            now += base_s + each_s * running + prefill_s * len(new)
            step += 1
            for i in new:
                first[i] = now
                heapq.heappush(ends, (step + wanted[i], i))
            while ends and ends[0][0] <= step:
                last[heapq.heappop(ends)[1]] = now
                running -= 1
        return first, last

    return serve


def independent(capacity: float, share: float, limit_s: float, steepness: float) -> Serve:
    """Every request alone: over the limit by chance, more often at a higher rate. Tests the bare test."""

    def serve(arrivals: Array, rng: np.random.Generator, rate: float) -> tuple[Array, Array]:
        odds = share / (1 - share) * (rate / capacity) ** steepness
        over = rng.random(arrivals.size) < odds / (1 + odds)
        took = np.where(over, 2 * limit_s, limit_s * rng.uniform(0.1, 0.9, arrivals.size))
        return arrivals + took, arrivals + took + limit_s

    return serve


@dataclass(frozen=True)
class Model:
    """A server, the SLO, and the rate at which that SLO is exactly met."""

    name: str
    serve: Serve
    slo: Slo
    capacity: float
    start: float


@cache
def model(name: str) -> Model:
    if name == "independent":
        return Model(name, independent(40.0, 0.01, 0.5, 30), parse("ttft:p99<=500ms"), 40.0, 30.0)
    if name == "mmc":
        return Model(name, mmc(8, 0.2), parse("ttft:p99<=500ms"), mmc_capacity(8, 0.2, 0.5, 0.01), 20.0)
    if name == "mmc-p90":
        return Model(name, mmc(8, 0.2), parse("ttft:p90<=300ms"), mmc_capacity(8, 0.2, 0.3, 0.10), 20.0)
    if name == "batching":
        serve = batching(32, 0.010, 0.0006, 0.008, 60)
        slo = parse("ttft:p99<=400ms")
        return Model(name, serve, slo, long_run_capacity(serve, slo, 1.0, 60.0), 15.0)
    if name == "batching-mean":
        serve = batching(32, 0.010, 0.0006, 0.008, 60)
        slo = parse("ttft:mean<=60ms")
        return Model(name, serve, slo, long_run_capacity(serve, slo, 1.0, 60.0), 15.0)
    raise KeyError(name)


MODELS = ("independent", "mmc", "mmc-p90", "batching", "batching-mean")


def long_run_capacity(serve: Serve, slo: Slo, low: float, high: float, requests: int = 400_000) -> float:
    """Bisection on one long run a rate, same random numbers at all of them."""
    while high / low > 1.002:
        rate = math.sqrt(low * high)
        rng = np.random.default_rng(1)
        due = np.cumsum(rng.exponential(1 / rate, requests))
        took = (serve(due, rng, rate)[0] - due)[requests // 50 :] * 1e3
        over = float(took.mean()) > slo.limit
        if slo.statistic != "mean":
            q = float((slo.statistic or "p50")[1:]) / 100
            over = float((took > slo.limit).mean()) > 1 - q
        low, high = (low, rate) if over else (rate, high)
    return math.sqrt(low * high)


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
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--model", choices=MODELS, nargs="*", default=MODELS)
    parser.add_argument("--max-s", type=float, default=1800.0, help="time of each search, simulated seconds")
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
