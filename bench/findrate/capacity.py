"""Capacity: what a search for the highest rate found, and whether it may be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.findrate.rates import RateStanding, bracket, capacity_estimate, contradiction
from bench.findrate.slotest import Decision, Evidence
from bench.records.model import Validity
from bench.scenario.slo import Slo


@dataclass(frozen=True, slots=True)
class RateProbe:
    """One rate: what was seen there. `over_limit` counts for the SLO nearest to breaking."""

    rate_per_s: float
    decision: Decision
    requests: int
    over_limit: int
    seconds: float
    stretches: int
    overloaded: bool
    evidence: tuple[Evidence, ...]
    visits: int = 1

    @property
    def standing(self) -> RateStanding:
        worst = max(self.evidence, key=lambda e: e.lean)
        return RateStanding(self.rate_per_s, self.decision, worst.lean, worst.effective, self.visits)


@dataclass(frozen=True)
class Capacity:
    """The answer. `rate_per_s` is the lower end of `interval`: what was shown to meet the SLOs.

    interval      (highest rate that meets, lowest that breaks) in requests/s; None: there is none
    estimate_per_s  where a monotone curve through all rates crosses the limits: likely, not shown
    verdict       ok: the interval is as narrow as asked; suspect: wider, or see reasons; invalid: nothing
                  was shown.
    """

    rate_per_s: float | None
    estimate_per_s: float | None
    interval: tuple[float | None, float | None]
    verdict: Validity
    slos: tuple[Slo, ...]
    probes: tuple[RateProbe, ...]
    total_s: float
    reasons: tuple[str, ...]


def answer(
    probes: Sequence[RateProbe],
    slos: Sequence[Slo],
    resolution: float,
    total_s: float,
    reasons: Sequence[str],
    *,
    alone: bool = False,
    reproducible: bool = True,
) -> Capacity:
    """The interval, the verdict and its reasons from all probes; `reasons` are those of the search.

    alone: the SLO is broken even by requests that are alone, so that no rate meets it. reproducible: the
    best rate still met the SLOs at the end.
    """
    ordered = tuple(sorted(probes, key=lambda p: p.rate_per_s))
    standings = [probe.standing for probe in ordered]
    low, high = bracket(standings)
    said = list(reasons)
    if alone:
        low = 0.0
    wrong_order = contradiction(standings)
    if wrong_order is not None:
        said.insert(
            0, f"not monotone: {wrong_order[0]:.4g}/s breaks the SLOs, {wrong_order[1]:.4g}/s meets them"
        )
    if low is None and high is None:
        said = said or ["no rate could be decided"]
        return Capacity(None, None, (None, None), "invalid", tuple(slos), ordered, total_s, tuple(said))
    verdict: Validity = "ok"
    narrow = low is not None and high is not None and high <= low * (1 + resolution) * (1 + 1e-6)
    if not (narrow or alone):
        verdict = "suspect"
        said.append(_wide(low, high, resolution))
    elif wrong_order or not reproducible:
        verdict = "suspect"
    estimate = capacity_estimate(standings) if not alone else None
    if estimate is not None:
        estimate = min(max(estimate, low or 0.0), high or math.inf)
    return Capacity(
        low, estimate, (low, high), verdict, tuple(slos), ordered, total_s, tuple(dict.fromkeys(said))
    )  # fmt: skip


def _wide(low: float | None, high: float | None, resolution: float) -> str:
    if high is None:
        return f"no rate was shown to break the SLOs: the capacity is {low:.4g}/s or more"
    if low is None:
        return f"no rate was shown to meet the SLOs: the capacity is below {high:.4g}/s"
    return (
        f"the interval is {high / low - 1:.1%} wide, {resolution:.1%} were asked for: give more time, or "
        "a wider --resolution"
    )


def as_json(found: Capacity) -> dict[str, Any]:
    """Plain data for `--json`. Logs of evidence are natural; 4.6 is 99 to 1."""
    return {
        "rate_per_s": found.rate_per_s,
        "estimate_per_s": found.estimate_per_s,
        "interval": list(found.interval),
        "verdict": found.verdict,
        "reasons": list(found.reasons),
        "slos": [str(slo) for slo in found.slos],
        "total_s": found.total_s,
        "requests": sum(probe.requests for probe in found.probes),
        "probes": [_probe(probe) for probe in found.probes],
    }


def _probe(probe: RateProbe) -> dict[str, Any]:
    return {
        "rate_per_s": probe.rate_per_s,
        "decision": probe.decision,
        "requests": probe.requests,
        "over_limit": probe.over_limit,
        "seconds": probe.seconds,
        "stretches": probe.stretches,
        "overloaded": probe.overloaded,
        "slos": [
            {
                "slo": str(e.slo), "estimate": e.estimate, "over_limit": e.over, "requests": e.requests,
                "effective_requests": e.effective, "log_evidence_meets": e.log_meets,
                "log_evidence_breaks": e.log_breaks,
            }
            for e in probe.evidence
        ],
    }  # fmt: skip
