"""Which rate to test next, from what is known of those tested. Pure.

Up or down from the start until the capacity is between two decided rates; then towards it by a monotone
curve through all rates. An undecided rate is at the capacity, as far as can be told: its neighbours half a
resolution to either side are tested in place of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.slotest import Decision

UP, DOWN, OUT = 1.6, 1.4, 1.25
EDGE = 0.12
"""Share of the bracket (in log rate) that the next rate keeps from its ends."""
SLACK = 1e-6


@dataclass(frozen=True, slots=True)
class Standing:
    """One tested rate: lean is log(estimate / limit) of its worst SLO, worth the requests behind it."""

    rate_per_s: float
    decision: Decision
    lean: float
    worth: float


def bracket(tested: Sequence[Standing]) -> tuple[float | None, float | None]:
    """Highest rate that meets with no breaking rate below it, lowest that breaks with no meeting above it.

    Where the two are out of order (a rate breaks below one that meets) the bracket spans both.
    """
    meets = [s.rate_per_s for s in tested if s.decision == "meets"]
    breaks = [s.rate_per_s for s in tested if s.decision == "breaks"]
    low = max((r for r in meets if not breaks or r < min(breaks)), default=None)
    high = min((r for r in breaks if not meets or r > max(meets)), default=None)
    return low, high


def contradiction(tested: Sequence[Standing]) -> tuple[float, float] | None:
    """(a rate that breaks, a higher one that meets); None when the rates are in order."""
    meets = max((s.rate_per_s for s in tested if s.decision == "meets"), default=-math.inf)
    breaks = min((s.rate_per_s for s in tested if s.decision == "breaks"), default=math.inf)
    return (breaks, meets) if breaks < meets else None


def next_rate(tested: Sequence[Standing], resolution: float, ceiling: float, start: float) -> float | None:
    """The rate to test, or to test further; None when the bracket is narrow enough or cannot be narrowed.

    ceiling: no rate at or above it can be measured.
    """
    low, high = bracket(tested)
    top = min(high if high is not None else math.inf, ceiling)
    wide = 1 + resolution
    if low is not None and top / low <= wide * (1 + SLACK):
        return None
    undecided = sorted(
        s.rate_per_s for s in tested if s.decision == "undecided" and (low or 0) < s.rate_per_s < top
    )
    if undecided:
        return _beside(undecided, low, top, wide) or _least_tested(tested, undecided)
    if low is None:
        return min(top, start) / DOWN
    if math.isinf(top):
        return low * UP
    gap = math.log(top / low)
    if gap <= 2 * math.log(wide):
        return math.sqrt(low * top)
    found = capacity_estimate(tested)
    wanted = math.sqrt(low * top)
    if found is not None and low < found < top:
        half = math.sqrt(wide)
        wanted = found / half if found / half > low * math.sqrt(half) else found * half
    edge = math.exp(EDGE * gap)
    return min(max(wanted, low * edge), top / edge)


def _beside(undecided: Sequence[float], low: float | None, top: float, wide: float) -> float | None:
    """Coarse to fine: first a bracket around the undecided rates, then the middle of its wider side."""
    below, above = undecided[0], undecided[-1]
    if math.isinf(top):
        return above * OUT
    if low is None:
        return below / OUT
    down, up = math.log(below / low), math.log(top / above)
    if max(down, up) <= 0.5 * math.log(wide) * (1 + SLACK):
        return None
    # From either side no closer than half a resolution: the closer, the dearer, and no closer is asked.
    half = math.sqrt(wide)
    if down >= up:
        return math.sqrt(low * below) if down > 2 * math.log(half) else below / half
    return math.sqrt(top * above) if up > 2 * math.log(half) else above * half


def _least_tested(tested: Sequence[Standing], undecided: Sequence[float]) -> float | None:
    """More time for an undecided rate, in turns; None when there is one: no more is asked than its neighbours."""
    if len(undecided) < 2:
        return None
    return min((s for s in tested if s.rate_per_s in undecided), key=lambda s: s.worth).rate_per_s


def capacity_estimate(tested: Sequence[Standing]) -> float | None:
    """Where the lean crosses 0: isotonic regression over all rates, then a line in log rate.

    None when all rates lean the same way. A lean beyond 3 (20 times the limit) says no more than 3.
    """
    rows = sorted((s.rate_per_s, min(3.0, max(-3.0, s.lean)), max(1.0, s.worth)) for s in tested)
    pools: list[list[float]] = []  # lean, weight, how many
    for _, lean, worth in rows:
        pools.append([lean, worth, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            value, weight, count = pools.pop()
            total = pools[-1][1] + weight
            pools[-1] = [(pools[-1][0] * pools[-1][1] + value * weight) / total, total, pools[-1][2] + count]
    leans = [pool[0] for pool in pools for _ in range(int(pool[2]))]
    for i in range(1, len(rows)):
        if leans[i - 1] <= 0 < leans[i]:
            part = -leans[i - 1] / (leans[i] - leans[i - 1])
            return math.exp((1 - part) * math.log(rows[i - 1][0]) + part * math.log(rows[i][0]))
    return None
