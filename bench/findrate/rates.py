"""Which rate to test next, from what is known of those tested. Pure.

First looks go up or down from the start, then to where a monotone curve through all rates crosses the
limit. Only the two rates next to it need proof. One that cannot be decided is at the capacity, as far as can
be told: rates to either side of it are proven in its place, coarse to fine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.findrate.slotest import Decision

UP, DOWN, OUT = 1.6, 1.4, 1.25
EDGE = 0.12
"""Share of the bracket (in log rate) that the next rate keeps from its ends."""
SLACK = 1e-6


@dataclass(frozen=True, slots=True)
class RateStanding:
    """One tested rate: lean is log(estimate / limit) of its worst SLO, worth the requests behind it.

    visits: 1 is a first look, meant to say where to look next; later ones go on as far as patience does.
    """

    rate_per_s: float
    decision: Decision
    lean: float
    worth: float
    visits: int = 1

    @property
    def seems(self) -> Decision:
        """As decided, else as it leans."""
        return self.decision if self.decision != "undecided" else "breaks" if self.lean > 0 else "meets"


def bracket(tested: Sequence[RateStanding]) -> tuple[float | None, float | None]:
    """Highest rate that meets with no breaking rate below it, lowest that breaks with no meeting above it.

    Where the two are out of order (a rate breaks below one that meets) the bracket spans both.
    """
    meets = [s.rate_per_s for s in tested if s.decision == "meets"]
    breaks = [s.rate_per_s for s in tested if s.decision == "breaks"]
    low = max((r for r in meets if not breaks or r < min(breaks)), default=None)
    high = min((r for r in breaks if not meets or r > max(meets)), default=None)
    return low, high


def contradiction(tested: Sequence[RateStanding]) -> tuple[float, float] | None:
    """(a rate that breaks, a higher one that meets); None when the rates are in order."""
    meets = max((s.rate_per_s for s in tested if s.decision == "meets"), default=-math.inf)
    breaks = min((s.rate_per_s for s in tested if s.decision == "breaks"), default=math.inf)
    return (breaks, meets) if breaks < meets else None


def next_rate(
    tested: Sequence[RateStanding], resolution: float, ceiling: float, start: float
) -> float | None:
    """The rate to test, or to test further; None when the bracket is narrow enough or cannot be narrowed.

    ceiling: no rate at or above it can be measured.
    """
    low, high = bracket(tested)
    top = min(high if high is not None else math.inf, ceiling)
    wide = 1 + resolution
    if low is not None and top / low <= wide * (1 + SLACK):
        return None
    between = [s for s in tested if s.decision == "undecided" and (low or 0.0) < s.rate_per_s < top]
    if any(s.visits > 1 for s in between):
        wanted = _around(between, low, top, wide)
    else:
        wanted = _toward(tested, low, top, wide, start)
    # Decisions out of order: nothing is to be learned from a rate that is decided.
    return None if any(s.rate_per_s == wanted and s.decision != "undecided" for s in tested) else wanted


def _toward(
    tested: Sequence[RateStanding], low: float | None, top: float, wide: float, start: float
) -> float | None:
    """Closer to where the rates seem to change sides; then proof for the two nearest, the lower one first."""
    seem_low = [s.rate_per_s for s in tested if s.seems == "meets" and s.rate_per_s < top]
    seem_high = [s.rate_per_s for s in tested if s.seems == "breaks" and s.rate_per_s > (low or 0.0)]
    above = min([*seem_high, top])
    below = max((rate for rate in seem_low if rate < above), default=None)
    if below is None:
        return min(above, start * DOWN) / DOWN
    if math.isinf(above):
        return below * UP
    gap = math.log(above / below)
    if gap <= math.log(wide) * (1 + SLACK):
        return below if below != low else above
    middle = math.sqrt(below * above)
    if gap <= 2 * math.log(wide):
        return middle
    found = capacity_estimate(tested)
    wanted = middle
    if found is not None and below < found < above:
        half = math.sqrt(wide)
        wanted = found / half if found / half > below * math.sqrt(half) else found * half
    edge = math.exp(EDGE * gap)
    return min(max(wanted, below * edge), above / edge)


def _around(between: Sequence[RateStanding], low: float | None, top: float, wide: float) -> float | None:
    """Rates that could not be decided are at the capacity: proof is sought to either side, coarse to fine."""
    stuck = sorted(s.rate_per_s for s in between if s.visits > 1)
    first, last = stuck[0], stuck[-1]
    down = math.inf if low is None else math.log(first / low)
    up = math.log(top / last)
    half = 0.5 * math.log(wide)
    if max(down, up) <= half * (1 + SLACK):
        # In turns; a single one is left alone, no narrower interval was asked for.
        return min((s for s in between), key=lambda s: s.worth).rate_per_s if len(stuck) > 1 else None
    if down >= up:
        # Without any rate that is shown to meet, one well below is proven before one as near as possible.
        far = 0.5 * math.log(OUT) if low is None else half / 2
        known = [s.rate_per_s for s in between if s.rate_per_s < first * math.exp(-far)]
        return max(known) if known else first / math.exp(_step(down, half))
    known = [s.rate_per_s for s in between if s.rate_per_s > last * math.exp(half / 2)]
    return min(known) if known else last * math.exp(_step(up, half))


def _step(gap: float, half: float) -> float:
    """How far from an undecided rate: the middle of the gap, but no nearer than half a resolution."""
    return math.log(OUT) if math.isinf(gap) else max(half, gap / 2)


def capacity_estimate(tested: Sequence[RateStanding]) -> float | None:
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
