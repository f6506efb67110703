"""Departures against the plan: did requests leave when they were to, as far as the server could tell?

A plan that is late by at most d moves no answer of a first-come, first-served server by more than d (its
departures are a max-plus map of its arrivals), so that lateness is judged beside TTFT (`schedule_lag`). What
is asked here is whether the process is still the one planned: of any kind, drawn or from a trace.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.traffic.arrivals import Times

FEWEST_GAPS = 20
ARRIVALS_OF_A_WINDOW = 10
TOLERANCES_OF_A_WINDOW = 10
TOLERANCE_OF_A_GAP = 0.1


@dataclass(frozen=True, slots=True)
class Departures:
    """Effects, not p-values: with enough requests a microsecond is significant.

    tolerance_s   what was given, at least a tenth of the mean gap between planned moments
    window_s   ten such gaps, at least ten tolerances
    moved      share of requests that left in another window than planned, windows laid at random, what all
               are late by (the median lag) taken off: that shifts the load and leaves the process as it was
    gaps_off   largest distance between the distributions of sent and planned gaps, each gap being allowed
               the tolerance; 1% says that 1% of the gaps are longer (or shorter) than any planned ones were
    gaps_p     how often two samples of one law differ by as much (Smirnov 1948), at most
    """

    tolerance_s: float
    window_s: float
    moved: float
    gaps_off: float
    gaps_p: float


def departures(planned: Times, sent: Times, tolerance_s: float) -> Departures | None:
    """`planned[i]` and `sent[i]` of one request, seconds. None below 20 gaps: nothing can be said."""
    from scipy import stats

    moments = np.unique(planned)
    if planned.size <= FEWEST_GAPS or moments.size < 2:
        return None
    mean_gap_s = float(np.ptp(moments)) / (moments.size - 1)
    tolerance_s = max(tolerance_s, TOLERANCE_OF_A_GAP * mean_gap_s)
    window_s = max(ARRIVALS_OF_A_WINDOW * mean_gap_s, TOLERANCES_OF_A_WINDOW * tolerance_s)
    lag = sent - planned
    # A request off by d crosses the edge of a window laid at random with probability d / window.
    moved = float(np.minimum(np.abs(lag - np.median(lag)) / window_s, 1.0).mean())
    due, left = np.sort(np.diff(np.sort(planned))), np.sort(np.diff(np.sort(sent)))
    gaps_off = max(_above(left, due, tolerance_s), _above(due, left, tolerance_s))
    gaps_p = float(stats.kstwobign.sf(gaps_off * np.sqrt(due.size / 2)))
    return Departures(tolerance_s, window_s, moved, gaps_off, gaps_p)


def _above(a: Times, b: Times, tolerance_s: float) -> float:
    """How far the distribution function of `a` rises above that of `b` moved down by the tolerance."""
    share_a = np.arange(1, a.size + 1) / a.size
    share_b = np.searchsorted(b, a + tolerance_s, "right") / b.size
    return max(0.0, float((share_a - share_b).max()))
