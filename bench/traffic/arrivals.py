"""ARRIVALS: process name -> planned arrival times, in seconds from the start, computed before the load.

One seeded schedule for the whole load: worker processes get disjoint slices of it, never their own streams.
`fit` says whether a plan is the process that was asked for; `bench.traffic.departures` whether it was kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.point import Load
from serving.errors import UserError

Times = NDArray[np.float64]


def constant(load: Load, rng: np.random.Generator) -> Times:
    """Equal gaps: CV 0."""
    return np.arange(_count(load), dtype=np.float64) / _rate(load)


def poisson(load: Load, rng: np.random.Generator) -> Times:
    """Exponential gaps: CV 1, dispersion index 1."""
    return _from_gaps(load, lambda n: rng.exponential(1 / _rate(load), n))


def gamma(load: Load, rng: np.random.Generator) -> Times:
    """Gamma gaps with the coefficient of variation `cv` (shape 1/cv^2); above 1: bursty."""
    assert load.cv is not None
    shape = 1 / load.cv**2
    return _from_gaps(load, lambda n: rng.gamma(shape, 1 / (_rate(load) * shape), n))


def ramp(load: Load, rng: np.random.Generator) -> Times:
    """A Poisson process whose rate goes linearly from `rate_per_s` to `ramp_to_per_s` (time-rescaling)."""
    low, high = _rate(load), float(load.ramp_to_per_s or 0)
    span = load.duration_s or 2 * (load.requests or 0) / (low + high)
    marks = np.cumsum(rng.exponential(1.0, int((low + high) * span) + 100))
    slope = (high - low) / span
    if abs(slope) < 1e-12:
        times = marks / low
    else:
        # Inverse of the expected count low*t + slope*t^2/2; beyond the peak of a falling ramp there is none.
        root = low**2 + 2 * slope * marks
        times = np.asarray((np.sqrt(root[root >= 0]) - low) / slope, dtype=np.float64)
    return _cut(load, times[times < span])


def burst(load: Load, rng: np.random.Generator) -> Times:
    """`burst_size` requests at once, at a mean of `rate_per_s`."""
    assert load.burst_size is not None
    first = np.arange(_count(load)) // load.burst_size
    return first.astype(np.float64) * (load.burst_size / _rate(load))


ARRIVALS: dict[str, Callable[[Load, np.random.Generator], Times]] = {
    "constant": constant,
    "poisson": poisson,
    "gamma": gamma,
    "ramp": ramp,
    "burst": burst,
}
"""Open-loop processes. `closed` plans nothing ahead; `trace` reads its times from a file."""


def planned(load: Load, seed: int) -> Times:
    """Sorted planned times of an open-loop load. UserError for a process that is not in the table."""
    if load.arrivals not in ARRIVALS:
        raise UserError(f"unknown arrivals {load.arrivals!r}", f"one of {', '.join(ARRIVALS)}")
    return ARRIVALS[load.arrivals](load, np.random.default_rng(seed))


FEWEST_WINDOWS = 20
"""Of fewer, equal counts in all of them are no rarity (1 in 1,000 for five windows of six arrivals)."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Gaps against the process asked for.

    The p-values are exact for planned times. Departures carry the client's own delays, and with enough of
    them the smallest is significant: those are compared with the plan, not with the law.

    cv            standard deviation / mean of the gaps (Poisson: 1, constant: 0)
    dispersion    variance / mean of counts in equal windows, about ten arrivals each (Poisson: 1)
    dispersion_p  two-sided p-value of the dispersion under Poisson (chi-squared); None for other processes
    lag1          rank correlation of each gap with the next (independent: 0)
    ks_p          Kolmogorov-Smirnov p-value of the gaps against the process; None where it has none
    ks_distance   largest distance between the two distribution functions, the size of the effect
    """

    cv: float
    dispersion: float
    dispersion_p: float | None
    lag1: float
    ks_p: float | None
    ks_distance: float | None = None


def fit(times: Times, load: Load) -> Fit | None:
    """None below 20 gaps: nothing can be said."""
    from scipy import stats

    gaps = np.diff(np.sort(times))
    if len(gaps) < 20 or gaps.mean() == 0:
        return None
    mean, spread = float(gaps.mean()), float(gaps.std(ddof=1))
    windows = max(FEWEST_WINDOWS, len(gaps) // 10)
    counts = np.histogram(times, windows)[0]
    # Of ranks: two long gaps of a bursty process that happen to follow one another would decide it alone.
    ranks = stats.rankdata(gaps)
    correlation = np.corrcoef(ranks[:-1], ranks[1:])[0, 1] if np.ptp(ranks) > 0 else 0.0
    ks = None
    if load.arrivals == "poisson":
        ks = stats.kstest(gaps, "expon", args=(0, 1 / _rate(load)))
    elif load.arrivals == "gamma" and load.cv:
        shape = 1 / load.cv**2
        ks = stats.kstest(gaps, "gamma", args=(shape, 0, 1 / (_rate(load) * shape)))
    dispersion = float(counts.var(ddof=1) / counts.mean())
    dispersion_p = None
    if load.arrivals == "poisson":
        below = float(stats.chi2.cdf(dispersion * (len(counts) - 1), len(counts) - 1))
        dispersion_p = 2 * min(below, 1 - below)
    ks_p, distance = (None, None) if ks is None else (float(ks.pvalue), float(ks.statistic))
    return Fit(spread / mean, dispersion, dispersion_p, float(correlation), ks_p, distance)


def _rate(load: Load) -> float:
    assert load.rate_per_s is not None
    return load.rate_per_s


def _count(load: Load) -> int:
    """Arrivals of an evenly planned load."""
    by_time = None if load.duration_s is None else int(np.ceil(load.duration_s * _rate(load)))
    return min(n for n in (load.requests, by_time) if n is not None)


def _from_gaps(load: Load, draw: Callable[[int], Times]) -> Times:
    """Cumulated gaps until the duration or the number of requests, whichever is first."""
    if load.requests is not None:
        times = np.cumsum(draw(load.requests))
        return times if load.duration_s is None else times[times < load.duration_s]
    assert load.duration_s is not None
    times = np.cumsum(draw(int(load.duration_s * _rate(load) * 1.5) + 50))
    while times[-1] < load.duration_s:
        times = np.concatenate([times, times[-1] + np.cumsum(draw(len(times)))])
    return times[times < load.duration_s]


def _cut(load: Load, times: Times) -> Times:
    return times[: load.requests] if load.requests is not None else times
