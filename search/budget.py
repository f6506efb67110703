"""Budget and ledger: what may be spent, where every device second went, and whether more is worth it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from search.result import PHASES, TrialResult, key_of

QUIET = 12
"""Looks in a row without a better incumbent, at the least, before an early stop is thought of."""
ALIKE = 6
"""Configurations that end in one failure, word for word, while none runs: not the settings' fault."""


@dataclass(frozen=True)
class Budget:
    """Any of the three ends a search. `usd_per_hour`: of the device, from the scenario's price."""

    seconds: float | None = None
    trials: int | None = None
    usd: float | None = None
    usd_per_hour: float | None = None

    def exhausted(self, spent_s: float, trials: int, next_s: float = 0.0, kept_for: str = "") -> str | None:
        """Why it must end now; `next_s`: what is expected to follow, `kept_for` what that is."""
        kept = f"{next_s:,.0f} s of it kept for {kept_for} and one more look" if kept_for and next_s else ""
        if self.trials is not None and trials >= self.trials:
            return f"all {self.trials} trials are spent"
        if self.seconds is not None and spent_s + next_s > self.seconds:
            return f"the budget of {self.seconds:,.0f} s is spent" + (kept and f", {kept}")
        cost = self.cost(spent_s + next_s)
        if self.usd is not None and cost is not None and cost > self.usd:
            return f"the budget of {self.usd:.2f} USD is spent" + (kept and f", {kept}")
        return None

    def cost(self, seconds: float) -> float | None:
        return None if self.usd_per_hour is None else seconds / 3600 * self.usd_per_hour

    def whole_s(self) -> float:
        """Device seconds that time and money allow; 0 without either: nothing is to be kept back."""
        limits = [] if self.seconds is None else [self.seconds]
        if self.usd is not None and self.usd_per_hour:
            limits.append(self.usd / self.usd_per_hour * 3600)
        return min(limits, default=0.0)

    def left(self, spent_s: float, trials: int) -> str:
        """One phrase for the terminal."""
        parts = []
        if self.trials is not None:
            parts.append(f"{self.trials - trials} trials")
        if self.seconds is not None:
            parts.append(f"{max(0.0, self.seconds - spent_s) / 60:.1f} min")
        cost = self.cost(spent_s)
        if cost is not None:
            left = "" if self.usd is None else f", {max(0.0, self.usd - cost):.2f} left"
            parts.append(f"{cost:.3f} USD spent{left}")
        return ", ".join(parts) or "no limit"


def hopeless(history: Sequence[TrialResult]) -> str | None:
    """Why launching more is in vain, as with a driver that is too old; None while it may not be."""
    launched = [one for one in history if one.launched]
    ends = {(one.failure, one.detail) for one in launched}
    tried = len({key_of(one.config) for one in launched})
    if tried < ALIKE or len(ends) > 1 or launched[0].failure is None:
        return None
    return (
        f"{tried} configurations all ended alike, none ran: {launched[0].failure}: {launched[0].detail}; "
        "mend that and start a new study, for these failures stand in this one"
    )


def ledger(history: Sequence[TrialResult]) -> dict[str, float]:
    """Device seconds by phase. What a failed launch took is waste, whatever it was doing."""
    total = dict.fromkeys(PHASES, 0.0)
    for one in history:
        for phase, seconds in one.seconds.items():
            wasted = one.failure is not None and one.launched
            total["waste" if wasted else phase] += seconds
    return total


def full_costs(history: Sequence[TrialResult]) -> dict[str, float]:
    """`key_of` -> device seconds of a trial at the full load without its screening of accuracy."""
    full = [o for o in history if o.fidelity in ("full", "confirm") and o.failure is None and o.device_s > 0]
    return {key_of(o.config): o.device_s - o.seconds.get("accuracy", 0.0) for o in full}


def expected_gain(gains: Sequence[float]) -> float | None:
    """What one more look is expected to win, as a share, from the gains over the baseline seen so far.

    By the record model: with exponential upper tails the n-th look beats the best of the others with
    probability 1/n, by the mean excess of the upper half over its median. None before QUIET looks.
    """
    if len(gains) < QUIET:
        return None
    ranked = sorted(gains)
    upper = ranked[len(ranked) // 2 :]
    excess = sum(upper) / len(upper) - upper[0]
    return excess / len(ranked)


def nothing_left(gains: Sequence[float], looks_left: float, worthwhile: float) -> str | None:
    """Why the rest of the budget is not worth it; None while it may be.

    gains: over the baseline, in the order they were seen, infeasible ones left out.
    """
    each = expected_gain(gains)
    if each is None or not gains:
        return None
    since = len(gains) - 1 - gains.index(max(gains))
    rest = each * min(looks_left, len(gains))
    if since < QUIET or rest >= worthwhile or not math.isfinite(rest):
        return None
    return (
        f"{since} looks without a better one; the {looks_left:.0f} left are expected to win {rest:.2%}, "
        f"less than the {worthwhile:.0%} that is worth it"
    )
