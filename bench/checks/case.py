"""What a check is given, what it answers, and every threshold with its source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bench.metrics.view import View
from bench.proof.calibration import Calibration


@dataclass(frozen=True)
class Thresholds:
    """Where `suspect` begins and where `invalid`. `_of_ttft`: of the same percentile of TTFT."""

    lag_ms: float = 10.0  # inference-perf docs: a schedule delay beyond 10 ms is the client's fault
    lag_median_ms: float = 3.0
    lag_of_ttft: float = 0.10
    lag_invalid_of_ttft: float = 0.50
    client_cpu: float = 0.80
    client_cpu_invalid: float = 0.95  # Locust warns from 0.90 (runners.py CPU_WARNING_THRESHOLD)
    hub_ms: float = 10.0  # as the lag: a late event loop stamps everything late
    hub_of_ttft: float = 0.05
    hub_invalid_of_ttft: float = 0.25
    dispatched: float = 0.99  # measurement rule: invalid under 0.99 of the asked rate
    arrival_p: float = 1e-6  # every open-loop run is tested, and a campaign has thousands
    arrival_distance: float = 0.05  # and the effect as large: of enough gaps anything is significant
    arrival_lag1: float = 5.0  # standard errors of 1 / sqrt(n): 6 in 10,000,000 independent gaps
    departures: float = 0.10  # share that left in other windows, or with other gaps, than planned
    constant_cv: float = 0.10
    dispersion_low: float = 0.4  # GuideLLM's workers gave up to 7, inference-perf's "poisson" near 0
    dispersion_high: float = 2.5
    drift: float = 0.15
    drift_t: float = 4.5  # slope / error over ten batches: about 2 in 1,000 steady signals
    overload: float = 0.75  # requests in flight grow by this share of their mean: a queue without end
    little: float = 0.10
    little_invalid: float = 0.25
    cache: float = 0.01  # vLLM PR #53920 warns from 1% prefix hits
    cache_invalid: float = 0.10
    chat_template_tokens: int = 64  # what common chat templates put before every prompt
    input_share: float = 0.10  # as MLPerf's for the output; a BOS token or two are not far off
    input_tokens: int = 4
    input_invalid: float = 0.25
    input_strays: float = 0.05
    length_low: float = 0.90  # MLPerf inference rules: generated length 90% to 110%
    length_high: float = 1.10
    length_strays: float = 0.01
    errors: float = 0.01
    errors_invalid: float = 0.10
    censored: float = 0.01
    censored_invalid: float = 0.10
    count_tokens: int = 2  # AIPerf usage discrepancy: above max(2, 1%)
    count_share: float = 0.01
    count_requests: float = 0.01
    count_more: float = 0.01  # text of more tokens than usage says: the server counts too few
    count_fewer: float = 0.05  # fewer: forced lengths hide special tokens in the text (2% on vLLM, measured)
    count_invalid: float = 0.10
    unseen_invalid: float = 0.50
    foreign_requests: float = 0.01
    throttled: float = 0.01


@dataclass(frozen=True)
class Case:
    """One run under judgement. `declared_cache_share`: prompt share that may come from the prefix cache."""

    view: View
    declared_cache_share: float = 0.0
    calibration: Calibration | None = None
    limits: Thresholds = field(default_factory=Thresholds)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: how bad, in plain words, and what to do about it."""

    verdict: Literal["suspect", "invalid"]
    text: str
    remedy: str


def graded(value: float, suspect: float, invalid: float, text: str, remedy: str) -> Finding | None:
    """A finding when `value` is above `suspect`; worse above `invalid`."""
    if not value > suspect:
        return None
    return Finding("invalid" if value > invalid else "suspect", text, remedy)
