"""Objective: what the points of one launch say about the goal, and by how much each promise is missed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from bench import result as bench_outcome
from bench.metrics import METRICS, enough
from bench.point import Load
from bench.records.folder import RunFolder
from search.result import UNTOLD, Fidelity, Settings, TrialResult
from serving.errors import UserError

if TYPE_CHECKING:
    from bench.result import PointResult as Measured
    from bench.scenario.model import Scenario

ALIASES = {
    "usd_per_million_good_tokens": "cost_per_million_good_tokens",
    "usd_per_million_output_tokens": "cost_per_million_output_tokens",
}
WORST = 10.0
"""A violation is never said to be larger: a request that failed makes a percentile infinite."""
BATCHES = 6


@dataclass(frozen=True)
class Goal:
    """Metrics of `bench.metrics.METRICS` with their directions; the first is the one that is judged by."""

    metrics: tuple[tuple[str, bool], ...]

    @classmethod
    def of(cls, scenario: Scenario) -> Goal:
        """UserError for a metric that is not there, or a cost without a price."""
        found = []
        for text in scenario.search.goal:
            direction, name = text.split()
            metric = ALIASES.get(name, name)
            if metric not in METRICS:
                raise UserError(
                    f"{scenario.file}: search.goal: no metric {name}", "METHODOLOGY.md lists them"
                )
            prices = [part.price or scenario.price for part in scenario.engines]
            if METRICS[metric].unit == "currency" and not all(prices):
                raise UserError(f"{scenario.file}: search.goal: {name} needs a price", "add `price:`")
            other = sorted({p.currency for p in prices if p and name.startswith("usd_")} - {"USD"})
            if other:
                raise UserError(
                    f"{scenario.file}: search.goal: {name}, and a price in {other[0]}", f"use {metric}"
                )
            found.append((metric, direction == "minimize"))
        return cls(tuple(found))

    @property
    def metric(self) -> str:
        return self.metrics[0][0]

    @property
    def minimize(self) -> bool:
        return self.metrics[0][1]

    def loss(self, value: float) -> float:
        """Smaller is better."""
        return value if self.minimize else -value

    def gain(self, value: float, over: float) -> float:
        """By how much `value` is better than `over`, as a share of `over`; cost: of what is paid."""
        return (over - value if self.minimize else value - over) / abs(over) if over else 0.0


def constraints(scenario: Scenario) -> tuple[str, ...]:
    """Names of every promise, so that each trial answers for each."""
    named = [str(slo) for slo in scenario.slos] + [f"{m}<={v:g}" for m, v in scenario.search.limits.items()]
    return ("runs", *named, *(["accuracy"] if scenario.accuracy else []))


def judged(
    scenario: Scenario,
    goal: Goal,
    settings: Settings,
    fidelity: Fidelity,
    points: Sequence[Measured],
    seconds: Mapping[str, float],
    accuracy: float | str | None = None,
) -> TrialResult:
    """The Outcome of the points that one launch measured. Nothing measured is an error of the caller.

    Of loads that differ only in how hard they push (concurrency, rate) the best that keeps every promise
    counts, for that is chosen by whoever deploys; workloads and sizes are averaged. `accuracy` is the
    violation of the floor, or why it cannot be told (`accuracy_violation`); None: not asked for.
    """
    failed = next((p.run.failure for p in points if p.run.failure), None)
    base = TrialResult(settings, fidelity, None, seconds=dict(seconds), points=tuple(p.key for p in points),
                   simulated=any(p.run.simulated for p in points))  # fmt: skip
    if failed is not None:
        return _with(base, failure=failed.kind.value, detail=failed.detail)
    chosen = [
        _best(scenario, goal, list(same))
        for _, same in groupby(points, key=lambda p: job_of(p.run.point.load))
    ]
    invalid = next((p for p in chosen if p.judgement.verdict == "invalid"), None)
    if invalid is not None:
        why = next((r.text for r in invalid.judgement.reasons if r.verdict == "invalid"), "")
        return _with(base, failure="invalid", detail=why)
    found: dict[str, float] = {}
    for metric, _ in goal.metrics:
        values = [p.metrics[metric] for p in chosen]
        if any(v is None or not math.isfinite(v) for v in values):
            why = next((p.lacking[metric] for p in chosen if metric in p.lacking), "")
            detail = f"{metric} cannot be told from these points" + (f": {why}" if why else "")
            return _with(base, failure="no_value", detail=detail)
        found[metric] = sum(v for v in values if v is not None) / len(values)
    told = [promises(scenario, p) for p in chosen]
    worst: dict[str, float] = {}
    for missed, _ in told:
        worst |= {name: max(by, worst.get(name, by)) for name, by in missed.items()}
    unknown = {name: why for _, undetermined in told for name, why in undetermined.items()}
    unknown = {name: why for name, why in unknown.items() if worst.get(name, 0.0) <= 0}
    worst = {name: by for name, by in worst.items() if name not in unknown}
    if isinstance(accuracy, str):
        unknown["accuracy"] = accuracy
    elif accuracy is not None:
        worst["accuracy"] = accuracy
    spread = [_variance(p, goal.metric) for p in chosen]
    known = [v for v in spread if v is not None]
    variance = sum(known) / len(known) ** 2 if len(known) == len(spread) else None
    first = tuple(p.key for p in chosen)
    keys = (*first, *(key for key in base.points if key not in first))
    return _with(
        base, value=found[goal.metric], values=found, violations=worst, undetermined=unknown,
        variance=variance, points=keys,
    )  # fmt: skip


def promised(scenario: Scenario) -> dict[str, tuple[str, float]]:
    """Every promise of the load as it is written -> its metric and limit."""
    found = {str(slo): (slo.name, slo.limit) for slo in scenario.slos}
    return found | {f"{name}<={limit:g}": (name, limit) for name, limit in scenario.search.limits.items()}


def promises(scenario: Scenario, point: Measured) -> tuple[dict[str, float], dict[str, str]]:
    """Each promise of the load: by how much it is missed, scaled by its limit; or why it cannot be told.

    A percentile without its samples, as in a short look, is missed where a lower one is above the limit
    already; else it is undetermined.
    """
    missed, undetermined = {}, {}
    for shown, (name, limit) in promised(scenario).items():
        value = enough.telling(point.metrics, name, limit)
        if value is None:
            undetermined[shown] = point.lacking.get(name, "nothing was measured")
        else:
            missed[shown] = max(-1.0, min(WORST, (value - limit) / limit if limit else value))
    return missed, undetermined


def untellable(scenario: Scenario, goal: Goal, loads: Sequence[Load]) -> tuple[list[str], list[str]]:
    """What no load of a job can tell of the promises and the goal, and what single loads may not; as text.

    Of loads that differ only in how hard they push one that can tell is enough.
    """
    asked = {shown: metric for shown, (metric, _) in promised(scenario).items()}
    asked |= {f"the goal {metric}": metric for metric, _ in goal.metrics}
    found = enough.shortfalls(loads, asked)
    hopeless: list[enough.Shortfall] = []
    doubtful: list[enough.Shortfall] = []
    for one in found:
        same = [load for load in loads if job_of(load) == job_of(one.load)]
        never = {f.load for f in found if f.never and f.promise == one.promise}
        (hopeless if all(load in never for load in same) else doubtful).append(one)
    return enough.lines(hopeless), enough.lines(doubtful)


def accuracy_violation(folder: RunFolder, scenario: Scenario, key: str, baseline: str) -> float | str | None:
    """How the config `key` of this run stands against the floor in the screening: above 0 is a FAIL.

    A few items seldom show more than what is badly broken, so INCONCLUSIVE stays in the race, as in every
    short look; who wins must hold a certificate (`search.finals.certify`). Where a side cannot be asked a
    task, or its answers cannot be judged, so that no certificate can ever be had, the text says why. None:
    the scenario has no floor.
    """
    if scenario.accuracy is None:
        return None
    from bench.accuracy.evaluate import DISK

    try:
        return _violation(folder, scenario, key, baseline)
    except Exception as error:  # a trial is lost, and said to be; the search is not
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        return f"the answers cannot be judged: {type(error).__name__}: {error}"


def _violation(folder: RunFolder, scenario: Scenario, key: str, baseline: str) -> float | str:
    from bench.accuracy.verdict import floor_of
    from bench.evaluation import store

    ours, theirs = store.evaluations(folder, key), store.evaluations(folder, baseline)
    for side, whose, found in (("", key, ours), ("the baseline: ", baseline, theirs)):
        if not found:
            return side + (store.missing(folder, whose) or "it was not asked")
    if theirs[0].refused:
        return "the baseline cannot be asked " + _refused(theirs[0].refused)
    judged = {name: why for name, why in ours[0].refused.items()
              if name in theirs[0].tasks and theirs[0].tasks[name].measures != "tripwire"}  # fmt: skip
    if judged:
        return "it cannot be asked " + _refused(judged)
    if key == baseline:
        return 0.0
    floor = floor_of(ours[0], theirs[0], again=theirs[1] if len(theirs) > 1 else None)
    missed = floor.violation or 0.0
    return max(UNTOLD, missed) if floor.verdict == "FAIL" else min(0.0, missed)


def _refused(tasks: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in tasks.items())


def measured(folder: RunFolder, scenario: Scenario, keys: Iterable[str]) -> list[Measured]:
    """The stored points `keys` with their metrics and verdicts."""
    from bench.proof.calibration import Calibration

    kept = folder.manifest.get("calibration")
    calibration = Calibration.from_json(kept) if kept else None
    return [bench_outcome.outcome(folder.run(key), scenario, calibration) for key in keys]


def job_of(load: Load) -> tuple[object, ...]:
    """What stays the same where loads differ only in how hard they push."""
    return load.workload, load.input_tokens, load.output_tokens


def _best(scenario: Scenario, goal: Goal, points: Sequence[Measured]) -> Measured:
    def rank(point: Measured) -> tuple[bool, float, int, float]:
        missed, undetermined = promises(scenario, point)
        value = point.metrics[goal.metric]
        loss = math.inf if value is None else goal.loss(value)
        broken = sum(max(0.0, v) for v in missed.values())
        return point.judgement.verdict == "invalid", broken, len(undetermined), loss

    return min(points, key=rank)


def _variance(point: Measured, metric: str) -> float | None:
    """Of a rate, or a cost that is one over a rate, by batch means over the steady window."""
    curves, value = point.curves, point.metrics[metric]
    if (
        METRICS[metric].unit not in ("currency", "tokens/s", "requests/s")
        or curves.window_s is None
        or value is None
    ):
        return None
    start, end = curves.window_s
    edges = zip(curves.edges_s, curves.edges_s[1:], curves.tokens_per_s, strict=False)
    rates = [rate for left, right, rate in edges if left >= start and right <= end]
    size = len(rates) // BATCHES
    if size < 1:
        return None
    means = [sum(rates[i * size : (i + 1) * size]) / size for i in range(BATCHES)]
    mean = sum(means) / BATCHES
    if mean <= 0:
        return None
    relative = sum((m - mean) ** 2 for m in means) / (BATCHES - 1) / BATCHES / mean**2
    return relative * value**2


def _with(base: TrialResult, **changed: object) -> TrialResult:
    from dataclasses import replace

    return replace(base, **changed)  # type: ignore[arg-type]
