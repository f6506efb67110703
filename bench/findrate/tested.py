"""All that was seen at one rate: its stretches, what they add up to, and what was decided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.findrate.capacity import RateProbe
from bench.findrate.overlimit import Stretch
from bench.findrate.slotest import Decision, Evidence, correlation_time, decide, weigh
from bench.scenario.slo import Slo


def weigh_all(slos: Sequence[Slo], stretches: Sequence[Stretch]) -> tuple[Evidence, ...]:
    """The evidence of some stretches at one rate, one a SLO."""
    flights = [one.in_flight for one in stretches]
    return tuple(
        weigh(slo, [one.outcomes[number] for one in stretches], flights) for number, slo in enumerate(slos)
    )


@dataclass
class Tested:
    """One rate. A decision once made stays: the test is valid at every look."""

    rate_per_s: float
    stretches: list[Stretch] = field(default_factory=list)
    found: tuple[Evidence, ...] = ()
    decision: Decision = "undecided"
    seconds: float = 0.0
    visits: int = 0

    def add(self, one: Stretch, slos: Sequence[Slo], alpha: float, beta: float) -> None:
        """One more stretch, weighed with all before it."""
        self.stretches.append(one)
        self.found = weigh_all(slos, self.stretches)
        if self.decision == "undecided":
            seen = self.requests / correlation_time([s.in_flight for s in self.stretches], centre=True)
            self.decision = "breaks" if self.overloaded else decide(self.found, alpha, beta, seen)

    @property
    def requests(self) -> int:
        return sum(one.requests for one in self.stretches)

    @property
    def overloaded(self) -> bool:
        return any(one.overloaded for one in self.stretches)

    @property
    def binding(self) -> Evidence:
        """The SLO nearest to breaking, or most broken."""
        return max(self.found, key=lambda e: e.lean)

    def forecast(self, alpha: float, beta: float) -> float:
        """Requests after which it would be decided, if it goes on as it went: evidence grows linearly."""
        meets = min(e.log_meets for e in self.found) / math.log(1 / alpha)
        breaks = self.binding.log_breaks / math.log(len(self.found) / beta)
        reached = max(meets, breaks)
        return self.requests / reached if reached > 0.05 else math.inf

    @property
    def probe(self) -> RateProbe:
        """The same, for those who look on."""
        return RateProbe(
            rate_per_s=self.rate_per_s,
            decision=self.decision,
            requests=self.requests,
            over_limit=self.binding.over,
            seconds=self.seconds,
            stretches=len(self.stretches),
            overloaded=self.overloaded,
            evidence=self.found,
            visits=self.visits,
        )
