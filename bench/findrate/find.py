"""The highest open-loop rate that meets the SLOs, as an interval: the highest rate shown to meet them and
the lowest shown to break them.

Each rate is tested sequentially (`bench.findrate.slotest`) and left as soon as the evidence decides, or when
it will not soon: a rate close to the capacity cannot be decided at any price, so its two neighbours are.
Nothing is measured twice: what was seen at a rate is kept, and added to when the search comes back to it.
Who wants the raw runs too keeps them in `measure`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from bench.checks import judge
from bench.findrate import rates
from bench.findrate.capacity import Capacity, RateProbe, answer
from bench.findrate.overlimit import SETTLE_LATENCIES, SETTLE_SHARE, stretch
from bench.findrate.rates import RateStanding
from bench.findrate.slotest import LEAST_TO_MEET, allowed_share, decide, fewest_requests
from bench.findrate.tested import Tested, weigh_all
from bench.records import complaints
from bench.records.model import Judgement, Run
from bench.scenario.slo import Slo
from serving.errors import UserError

Measure = Callable[[float, float, int], Run]
"""(rate_per_s, duration_s, seed) -> the run. It returns when the server has nothing left to do."""
RESOLUTION = 0.05
ALPHA = BETA = 0.05
FEWEST = 120
"""Requests below which how they hang together cannot be told."""
PATIENCE = 3.0
"""Times the fewest independent requests after which a rate is left, if its end is not in sight."""
CLOSE = 1.1
"""Log of estimate / limit, 3 times either way, inside of which a neighbour may be the cheaper answer."""
MOST_OF_TIME, MOST_OF_TIME_FOR_FIRST = 0.2, 0.6
"""Share of the whole time that one visit of a rate may take; the second while no rate is shown to meet."""
SPANS = 10.0
"""A stretch lasts at least so many request durations."""
MOST_UNTRUSTED = 3
FIRST_LOOKS = 3
"""Stretches of a new rate that looks far above the capacity: an upper end is cheap there."""
IDLE = 0.3
"""Mean requests in the system below which they are alone: a lower rate changes nothing."""

CLIENT_CHECKS = frozenset(
    {"schedule_lag", "client_cpu", "hub_delay", "rate_not_reached", "arrivals", "above_calibration"}
)
SERVER_CHECKS = frozenset(
    {"not_steady", "littles_law", "errors", "censored", "too_few_samples", "too_dependent",
     "server_concurrency"}
)  # fmt: skip
"""Reasons that make a run invalid as a measurement of latency, but are what an overloaded server does."""


def find_rate(
    measure: Measure,
    slos: Sequence[Slo],
    *,
    start_rate_per_s: float,
    max_s: float,
    resolution: float = RESOLUTION,
    alpha: float = ALPHA,
    beta: float = BETA,
    seed: int = 0,
    most_rate_per_s: float = math.inf,
    trust: Callable[[Run], Judgement] | None = None,
    clock: Callable[[], float] = time.monotonic,
    watch: Callable[[RateProbe], None] = lambda probe: None,
) -> Capacity:
    """Searches until hi / lo <= 1 + resolution, or `max_s` seconds of `clock` are spent.

    alpha, beta: chance, at each rate, of "meets" where it breaks and of "breaks" where it meets.
    trust: verdict on a run, `bench.checks.judge` when None. watch: told after every stretch.
    UserError without an SLO, or with one that no number of requests can show.
    """
    _check(slos)
    search = _Search(
        measure, tuple(slos), max_s, resolution, alpha, beta, seed, most_rate_per_s,
        trust or (lambda run: judge(run, slos=slos)), clock, watch,
    )  # fmt: skip
    return search.run(start_rate_per_s)


def _check(slos: Sequence[Slo]) -> None:
    if not slos:
        raise UserError("--find-rate needs an SLO", "--slo 'ttft:p99<=500ms'")
    for slo in slos:
        if allowed_share(slo) == 0 or slo.limit <= 0:
            raise UserError(f"{slo}: no number of requests can show that", "allow a little: error_rate<=0.1%")


class _Search:
    """The state of one search."""

    def __init__(
        self, measure: Measure, slos: tuple[Slo, ...], max_s: float, resolution: float, alpha: float,
        beta: float, seed: int, most: float, trust: Callable[[Run], Judgement], clock: Callable[[], float],
        watch: Callable[[RateProbe], None],
    ) -> None:  # fmt: skip
        self.measure, self.slos, self.resolution = measure, slos, resolution
        self.alpha, self.beta, self.seed, self.ceiling = alpha, beta, seed, most
        self.trust, self.clock, self.watch, self.max_s = trust, clock, watch, max_s
        self.begun = clock()
        self.tested: dict[float, Tested] = {}
        self.reasons: list[str] = []
        self.alone, self.reproducible = False, True
        self.untrusted = 0
        self.stretches = 0
        self.fewest = max(FEWEST, *(fewest_requests(slo, alpha) for slo in slos))

    def run(self, start_rate_per_s: float) -> Capacity:
        rate: float | None = min(start_rate_per_s, self.ceiling)
        while rate is not None and self.visit(self.tested.setdefault(rate, Tested(rate))):
            if self._is_alone():
                break
            rate = rates.next_rate(self.standings(), self.resolution, self.ceiling, start_rate_per_s)
        if rate is None:
            self._confirm()
        self._say_what_is_missing()
        left = tuple(t for t in self.tested.values() if t.stretches)
        return answer(
            [t.probe for t in left], self.slos, self.resolution, self.clock() - self.begun,
            self.reasons, alone=self.alone, reproducible=self.reproducible,
        )  # fmt: skip

    def standings(self) -> list[RateStanding]:
        return [t.probe.standing for t in self.tested.values() if t.found]

    def left_s(self) -> float:
        return self.max_s - (self.clock() - self.begun)

    def visit(self, at: Tested) -> bool:
        """One look at a new rate; at a known one until decided, or out of patience. False ends the search."""
        entered, at.visits = self.clock(), at.visits + 1
        patience = PATIENCE * self.fewest * 2.0 ** (at.visits - 2)
        while at.decision == "undecided":
            wanted = self._wanted_s(at)
            if self.left_s() < 0.5 * wanted:
                self.reasons.append(f"the time is spent ({self.max_s:g} s)")
                return False
            if not self._stretch(at, min(wanted, self.left_s())):
                return self.untrusted < MOST_UNTRUSTED
            if at.visits == 1:
                if at.binding.lean < CLOSE or len(at.stretches) == FIRST_LOOKS:
                    break
            elif self._hopeless(at, entered, patience):
                break
        return True

    def _hopeless(self, at: Tested, entered_s: float, patience: float) -> bool:
        """Whether a decision is further off than this visit may go."""
        first_proof = at.binding.lean < -CLOSE and all(t.decision != "meets" for t in self.tested.values())
        share = MOST_OF_TIME_FOR_FIRST if first_proof else MOST_OF_TIME
        left_s = share * self.max_s - (self.clock() - entered_s)
        if at.binding.effective < LEAST_TO_MEET or abs(at.binding.lean) > CLOSE:
            return left_s < 0
        needed_s = (at.forecast(self.alpha, self.beta) - at.requests) / at.rate_per_s
        return needed_s > left_s or (
            at.binding.effective > patience and needed_s * at.rate_per_s > at.requests
        )

    def _stretch(self, at: Tested, seconds: float) -> bool:
        """One run added to the evidence; False when it may not be believed."""
        self.stretches += 1
        before = self.clock()
        run = self.measure(at.rate_per_s, seconds, self.seed + self.stretches)
        at.seconds += self.clock() - before
        if not self._believed(run, at.rate_per_s):
            return False
        at.add(stretch(run, self.slos), self.slos, self.alpha, self.beta)
        self.watch(at.probe)
        return True

    def _believed(self, run: Run, rate: float) -> bool:
        if run.failure is None and not any(r.first_s is not None or r.ok for r in run.records):
            self.untrusted = MOST_UNTRUSTED
            groups = complaints.of_run(run)
            why = f"{complaints.brief(groups[0])}; {groups[0].hint}" if groups else "see its log"
            self.reasons.append(f"the server answered no request at {rate:.4g}/s: {why}")
            return False
        judgement = self.trust(run)
        bad = [r for r in judgement.reasons if r.verdict == "invalid" and r.check not in SERVER_CHECKS]
        if not bad:
            return True
        self.untrusted += 1
        if bad[0].check in CLIENT_CHECKS:
            self.ceiling = rate
            self.reasons.append(f"the client is the limit at {rate:.4g}/s: {bad[0].text}; {bad[0].remedy}")
        else:
            self.untrusted = MOST_UNTRUSTED
            self.reasons.append(f"the measurement at {rate:.4g}/s is invalid: {bad[0].text}; {bad[0].remedy}")
        return False

    def _wanted_s(self, at: Tested) -> float:
        """How long the next stretch is to last."""
        first = max(FEWEST, self.fewest // 2)
        more = float(first)
        if at.found:
            # A stretch begins with an empty server, so what meets is to be seen in ever longer ones; what
            # breaks in spite of that is shown by several.
            again = max(first, at.stretches[-1].requests)
            breaking = at.binding.lean > 0
            more = (
                again
                if breaking
                else max(at.requests, 1.1 * at.forecast(self.alpha, self.beta) - at.requests)
            )
            more = max(first, min(more, 2.0 * at.requests))
        latency_s = max((s.latency_s for t in self.tested.values() if t.rate_per_s <= at.rate_per_s
                         for s in t.stretches), default=0.0)  # fmt: skip
        filling = SETTLE_LATENCIES * latency_s
        return max(more / at.rate_per_s / (1 - SETTLE_SHARE), SPANS * latency_s) + filling

    def _is_alone(self) -> bool:
        """Whether the lowest rate breaks although its requests hardly ever meet."""
        lowest = min(
            (t for t in self.tested.values() if t.stretches), key=lambda t: t.rate_per_s, default=None
        )
        if lowest is None or lowest.decision != "breaks" or lowest.overloaded:
            return False
        if lowest.rate_per_s * max(s.latency_s for s in lowest.stretches) > IDLE:
            return False
        self.alone = True
        self.reasons.append(f"{lowest.binding.slo} is broken by requests that are alone on the server")
        return True

    def _say_what_is_missing(self) -> None:
        """Where no rate was shown to meet: the one nearest to it, and how long that would take."""
        open_ = [
            t for t in self.tested.values() if t.decision == "undecided" and t.found and t.binding.lean < 0
        ]
        if not open_ or any(t.decision == "meets" for t in self.tested.values()):
            return
        near = max(open_, key=lambda t: min(e.log_meets for e in t.found))
        more_s = (near.forecast(self.alpha, self.beta) - near.requests) / near.rate_per_s
        if math.isfinite(more_s):
            over, minutes = f"{near.binding.over:,} of {near.requests:,}", max(1.0, more_s / 60)
            self.reasons.append(
                f"{near.rate_per_s:.4g}/s looks as if it met them ({over} over the limit); to show it takes "
                f"about {minutes:.0f} min more there"
            )

    def _confirm(self) -> None:
        """The winner once more, at the end: a server that slowed down meanwhile is found out."""
        best = max((t for t in self.tested.values() if t.decision == "meets"),
                   key=lambda t: t.rate_per_s, default=None)  # fmt: skip
        if best is None:
            return
        seconds = max(FEWEST, self.fewest // 2) / best.rate_per_s / (1 - SETTLE_SHARE)
        seconds += SETTLE_LATENCIES * best.stretches[-1].latency_s
        if self.left_s() < seconds:
            self.reasons.append(f"no time was left to confirm {best.rate_per_s:.4g}/s at the end")
            return
        if not self._stretch(best, seconds):
            return
        again = weigh_all(self.slos, best.stretches[-1:])
        if best.stretches[-1].overloaded or decide(again, self.alpha, self.beta) == "breaks":
            self.reproducible = False
            self.reasons.append(
                f"not reproducible: {best.rate_per_s:.4g}/s met the SLOs, and breaks them at the end"
            )
