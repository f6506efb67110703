"""Simulated servers whose capacity at an SLO is known: what `findrate_simulation.py` searches on."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bench.scenario.slo import Slo, parse

Array = NDArray[np.float64]
Serve = Callable[[Array, np.random.Generator, float], tuple[Array, Array]]
"""(arrival times, rng, rate) -> (time of the first token, of the last) of each request; empty before."""


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
