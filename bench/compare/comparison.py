"""Is B as good as A? Pairs the points of two runs and tests the ratio of each metric.

PASS: the whole interval of B / A is on the good side of the margin. FAIL: all of it is on the bad side.
INCONCLUSIVE: it straddles the margin, or there is no number to be had. With several claims the intervals
are simultaneous (Bonferroni), so that a comparison of equals says "different" 5 times in 100 as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.checks import judge
from bench.compare.pairing import pair
from bench.metrics import METRICS, Better
from bench.metrics.intervals import error_within
from bench.metrics.ratio import RESTART_SPREAD, ratio
from bench.metrics.statistics import CONFIDENCE, Interval
from bench.metrics.view import View
from bench.records.model import Run
from bench.scenario.model import Price
from bench.scenario.slo import Slo
from serving.claims import Verdict

MARGIN = 0.05


PriceOf = Callable[[Run], Price | None]


def _no_price(run: Run) -> Price | None:
    return None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One claim about one metric: B / A, its interval, the limit it was held against, the verdict.

    `interval` and `ratio` are None when there is no number; `notes` say why, and what was left out.
    """

    metric: str
    verdict: Verdict
    ratio: float | None
    interval: Interval | None
    threshold: float
    launches: tuple[int, int] = (0, 0)
    between: float | None = None
    within: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def different(self) -> bool:
        """Whether the interval excludes 1: what an A/A comparison says at most 5 times in 100."""
        return self.interval is not None and not self.interval.low <= 1 <= self.interval.high


@dataclass(frozen=True)
class _Side:
    """Believable runs of one side by launch, and what is to be said about them."""

    launches: tuple[tuple[View, ...], ...]
    notes: tuple[str, ...]


def _side(name: str, runs: Sequence[Run], slos: Sequence[Slo], price: PriceOf) -> _Side:
    """Runs that name no launch (made by `servetune load`) may share a server: they count as one launch."""
    notes = []
    groups: dict[str, list[View]] = {}
    for run in runs:
        judgement = judge(run, slos=slos)
        if judgement.reasons:
            left_out = "left out, " if judgement.verdict == "invalid" else ""
            notes.append(f"{name}: {left_out}{judgement.verdict}: {judgement.reasons[0].text}")
        if judgement.verdict != "invalid":
            view = View(run, tuple(slos), price(run))
            groups.setdefault(run.launch, []).append(view)
    if not groups:
        notes.append(f"{name} has no believable run")
    return _Side(tuple(tuple(views) for views in groups.values()), tuple(notes))


