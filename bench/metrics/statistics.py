"""What a sample of latencies can say, and how sure it is. Pure functions of numbers; numpy arrays in.

Percentiles are nearest-rank on raw data (never interpolated, never averaged over runs). Requests of one
server are not independent: `effective_size` says what n is worth, and the intervals take it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """Two-sided interval at `confidence`, in the unit of what was estimated."""

    low: float
    high: float
    confidence: float = CONFIDENCE


def rank(n: int, q: float) -> int:
    """1-based rank of quantile q of n values, ceil(q n): type 1 of Hyndman and Fan (1996)."""
    return max(1, math.ceil(q * n - 1e-9))


def percentile(values: Array, q: float) -> float:
    """Nearest-rank percentile; `values` may hold infinities (failed requests) but no NaN. Needs n >= 1."""
    position = rank(values.size, q) - 1
    return float(np.partition(values, position)[position])


@cache
def floor(q: float, confidence: float = 0.99) -> int:
    """Fewest samples from which percentile q may be printed: p50 11, p90 64, p95 130, p99 662, p99.9 6,636.

    Smallest n with P(Binomial(n, 1 - q) <= 1) <= 1 - confidence: with fewer, a server whose true
    percentile is above the printed one would look as good too often. MLPerf early stopping with
    tolerance 0 and confidence 0.99 (mlcommons/inference `loadgen/results.cc`, early_stopping.cc).
    """
    p = 1 - q

    def too_likely(n: int) -> bool:
        return q**n + n * p * q ** (n - 1) > 1 - confidence

    high = 2
    while too_likely(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if too_likely(middle) else (low, middle)
    return high


def order_interval(
    values: Array, q: float, confidence: float = CONFIDENCE, effective: float | None = None
) -> Interval | None:
    """Distribution-free interval of percentile q by order statistics; None when n is too small for one.

    Ranks l < u with P(l <= Binomial(n, q) < u) >= confidence (Conover 1999, section 3.2). With an
    `effective` size below n the ranks are those of that many independent values, spread over n.
    """
    from scipy.stats import binom

    n = values.size
    size = n if effective is None else max(1, min(n, int(effective)))
    tail = (1 - confidence) / 2
    below = int(binom.ppf(tail, size, q))
    if binom.cdf(below - 1, size, q) > tail:
        below -= 1
    above = int(binom.isf(tail, size, q)) + 1
    if below < 1 or above > size:
        return None
    low = max(1, math.floor(below * n / size))
    high = min(n, math.ceil(above * n / size))
    ordered = np.partition(values, [low - 1, high - 1])
    return Interval(float(ordered[low - 1]), float(ordered[high - 1]), confidence)


def effective_size(values: Array) -> float:
    """How many independent values tell as much about the mean as these, which are in time order.

    n / (1 + 2 sum of autocorrelations), summed over Geyer's initial positive sequence (Geyer 1992,
    Practical Markov chain Monte Carlo, section 3.3); between 1 and n. Below 16 values: n, unknown.
    """
    n = values.size
    if n < 16 or not np.isfinite(values).all() or np.ptp(values) == 0:
        return float(n)
    centred = (values - values.mean()) / np.ptp(values)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    covariance = np.fft.irfft(spectrum * np.conj(spectrum), size)[: n // 2 * 2]
    pairs = covariance[0::2] + covariance[1::2]
    negative = np.flatnonzero(pairs <= 0)
    known = float(pairs[: negative[0] if negative.size else pairs.size].sum())
    inflation = (2 * known - covariance[0]) / covariance[0]
    return float(min(n, max(1.0, n / inflation))) if inflation > 0 else float(n)


def mser(values: Array, slack: float = 1.5) -> int:
    """How many leading values to leave out so that the rest is steady: MSER truncation.

    Among cuts of up to half the values, MSER takes the one with the least (variance of the rest) /
    (its length), the squared standard error of the mean (White 1997; Franklin and White 2008). On
    correlated but steady data that minimum is flat and lands anywhere, at the price of half the run;
    so the smallest cut within `slack` of the minimum is taken, or with a standard error below 0.1%.
    """
    n = values.size
    if n < 4:
        return 0
    counts = np.arange(1, n + 1)
    centred = values[::-1] - values.mean()
    sums, squares = np.cumsum(centred), np.cumsum(centred * centred)
    error = ((squares - sums * sums / counts) / counts**2)[::-1][: n // 2 + 1]
    negligible = (1e-3 * float(values.mean())) ** 2
    return int(np.argmax(error <= max(slack * float(error.min()), negligible)))
