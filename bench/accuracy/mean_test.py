"""Is the mean of bounded values above a number? An exact-distribution score test, and its inversion.

Values lie in a known range [low, high]; under the hypothesis mean = m the most likely distribution is the
empirical one, tilted, with mass added at `low` where nothing observed is low enough (Owen 2001, chapter 2;
for counts this is the restricted maximum likelihood of a score test, as Tango 1998 for paired shares). The
sum of n such values has an exact distribution, found by FFT; no normal approximation. With nothing lost in n
items this is the exact binomial statement (1 - loss)^n, so five lucky items are never a pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class ScoreSample:
    """n values on a grid: distinct multiples `steps` of `h`, how often each occurs, and the range."""

    steps: NDArray[np.int64]
    counts: NDArray[np.int64]
    h: float
    low: int
    high: int

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        return float(self.steps @ self.counts) / self.n * self.h

    def mirrored(self) -> ScoreSample:
        """The same values with the sign turned."""
        return ScoreSample(-self.steps[::-1], self.counts[::-1], self.h, -self.high, -self.low)


def sample(values: Vector, low: float, high: float) -> ScoreSample:
    """`values` in [low, high] on the coarsest grid that holds them exactly, else rounded down to 1/2000.

    Rounding down can only make it harder to show that the mean is above something. ValueError for no
    values, or values outside the range.
    """
    if values.size == 0:
        raise ValueError("no values")
    if values.min() < low - 1e-9 or values.max() > high + 1e-9:
        raise ValueError(f"values from {values.min()} to {values.max()} outside [{low}, {high}]")
    distinct = np.unique(np.round(values, 12))
    denominators = {Fraction(float(v)).limit_denominator(1000).denominator for v in (*distinct[:40], low)}
    per_unit = math.lcm(*denominators)
    if per_unit > 2000 or np.abs(distinct * per_unit - np.round(distinct * per_unit)).max() > 1e-7:
        per_unit = 2000
    steps, counts = np.unique(np.floor(values * per_unit + 1e-7).astype(np.int64), return_counts=True)
    return ScoreSample(
        steps,
        counts.astype(np.int64),
        1 / per_unit,
        min(math.floor(low * per_unit + 1e-7), int(steps[0])),
        max(math.ceil(high * per_unit - 1e-7), int(steps[-1])),
    )


def p_above(data: ScoreSample, mean: float) -> float:
    """p-value of "the true mean is at most `mean`": small when the values show that it is above."""
    target = mean / data.h
    if data.mean / data.h <= target:
        return 1.0
    if target <= data.low:
        return 0.0
    steps, weights = _tilted(data, target)
    return _tail(steps, weights, data.n, int(data.steps @ data.counts))


def lower_bound(data: ScoreSample, alpha: float) -> float:
    """Largest mean that the test rejects from below at level `alpha`: one-sided lower confidence bound."""
    low, high = data.low * data.h, data.mean
    for _ in range(40):
        middle = (low + high) / 2
        if p_above(data, middle) <= alpha:
            low = middle
        else:
            high = middle
        if high - low < 5e-5:
            break
    return low


def upper_bound(data: ScoreSample, alpha: float) -> float:
    """One-sided upper confidence bound of the mean at level `alpha`."""
    return -lower_bound(data.mirrored(), alpha)


def _tilted(data: ScoreSample, target: float) -> tuple[NDArray[np.int64], Vector]:
    """Most likely distribution with mean `target` on the observed steps and the lowest possible one."""
    shifted, share = data.steps - target, data.counts / data.n
    largest = 1 / (target - data.low)

    def excess(tilt: float) -> float:
        return float(np.sum(share * shifted / (1 + tilt * shifted)))

    low, high = 0.0, largest * (1 - 1e-12)
    if excess(high) < 0:
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    weights = share / (1 + high * shifted)
    rest = max(0.0, 1.0 - float(weights.sum()))
    if rest > 1e-9 and data.low < data.steps[0]:
        return np.concatenate([[data.low], data.steps]), np.concatenate([[rest], weights])
    return data.steps, weights / weights.sum()


def _tail(steps: NDArray[np.int64], weights: Vector, n: int, observed: int) -> float:
    """P(sum of n draws >= observed), by the n-th power of the characteristic function on a ring.

    The ring is wide enough that what wraps around it is below 1e-9: 26 standard deviations, and at
    least 40 of the longest step.
    """
    centre = float(steps @ weights)
    spread = math.sqrt(max(float(((steps - centre) ** 2) @ weights), 1e-12) * n)
    longest = int(np.abs(steps).max())
    size = 1 << math.ceil(math.log2(max(26 * spread, 40 * longest, 64)))
    ring: Vector = np.zeros(size)
    np.add.at(ring, np.mod(steps, size), weights)
    chances = np.fft.irfft(np.fft.rfft(ring) ** n, size)
    start = round(centre * n) - size // 2
    if observed <= start:
        return 1.0
    if observed >= start + size:
        return 0.0
    ordered = np.roll(chances, -(start % size))
    return float(min(1.0, max(0.0, ordered[observed - start :].sum())))
