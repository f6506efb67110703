"""Spread: what the launches of the finals show of a gain or of a promise, and how many more would settle it.

A value is truth x what its round did to all x what its launch did, so that logarithms are compared. One
spread is estimated from all finalists and rounds together (two-way analysis of variance without
interaction): a finalist has three to six launches, too few to know its own. Where a finalist's own
differences vary more than that, theirs counts for it, so that one restless configuration is not crowned
by the calm of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
LEAST_ROUNDS = 3
FIRST_LOOKS = 4
"""After each round from LEAST_ROUNDS on it may be over; each of the first few looks spends an equal share."""
HORIZON = 1000
"""Rounds beyond which no number is named."""
POWER = 0.8
"""More rounds are counted so that they settle it in four cases of five, if things are as they look."""

Bounds = tuple[float, float, float]
"""Estimate, low, high."""
Values = Sequence[float | None]
"""One configuration's values, the round of each being its place; None: it had none."""


@dataclass(frozen=True)
class SpreadFit:
    """Spread of one launch, as a standard deviation of logarithms, with its degrees of freedom."""

    sigma: float
    freedom: int


@dataclass(frozen=True)
class Difference:
    """How much better one is than another in the rounds they share: log ratio, standard error, rounds."""

    middle: float
    error: float
    rounds: int


def spent(rounds: int) -> float:
    """Share of the chance to be wrong that the look after so many rounds has: all looks together spend 1."""
    last = LEAST_ROUNDS + FIRST_LOOKS - 1
    each = 1 / (FIRST_LOOKS + 1)
    return each if rounds <= last else each * last / (rounds * (rounds - 1))


def fit(rows: Sequence[Values]) -> SpreadFit | None:
    """One spread for all; None where nothing is left to estimate it from, or a value has no logarithm."""
    cells = [
        (row, place, v) for row, values in enumerate(rows) for place, v in enumerate(values) if v is not None
    ]
    if not cells or any(v <= 0 for _, _, v in cells):
        return None
    held, places = sorted({c[0] for c in cells}), sorted({c[1] for c in cells})
    design = np.zeros((len(cells), len(held) + len(places)))
    for number, (row, place, _) in enumerate(cells):
        design[number, held.index(row)] = design[number, len(held) + places.index(place)] = 1
    logs = np.log([v for _, _, v in cells])
    found, _, rank, _ = np.linalg.lstsq(design, logs, rcond=None)
    freedom = len(cells) - int(rank)
    if freedom < 1:
        return None
    return SpreadFit(math.sqrt(float(((logs - design @ found) ** 2).sum()) / freedom), freedom)


def difference(mine: Values, theirs: Values, pooled: SpreadFit, *, minimize: bool) -> Difference | None:
    """Positive: mine is better. None: less than two rounds in common."""
    logs = [
        math.log(b / a if minimize else a / b)
        for a, b in zip(mine, theirs, strict=False)
        if a is not None and b is not None
    ]
    if len(logs) < 2:
        return None
    own = float(np.std(logs, ddof=1))
    return Difference(
        sum(logs) / len(logs), max(pooled.sigma * math.sqrt(2), own) / math.sqrt(len(logs)), len(logs)
    )


def bounds(found: Difference, pooled: SpreadFit, count: int, *, minimize: bool) -> Bounds:
    """Shares of the other's value, at CONFIDENCE for all of `count` comparisons and all looks together."""
    reach = float(quantile(found.rounds, pooled.freedom, count)) * found.error
    low, high = found.middle - reach, found.middle + reach
    return (
        share(found.middle, minimize=minimize),
        share(low, minimize=minimize),
        share(high, minimize=minimize),
    )


def share(log: float, *, minimize: bool) -> float:
    """A cost that is halved is a gain of 50%, a rate that is doubled one of 100%."""
    return -math.expm1(-log) if minimize else math.expm1(min(log, 700.0))


def quantile(rounds: float | np.ndarray, freedom: float | np.ndarray, count: int) -> float | np.ndarray:
    """Of Student, for one bound of one of `count` comparisons after so many rounds."""
    from scipy import stats

    shares = np.vectorize(spent)(rounds)
    return stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / count * shares, freedom)