def _claim(
    a: _Side, b: _Side, metric: str, margin: float, confidence: float, restart_spread: float
) -> Comparison:
    better = METRICS[metric].better
    limit = 1 - margin if better == "higher" else 1 + margin
    a, b, paired = _by_draws(a, b)
    notes = [*a.notes, *b.notes]
    if not a.launches or not b.launches:
        return _nothing(metric, limit, notes)
    values = [[[METRICS[metric].of(view) for view in launch] for launch in side.launches] for side in (a, b)]
    known_a, known_b = _positive(values[0]), _positive(values[1])
    if known_a is None or known_b is None:
        notes.append(f"{metric} has no positive value in every run (too few samples, or nothing measured)")
        return _nothing(metric, limit, notes)
    errors = [_error_of_launch(s.launches[0], v[0], metric) for s, v in ((a, known_a), (b, known_b))]
    within = None if errors[0] is None or errors[1] is None else (errors[0], errors[1])
    if within is None and len(known_a) == len(known_b) == 1:
        notes.append("one launch a side, and the spread within it cannot be told: repeat with restart: true")
        return _nothing(metric, limit, notes)
    found = ratio(
        known_a, known_b, within, confidence=confidence, restart_spread=restart_spread, paired=paired
    )
    if found.note:
        notes.append(found.note)
    verdict = _verdict(found.interval, better, margin)
    return Comparison(
        metric, verdict, found.ratio, found.interval, limit, found.launches, found.between, found.within,
        tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def _by_draws(a: _Side, b: _Side) -> tuple[_Side, _Side, bool]:
    """Launches of both sides in the order of the draws that they met; whether they are pairs.

    Arrivals drawn by repeat are common to all configurations and differ between repeats, mostly by more than
    launches do. Pairs need two launches or more a side, each with draws of its own; a launch whose partner
    is not believable is left out. What met the same draws throughout (closed loops, one repeat) is no pair.
    """
    of = [{_draws(launch): launch for launch in side.launches} for side in (a, b)]
    both = sorted(set(of[0]) & set(of[1]))
    if len(both) < 2 or any(len(o) < len(side.launches) for o, side in zip(of, (a, b), strict=True)):
        return a, b, False
    left = [
        f"{name}: {len(o) - len(both)} launch{'es' * (len(o) - len(both) > 1)} met draws that the other side "
        "did not: left out"
        for name, o in (("A", of[0]), ("B", of[1]))
        if len(o) > len(both)
    ]
    sides = [
        _Side(tuple(o[draws] for draws in both), (*side.notes, *left))
        for o, side in zip(of, (a, b), strict=True)
    ]
    return sides[0], sides[1], True


def _draws(launch: Sequence[View]) -> tuple[int, ...]:
    """What a launch drew, as the load is the same: the seeds of its repeats."""
    return tuple(sorted(view.run.point.seed for view in launch))


def _nothing(metric: str, limit: float, notes: Sequence[str]) -> Comparison:
    return Comparison(metric, "INCONCLUSIVE", None, None, limit, notes=tuple(dict.fromkeys(notes)))


def _positive(launches: Sequence[Sequence[float | None]]) -> list[list[float]] | None:
    """The values, when all of them are numbers a ratio can be taken of."""
    if any(value is None or not 0 < value < np.inf for launch in launches for value in launch):
        return None
    return [[value for value in launch if value is not None] for launch in launches]


def _verdict(interval: Interval, better: Better, margin: float) -> Verdict:
    low, high = interval.low, interval.high
    if better == "lower":
        passed, lost = high <= 1 + margin, low > 1 + margin
    elif better == "higher":
        passed, lost = low >= 1 - margin, high < 1 - margin
    else:
        passed = low >= 1 - margin and high <= 1 + margin
        lost = high < 1 - margin or low > 1 + margin
    return "PASS" if passed else "FAIL" if lost else "INCONCLUSIVE"


def _error_of_launch(views: Sequence[View], values: Sequence[float], metric: str) -> float | None:
    """Relative error of one launch's mean: from within its runs, or between them where that is more."""
    errors = [error for view in views if (error := error_within(view, metric)) is not None]
    inside = float(np.sqrt(np.mean(np.square(errors)))) if errors else None
    between = float(np.std(np.log(values), ddof=1)) if len(values) > 1 else None
    known = [spread for spread in (inside, between) if spread is not None]
    return max(known) / float(np.sqrt(len(values))) if known else None


def compare_all(
    runs_a: Sequence[Run],
    runs_b: Sequence[Run],
    metrics: Sequence[str],
    margin: float = MARGIN,
    *,
    slos: Sequence[Slo] = (),
    price: PriceOf = _no_price,
) -> tuple[list[tuple[str, Comparison]], list[str]]:
    """Every metric on every pair of points, with simultaneous intervals, and what has no partner."""
    pairs, left = pair(runs_a, runs_b)
    claims = max(1, len(pairs) * len(metrics))
    confidence = 1 - (1 - CONFIDENCE) / claims
    found = []
    for p in pairs:
        a, b = _side("A", p.a, slos, price), _side("B", p.b, slos, price)
        found += [(p.label, _claim(a, b, m, margin, confidence, RESTART_SPREAD)) for m in metrics]
    return found, left
