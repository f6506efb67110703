"""Canary steps long enough for their analysis: at 5 % of the traffic a p99 needs many minutes, not three."""

from __future__ import annotations

import math
from dataclasses import dataclass

WEIGHTS = (5, 20, 50)
WORSE = 3.0
"""The harm a step must be able to see: three times the SLO's share of slow requests."""
ALPHA, POWER = 0.05, 0.8
LEAST_PAUSE_S = 300
SPARE = 1.25
"""Requests beyond the test's own, for with fewer than those the analysis stays inconclusive."""
USUAL_LOAD = 0.5
"""Of the safe rate: what a deployment has to serve while it is being replaced."""


@dataclass(frozen=True)
class SampleTest:
    """More than `allowed` slow ones of `requests` fail a step: a false alarm in at most 5 % of good
    canaries, and a canary three times over its budget found out in at least 80 %."""

    requests: int
    allowed: int

    @property
    def share(self) -> float:
        """Half a request above the allowed ones: increase() extrapolates, so counts are no whole numbers."""
        return (self.allowed + 0.5) / self.requests


def test_size(budget: float) -> SampleTest:
    """The smallest exact binomial test for a share `budget` of slow requests (0 < budget < 1)."""
    if not 0 < budget < 1:
        raise ValueError(f"budget {budget} is not a share")
    worse = min(WORSE * budget, (1 + budget) / 2)
    requests = 5
    while True:
        allowed = _quantile(requests, budget)
        if 1 - _cumulative(requests, worse, allowed) >= POWER:
            return SampleTest(requests, allowed)
        requests = math.ceil(requests * 1.05) + 1


def pause_s(requests: int, weight: int, rate: float, replicas: int) -> int:
    """How long a step of `weight` percent takes to see that many requests at the usual load."""
    arriving = USUAL_LOAD * rate * replicas * weight / 100
    return max(LEAST_PAUSE_S, math.ceil(SPARE * requests / arriving))


def _quantile(n: int, p: float) -> int:
    """Smallest c with P(X > c) <= ALPHA for X ~ Binomial(n, p)."""
    total, c = _mass(n, p, 0), 0
    while 1 - total > ALPHA:
        c += 1
        total += _mass(n, p, c)
    return c


def _cumulative(n: int, p: float, c: int) -> float:
    return sum(_mass(n, p, k) for k in range(c + 1))


def _mass(n: int, p: float, k: int) -> float:
    chosen = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(chosen + k * math.log(p) + (n - k) * math.log1p(-p))
