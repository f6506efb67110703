"""May a measurement be believed? `judge` runs every row of CHECKS over a Run.

`ok`: nothing speaks against it. `suspect`: read the reasons first. `invalid`: no number of it may be
used; it never wins a search nor enters a spec.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.checks import answers, client, machine, server, steadiness, stream
from bench.checks.case import Case, Finding, Thresholds
from bench.metrics.view import View
from bench.proof.calibration import Calibration
from bench.records.model import Judgement, Reason, Run
from bench.scenario.slo import Slo

CHECKS: dict[str, Callable[[Case], Finding | None]] = {
    "schedule_lag": client.schedule_lag,
    "client_cpu": client.client_cpu,
    "hub_delay": client.hub_delay,
    "rate_not_reached": client.rate_not_reached,
    "arrivals": client.arrivals,
    "above_calibration": client.calibrated,
    "too_few_samples": steadiness.too_few_samples,
    "too_dependent": steadiness.too_dependent,
    "not_steady": steadiness.not_steady,
    "littles_law": steadiness.littles_law,
    "errors": answers.errors,
    "censored": answers.censored,
    "input_length": answers.input_length,
    "output_length": answers.output_length,
    "finish_reason": answers.finish_reason,
    "no_usage": answers.no_usage,
    "token_counts": answers.token_counts,
    "output_buffered": stream.output_buffered,
    "hidden_reasoning": stream.hidden_reasoning,
    "unseen_tokens": stream.unseen_tokens,
    "surplus_events": stream.surplus_events,
    "cache_hits": server.cache_hits,
    "server_histograms": server.histograms,
    "foreign_requests": server.foreign_requests,
    "clocks_throttled": machine.clocks_throttled,
    "gpu_shared": machine.gpu_shared,
}
"""Name of a reason -> the function that looks for it; its docstring is its definition."""


def judge(
    run: Run,
    *,
    slos: Sequence[Slo] = (),
    declared_cache_share: float = 0.0,
    limits: Thresholds | None = None,
    calibration: Calibration | None = None,
) -> Judgement:
    """The verdict of a run: the worst of its reasons, `ok` without any. A failed run is invalid."""
    if run.failure is not None:
        text = f"the point failed ({run.failure.kind}): {run.failure.detail}"
        return Judgement("invalid", (Reason("failed", "invalid", text, run.failure.hint),))
    if not run.records:
        text = "no request was sent"
        return Judgement("invalid", (Reason("empty", "invalid", text, "give the load requests to send"),))
    case = Case(View(run, tuple(slos)), declared_cache_share, calibration, limits or Thresholds())
    found = ((name, check(case)) for name, check in CHECKS.items())
    reasons = [Reason(name, f.verdict, f.text, f.remedy) for name, f in found if f is not None]
    reasons.sort(key=lambda reason: reason.verdict != "invalid")
    verdict = "ok" if not reasons else reasons[0].verdict
    return Judgement(verdict, tuple(reasons))
