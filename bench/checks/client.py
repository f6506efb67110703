"""Did the client keep up? A late client makes the server look slow."""

from __future__ import annotations

import numpy as np

from bench.checks.case import Case, Finding, graded
from bench.metrics import latency
from bench.metrics.statistics import percentile
from bench.metrics.throughput import dispatched_share

_MORE_CLIENT = "add --workers, lower the rate, or run the client on cores or a machine of its own"


def _wait_ms(case: Case, q: float) -> float:
    """Percentile of TTFT, the scale for the client's own delays; of E2E where nothing is streamed."""
    for series in ("ttft_sent", "e2e_sent"):
        values = latency.values(case.view, series)
        if values.size:
            return percentile(values, q)
    return 0.0


def schedule_lag(case: Case) -> Finding | None:
    """Requests left late: median and 99th percentile of the lag against the same percentile of TTFT."""
    lags = latency.values(case.view, "schedule_lag")
    if not lags.size:
        return None
    limits = case.limits
    found = []
    for name, q, least_ms in (
        ("median", 0.5, limits.lag_median_ms),
        ("99th percentile", 0.99, limits.lag_ms),
    ):
        late, wait = percentile(lags, q), _wait_ms(case, q)
        found.append(
            graded(
                late,
                max(least_ms, limits.lag_of_ttft * wait),
                max(5 * least_ms, limits.lag_invalid_of_ttft * wait),
                f"requests left {late:.0f} ms late ({name}) beside a TTFT of {wait:.0f} ms",
                _MORE_CLIENT,
            )
        )
    return min((f for f in found if f is not None), key=lambda f: f.verdict, default=None)


def client_cpu(case: Case) -> Finding | None:
    """A load process near one whole core queues its own events."""
    client = case.view.run.client
    if client is None:
        return None
    return graded(
        client.cpu_share,
        case.limits.client_cpu,
        case.limits.client_cpu_invalid,
        f"the busiest load process used {client.cpu_share:.0%} of a core",
        _MORE_CLIENT,
    )


def hub_delay(case: Case) -> Finding | None:
    """The client's event loop fired late: every stamp in that moment is late by as much."""
    client = case.view.run.client
    if client is None or client.hub_delay_p99_ms is None:
        return None
    delay, wait, limits = client.hub_delay_p99_ms, _wait_ms(case, 0.99), case.limits
    return graded(
        delay,
        max(limits.hub_ms, limits.hub_of_ttft * wait),
        max(5 * limits.hub_ms, limits.hub_invalid_of_ttft * wait),
        f"the client's event loop ran {delay:.0f} ms late (99th percentile) beside a TTFT of {wait:.0f} ms",
        _MORE_CLIENT,
    )


def rate_not_reached(case: Case) -> Finding | None:
    """Open loop: fewer requests left than were due. Below 0.99 the asked rate was not offered."""
    if case.view.run.point.load.arrivals == "closed":
        return None
    share = dispatched_share(case.view)
    if share is None or share >= case.limits.dispatched:
        return None
    return Finding(
        "invalid",
        f"only {share:.1%} of the requests due in the window had left by its end: the rate was not reached",
        _MORE_CLIENT,
    )


def calibrated(case: Case) -> Finding | None:
    """More output events a second than this machine's client was shown to time truthfully."""
    calibration, window = case.calibration, case.view.window
    if calibration is None or window.length_s <= 0:
        return None
    t = case.view.events.t
    rate = int(((t >= window.start_s) & (t <= window.end_s)).sum()) / window.length_s
    workers = case.view.run.client.workers if case.view.run.client else 1
    most = calibration.limit(workers)
    if rate <= most:
        return None
    return Finding(
        "invalid",
        f"{rate:,.0f} output events a second; the client on this machine is calibrated up to {most:,.0f} "
        f"with {workers} worker{'s' if workers > 1 else ''}",
        "add --workers and calibrate again, or lower the load",
    )


ARRIVALS_TESTED = ("constant", "poisson", "gamma")
"""Ramps, bursts and traces have no law to test against; their lateness is seen by `schedule_lag`."""


def arrivals(case: Case) -> Finding | None:
    """Open loop: the gaps at which requests really left, against the process asked for."""
    from bench.traffic.arrivals import fit

    load = case.view.run.point.load
    sent = case.view.requests.sent
    sent = sent[np.isfinite(sent)]
    found = fit(sent, load) if load.arrivals in ARRIVALS_TESTED else None
    if found is None:
        return None
    limits, why = case.limits, None
    # Few counts scatter widely: only a dispersion that chance does not explain is held against it.
    by_chance = found.dispersion_p is None or found.dispersion_p >= limits.arrival_p
    dispersed = by_chance or limits.dispersion_low <= found.dispersion <= limits.dispersion_high
    jitter_ms = found.cv * float(np.ptp(sent)) / (sent.size - 1) * 1e3
    if load.arrivals == "constant":
        if found.cv > limits.constant_cv and jitter_ms > limits.lag_ms / 2:
            why = f"gaps vary by {found.cv:.0%} of their mean, {jitter_ms:.0f} ms"
    elif found.ks_p is not None and found.ks_p < limits.arrival_p:
        why = f"gaps do not follow the law (Kolmogorov-Smirnov p = {found.ks_p:.1g})"
    elif abs(found.lag1) > limits.arrival_lag1 / np.sqrt(sent.size):
        why = f"each gap depends on the one before (correlation {found.lag1:+.2f})"
    elif load.arrivals == "poisson" and not dispersed:
        why = f"counts in equal times have a dispersion of {found.dispersion:.2f} instead of 1"
    if why is None:
        return None
    return Finding("invalid", f"requests did not leave as {load.arrivals} arrivals: {why}", _MORE_CLIENT)
