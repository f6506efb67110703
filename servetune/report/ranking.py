"""Which point is best: candidates of one job, in order, and what the best is held against.

A job is what must be served: workload, prompt and output size. Candidates of a job differ in
configuration and in how hard they are pushed (concurrency or rate); repeats of one are one candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import Literal, get_args

from bench.accuracy.verdict import Floor
from bench.point import Load
from bench.point import label as load_label
from bench.records.model import Validity
from bench.result import PointResult, SloState
from serving.config import ServingConfig

Rank = Literal["fit", "doubtful", "slo missed", "below floor", "simulated", "invalid", "failed"]
"""In this order: believed, within the SLOs and above the accuracy floor; to be read with its reasons; too
slow; shown to be less right than the baseline allows; beside real points a simulation does not compete;
not to be believed; no numbers at all."""
STANDINGS: tuple[Rank, ...] = (
    "fit", "doubtful", "slo missed", "below floor", "simulated", "invalid", "failed",
)  # fmt: skip
WORST: tuple[Validity, ...] = ("ok", "suspect", "invalid")

COST = "cost_per_million_good_tokens"
SPEED = "output_token_throughput_per_s"


@dataclass(frozen=True)
class Objective:
    """What candidates are ordered by; `currency` only with a cost."""

    metric: str
    better: Literal["lower", "higher"]
    currency: str | None = None


@dataclass(frozen=True)
class Candidate:
    """One config under one load, with all its repeats. `rank` from 1, None: not in the race."""

    outcomes: tuple[PointResult, ...]
    rank: int | None = None
    beside_real: bool = False
    floor: Floor | None = None
    """What the accuracy floor says; None: nothing was asked, or it is the baseline itself."""

    @property
    def config(self) -> ServingConfig:
        return self.outcomes[0].run.point.config

    @property
    def load(self) -> Load:
        return self.outcomes[0].run.point.load

    @property
    def simulated(self) -> bool:
        return any(o.run.simulated for o in self.outcomes)

    @cached_property
    def verdict(self) -> Validity:
        """The worst among the repeats."""
        return max((o.judgement.verdict for o in self.outcomes), key=WORST.index)

    @cached_property
    def slo(self) -> SloState:
        states = {o.slo for o in self.outcomes}
        return "missed" if "missed" in states else "unknown" if "unknown" in states else "met"

    @cached_property
    def standing(self) -> Rank:
        if any(o.run.failure for o in self.outcomes):
            return "failed"
        if self.verdict == "invalid":
            return "invalid"
        if self.simulated and self.beside_real:
            return "simulated"
        if self.floor is not None and self.floor.verdict == "FAIL":
            return "below floor"
        if self.slo == "missed":
            return "slo missed"
        shown = self.floor is None or self.floor.verdict == "PASS"
        return "fit" if self.verdict == "ok" and self.slo == "met" and shown else "doubtful"

    def values(self, metric: str) -> list[float]:
        found = (o.metrics[metric] for o in self.outcomes)
        return [v for v in found if v is not None]

    def value(self, metric: str) -> float | None:
        """Median over the repeats that have it."""
        found = self.values(metric)
        return median(found) if found else None

    def spread(self, metric: str) -> tuple[float, float] | None:
        """Least and most over the repeats; None with fewer than two."""
        found = self.values(metric)
        return (min(found), max(found)) if len(found) > 1 else None


@dataclass(frozen=True)
class Job:
    """One thing to serve and its candidates, best first. `best` is a fit one, else a doubtful one."""

    name: str
    objective: Objective
    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate | None:
        first = self.candidates[0]
        return first if first.rank == 1 else None

    @cached_property
    def baseline(self) -> Candidate | None:
        """The plainest configuration of the best one's engine under the same load: departs least from the
        engine's own defaults, and among equals least from the best; None when that is the best itself."""
        best = self.best
        if best is None:
            return None
        same = [c for c in self.candidates if c.config.engine == best.config.engine and c.load == best.load]
        wanted = best.config.settings.items()
        plainest = min(
            same,
            key=lambda c: (len(c.config.settings), sum(s not in wanted for s in c.config.settings.items())),
        )
        return plainest if plainest.config.key != best.config.key else None

    @property
    def doubtful_winner(self) -> Candidate | None:
        """A doubtful candidate that would beat the fit best if it could be believed."""
        best = self.best
        if best is None or best.standing != "fit":
            return None
        rivals = (c for c in self.candidates if c.standing == "doubtful")
        return next((c for c in rivals if (gain(self.objective, c, best) or 0) > 1), None)


def gain(objective: Objective, better: Candidate, than: Candidate) -> float | None:
    """How many times better, by the objective (above 1: better); None where a number is missing."""
    a, b = better.value(objective.metric), than.value(objective.metric)
    if not a or not b:
        return None
    return b / a if objective.better == "lower" else a / b


def jobs(outcomes: Sequence[PointResult], floors: Mapping[str, Floor] | None = None) -> list[Job]:
    """Every job in the order it was first measured. `floors`: what accuracy says, by config key."""
    above = floors or {}
    objective = _objective(outcomes)
    real = any(not o.run.simulated for o in outcomes)
    grouped: dict[str, dict[tuple[str, Load], list[PointResult]]] = {}
    for o in outcomes:
        point = o.run.point
        grouped.setdefault(job_name(point.load), {}).setdefault((point.config.key, point.load), []).append(o)
    return [
        Job(
            name,
            objective,
            _ordered(
                [Candidate(tuple(c), None, real, above.get(key)) for (key, _), c in of_job.items()], objective
            ),
        )
        for name, of_job in grouped.items()
    ]


def tally(found: Sequence[Job]) -> list[tuple[Rank, int]]:
    """How many candidates stand where; the order of `Rank`, what nobody has left out."""
    standings = [one.standing for job in found for one in job.candidates]
    return [(standing, standings.count(standing)) for standing in get_args(Rank) if standing in standings]


def job_name(load: Load) -> str:
    return f"{load.workload} {load.input_tokens}→{load.output_tokens}"


def push(load: Load) -> str:
    """How hard the load pushes: `c=8`, `5/s`, or the name of its arrivals."""
    return load_label(load).rsplit(" ", 1)[-1]


def _objective(outcomes: Sequence[PointResult]) -> Objective:
    """Cost where every point is priced in one currency and some cost is known, else throughput."""
    currencies = {o.currency for o in outcomes}
    if len(currencies) == 1 and None not in currencies and any(o.metrics[COST] for o in outcomes):
        return Objective(COST, "lower", currencies.pop())
    return Objective(SPEED, "higher")


def _ordered(found: list[Candidate], objective: Objective) -> tuple[Candidate, ...]:
    sign = 1 if objective.better == "lower" else -1

    def place(candidate: Candidate) -> tuple[int, float]:
        value = candidate.value(objective.metric)
        return STANDINGS.index(candidate.standing), float("inf") if value is None else sign * value

    ordered = sorted(found, key=place)
    racing = [c for c in ordered if c.standing in ("fit", "doubtful") and c.value(objective.metric)]
    ranks = {id(c): rank for rank, c in enumerate(racing, 1)}
    return tuple(replace(c, rank=ranks.get(id(c))) for c in ordered)
