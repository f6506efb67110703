"""Is there a steady state, and enough of it?"""

from __future__ import annotations

from bench.checks.case import Case, Finding, graded
from bench.metrics import latency
from bench.metrics.statistics import effective_size, floor
from bench.metrics.throughput import concurrency_mean, littles_law_ratio


def too_few_samples(case: Case) -> Finding | None:
    """Percentiles of the SLOs need their floor of requests; without SLOs the median needs its own."""
    wanted = {0.50: "p50"}
    for slo in case.view.slos:
        q = latency.STATISTICS.get(slo.statistic or "")
        if q is not None:
            wanted[q] = slo.statistic or ""
    q = max(wanted)
    due = int(case.view.inside.sum())
    if due >= floor(q):
        return None
    return Finding(
        "suspect",
        f"{due} requests in the steady window; a {wanted[q]} needs {floor(q)}",
        f"measure longer: about {_times(due, floor(q))} the requests",
    )


def _times(have: int, need: int) -> str:
    return f"{need / have:.1f} times" if have else f"{need}, the least for"


def too_dependent(case: Case) -> Finding | None:
    """Requests that wait in one queue share one fate: what counts is their effective number."""
    values = case.view.requests.first if case.view.streams else case.view.requests.last
    waits = (values - case.view.requests.sent)[latency.complete(case.view)]
    waits = waits[waits == waits]
    if waits.size < floor(0.50):
        return None
    worth = effective_size(waits)
    if worth >= floor(0.50):
        return None
    return Finding(
        "suspect",
        f"the {waits.size} requests wait together: they tell as much as {worth:.0f} independent ones",
        "measure longer, or repeat with a restart and compare the repeats",
    )


def not_steady(case: Case) -> Finding | None:
    """No steady window was found, or a signal has a trend inside it."""
    window, limits = case.view.window, case.limits
    if window.whole:
        return Finding(
            "suspect",
            f"no steady part between ramp and drain ({window.reason}); figures are of the whole run",
            "more requests or a longer duration: at least 20 requests and several request durations",
        )
    open_loop = case.view.run.point.load.arrivals != "closed"
    worst: Finding | None = None
    for drift in window.drifts:
        if abs(drift.t) < limits.drift_t or abs(drift.change) < limits.drift:
            continue
        if open_loop and drift.signal == "requests in flight" and drift.change > limits.overload:
            return Finding(
                "invalid",
                f"requests in flight grew by {drift.change:.0%} of their mean over the window: the server "
                "does not keep up with this rate, and latency only says how long the run was",
                "lower the rate; --find-rate finds the highest that holds",
            )
        worst = worst or Finding(
            "suspect",
            f"{drift.signal} changed by {drift.change:+.0%} of their mean over the window: not steady",
            "warm up longer (warmup_requests) or measure longer",
        )
    return worst


def littles_law(case: Case) -> Finding | None:
    """Requests in flight = rate x time in the system, else the window is not steady or stamps are wrong."""
    ratio, flight = littles_law_ratio(case.view), concurrency_mean(case.view)
    requests = int(case.view.inside.sum())
    if ratio is None or flight is None or case.view.window.whole or not requests:
        return None
    edge = flight / requests  # those in flight at either end of the window are counted in part
    return graded(
        abs(ratio - 1),
        case.limits.little + edge,
        case.limits.little_invalid + edge,
        f"requests in flight are {ratio:.2f} times what rate and latency say (Little's law)",
        "measure longer; if it stays, stamps or records are wrong: report it with the run's folder",
    )
