"""A sequential FAIL: evidence against "at or above the floor" that may be looked at after every item.

A betting e-process (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting"):
wealth = mean over fixed bets of prod(1 - bet x d). While the true mean of d is not below zero this is a
supermartingale that starts at 1, so the chance that it ever reaches 1/alpha is at most alpha (Ville).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

BETS = tuple(0.9 * 0.5**k for k in range(8))


@dataclass
class EProcess:
    """Feed it d = candidate - floor x baseline in a fixed order of items; d is at most `high`."""

    alpha: float = 0.05
    high: float = 1.0
    n: int = 0
    failed_at: int | None = None
    _logs: list[float] = field(default_factory=lambda: [0.0] * len(BETS))

    @property
    def evidence(self) -> float:
        """The e-value so far: 20 means a one-in-twenty surprise for a candidate at the floor."""
        top = max(self._logs)
        if top > 700:
            return math.inf
        return sum(math.exp(log) for log in self._logs) / len(BETS)

    def add(self, d: float) -> bool:
        """One more item; True when the candidate is rejected, now or before."""
        self.n += 1
        for index, bet in enumerate(BETS):
            self._logs[index] += math.log1p(-bet * d / self.high)
        if self.failed_at is None and self.evidence >= 1 / self.alpha:
            self.failed_at = self.n
        return self.failed_at is not None