@dataclass(frozen=True)
class More:
    """Rounds beyond those there are. None: more than HORIZON, or no number can be named.

    low, high: for effects one standard error larger or smaller, and a spread at the ends of its 80% interval
    """

    middle: int | None
    low: int | None
    high: int | None


def more_rounds(found: Sequence[Difference], pooled: SpreadFit, count: int, worth_log: float) -> More:
    """Until the best of `found` is surely better than the baseline, or none can be better by `worth_log`."""
    from scipy import stats

    held = max(one.rounds for one in found)
    ns = np.arange(max(held + 1, LEAST_ROUNDS), HORIZON + held + 1)
    freedom = pooled.freedom * (ns - 1) / max(1, held - 1)
    reach = quantile(ns, freedom, count) + float(stats.norm.ppf(POWER))
    middles = np.array([one.middle for one in found])
    errors = np.array([one.error for one in found])
    ends = stats.chi2.ppf((0.9, 0.1), pooled.freedom)
    answers: dict[tuple[int, int], float] = {}
    for kind, factor in enumerate((1.0, *np.sqrt(pooled.freedom / ends))):
        for step in (-1, 0, 1):
            d = (middles + step * errors)[:, None]
            now = (errors * factor * np.sqrt([one.rounds for one in found]))[:, None] / np.sqrt(ns)
            shown = (d >= reach * now).any(axis=0)
            ruled_out = (d + reach * now <= worth_log).all(axis=0)
            done = np.flatnonzero(shown | ruled_out)
            answers[kind, step] = float(ns[done[0]] - held) if done.size else math.inf
    return _more(answers[0, 0], answers.values())


@dataclass(frozen=True)
class Kept:
    """A promise over the launches of one configuration: by how much it is missed, as a share of its limit.

    state   `kept` or `broken` when the whole interval says so, else `untold`
    broken  launches that missed it;  error: standard error of the middle, None with one launch
    """

    state: str
    middle: float
    low: float | None
    high: float | None
    broken: int
    launches: int
    error: float | None

    def more(self) -> More:
        """Launches that tell it, if it is missed or kept by as much as it looks."""
        from scipy import stats

        held = self.launches
        if self.error is None:
            return More(None, max(1, LEAST_ROUNDS - held), None)
        ns = np.arange(max(held + 1, LEAST_ROUNDS), HORIZON + held + 1)
        reach = stats.t.ppf((1 + CONFIDENCE) / 2, ns - 1) + float(stats.norm.ppf(POWER))
        answers = {}
        ends = stats.chi2.ppf((0.9, 0.1), held - 1)
        for kind, factor in enumerate((1.0, *np.sqrt((held - 1) / ends))):
            now = self.error * factor * math.sqrt(held) / np.sqrt(ns)
            for step in (-1, 0, 1):
                done = np.flatnonzero(reach * now <= abs(self.middle + step * self.error))
                answers[kind, step] = float(ns[done[0]] - held) if done.size else math.inf
        crosses = abs(self.middle) <= self.error
        return _more(answers[0, 0], [*answers.values(), *([math.inf] if crosses else [])])


def promise(missed: Sequence[float]) -> Kept:
    """By Student's interval at CONFIDENCE, of its own launches alone: tails differ too much to be pooled."""
    from scipy import stats

    n, middle = len(missed), sum(missed) / len(missed)
    broken = sum(v > 0 for v in missed)
    if n < 2:
        return Kept("untold", middle, None, None, broken, n, None)
    error = float(np.std(missed, ddof=1)) / math.sqrt(n)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    low, high = middle - reach, middle + reach
    state = "untold" if n < LEAST_ROUNDS or low <= 0 < high else "broken" if low > 0 else "kept"
    return Kept(state, middle, low, high, broken, n, error)


def _more(middle: float, all_of: object) -> More:
    values = [float(v) for v in all_of]  # type: ignore[attr-defined]
    low, high = min(values), max(values)
    named = [None if not math.isfinite(v) else int(v) for v in (middle, low, high)]
    return More(named[0], named[1], named[2])
