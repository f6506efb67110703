"""`find_rate` on a real server: each stretch is one drive, with prompts that no other stretch has sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench.checks import judge
from bench.client.drive import Progress, drive
from bench.findrate.capacity import Capacity, RateProbe
from bench.findrate.find import RESOLUTION, find_rate
from bench.findrate.overlimit import stretch
from bench.findrate.slotest import weigh
from bench.point import Load, Point
from bench.records.model import Run
from bench.result import declared_cache_share
from bench.scenario.slo import Slo
from bench.telemetry.probe import Sampler
from bench.traffic.prompts import Prompts
from serving.config import ServingConfig
from serving.engine import Endpoint
from serving.errors import UserError

OPEN = ("poisson", "constant", "gamma", "burst")
ROUNDS = 4
"""Requests of each user in the closed loops that say where to start."""
MOST_USERS = 512
GAIN = 1.1
BELOW = 0.8
"""An open loop holds less than a closed one: arrivals bunch."""
DRAIN_S, FIRST_DRAIN_S = 2.0, 10.0
DRAIN_LATENCIES = 5.0
"""After the last departure 2 s are waited, or twice the limits, or so many durations of a request: what
has not answered by then is over the limit, and its connection is closed."""


def capacity_of(
    server: Endpoint,
    config: ServingConfig,
    base: Load,
    prompts: Prompts,
    slos: Sequence[Slo],
    *,
    folder: Path,
    salt: str,
    max_s: float,
    seed: int = 0,
    workers: int = 1,
    lenient: bool = False,
    start_rate_per_s: float | None = None,
    resolution: float = RESOLUTION,
    alive: Callable[[], bool] = lambda: True,
    watch: Callable[[RateProbe], None] = lambda probe: None,
    progress: Callable[[Progress], None] | None = None,
) -> Capacity:
    """The highest rate at which `server` meets the SLOs under `base` (its sizes and arrival process).

    folder: scratch. salt: other salts give other prompts. Without `start_rate_per_s` a few short closed
    loops find where to start. UserError for a load that is no open loop.
    """
    begun = time.monotonic()
    measure = Driver(
        server, config, base, prompts, slos, folder=folder, salt=salt, workers=workers, lenient=lenient,
        alive=alive, progress=progress,
    )  # fmt: skip
    if start_rate_per_s is None:
        start_rate_per_s = start_rate(measure.closed, slos)
    return find_rate(
        measure, slos, start_rate_per_s=start_rate_per_s, max_s=max_s - (time.monotonic() - begun),
        resolution=resolution, seed=seed, watch=watch,
        trust=lambda run: judge(run, slos=slos, declared_cache_share=declared_cache_share(run.point.load)),
    )  # fmt: skip


class Driver:
    """Runs one stretch after the other against one server; called, it is what `find_rate` measures with.

    A stretch is over when all its requests are, or some time after the last of them was due.
    """

    def __init__(
        self,
        server: Endpoint,
        config: ServingConfig,
        base: Load,
        prompts: Prompts,
        slos: Sequence[Slo],
        *,
        folder: Path,
        salt: str,
        workers: int = 1,
        lenient: bool = False,
        alive: Callable[[], bool] = lambda: True,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        if base.arrivals not in OPEN:
            raise UserError(
                f"--find-rate needs an open loop, not {base.arrivals}", f"one of {', '.join(OPEN)}"
            )
        self.server, self.config, self.base, self.prompts = server, config, base, prompts
        self.folder, self.salt, self.workers, self.lenient = folder, salt, workers, lenient
        self.alive, self.progress = alive, progress
        limits_s = [slo.limit / 1e3 for slo in slos if slo.statistic is not None]
        self.least_drain_s = max([DRAIN_S, *(2 * limit for limit in limits_s)])
        self.request_s: float | None = None
        self.count = 0

    @property
    def drain_s(self) -> float:
        if self.request_s is None:
            return max(FIRST_DRAIN_S, self.least_drain_s)
        return max(self.least_drain_s, DRAIN_LATENCIES * self.request_s)

    def __call__(self, rate_per_s: float, duration_s: float, seed: int) -> Run:
        load = replace(self.base, rate_per_s=rate_per_s, duration_s=duration_s, requests=None,
                       concurrency=None, warmup_requests=0)  # fmt: skip
        run = self.run(load, seed, duration_s + self.drain_s)
        if any(not record.ok for record in run.records):
            # What was given up may still be in the server's queue: a request alone waits until that is empty.
            self.run(_alone(load), seed, None)
        return run

    def closed(self, users: int, seed: int) -> Run:
        """A short closed loop of the same requests."""
        load = replace(_alone(self.base), concurrency=users, requests=ROUNDS * users)
        return self.run(load, seed, None)

    def run(self, load: Load, seed: int, most_s: float | None) -> Run:
        self.count += 1
        started: list[float] = []

        def stop() -> bool:
            started.append(time.monotonic())
            return most_s is not None and started[-1] - started[0] > most_s

        name = f"stretch-{self.count}"
        with Sampler(None, self.server.url, "cpu") as sampler:
            driven = drive(
                self.server, load, seed=seed, prompts=self.prompts, folder=self.folder / name,
                salt=f"{self.salt}-{name}", workers=self.workers, lenient=self.lenient, alive=self.alive,
                stop=stop, progress=self.progress,
            )  # fmt: skip
        spent = sorted(r.last_s - r.planned_s for r in driven.records if r.ok and r.last_s is not None)
        if spent:
            median_s = spent[len(spent) // 2]
            self.request_s = min(median_s, self.request_s or median_s)
        return Run(
            point=Point(self.config, load, seed),
            records=driven.records,
            samples=sampler.samples(driven.started_monotonic_s),
            client=driven.client,
            load_end_s=driven.load_end_s,
            started_unix_s=driven.started_unix_s,
            engine_version=self.server.version,
            simulated=self.server.simulated,
            notes=sampler.notes,
        )


def _alone(load: Load) -> Load:
    return replace(load, arrivals="closed", concurrency=1, requests=1, rate_per_s=None, duration_s=None,
                   cv=None, burst_size=None, warmup_requests=0)  # fmt: skip


def start_rate(closed: Callable[[int, int], Run], slos: Sequence[Slo]) -> float:
    """Where to start: the throughput of the largest closed loop, 1, 2, 4 ... users, that looks as if it met.

    It also warms the server up. UserError when not one request is answered.
    """
    best, users = 0.0, 1
    while users <= MOST_USERS:
        run = closed(users, users)
        done = [record.closed_s or record.last_s for record in run.records if record.ok]
        ends = [end for end in done if end is not None]
        if not ends:
            if best:
                break
            raise UserError(
                "the server answered none of the first requests", "servetune load --concurrency 1 ..."
            )
        rate = len(ends) / max(1e-3, max(ends))
        one = stretch(run, slos)
        meets = all(weigh(slo, [part]).lean <= 0 for slo, part in zip(slos, one.outcomes, strict=True))
        if not meets and not best:
            return rate * BELOW / 2
        if not meets or rate < GAIN * best:
            break
        best, users = rate, users * 2
    return best * BELOW
