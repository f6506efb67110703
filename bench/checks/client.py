"""Did the client keep up? A late client makes the server look slow."""

from __future__ import annotations

import numpy as np

from bench.checks.case import Case, Finding, graded
from bench.metrics import latency
from bench.metrics.statistics import percentile
from bench.metrics.throughput import dispatched_share
from bench.traffic.arrivals import fit
from bench.traffic.departures import departures

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


LAWS = ("constant", "poisson", "gamma")
"""Ramps, bursts and traces have no law that their plan could be tested against."""


def arrivals(case: Case) -> Finding | None:
    """Open loop: is the plan the process asked for, and did the requests leave as planned?"""
    load = case.view.run.point.load
    if load.arrivals == "closed":
        return None
    why = (_plan_off(case) if load.arrivals in LAWS else None) or _departures_off(case)
    if why is None:
        return None
    return Finding("invalid", f"requests did not leave as {load.arrivals} arrivals: {why}", _MORE_CLIENT)


def _plan_off(case: Case) -> str | None:
    """What in the planned moments is not the law. An effect must be both significant and large."""

    load, limits, planned = case.view.run.point.load, case.limits, case.view.requests.planned
    found = fit(planned, load)
    if found is None:
        return None
    if load.arrivals == "constant":
        return f"gaps vary by {found.cv:.0%} of their mean" if found.cv > limits.constant_cv else None
    if (
        found.ks_p is not None
        and found.ks_distance is not None
        and found.ks_p < limits.arrival_p
        and found.ks_distance > limits.arrival_distance
    ):
        return f"gaps do not follow the law (Kolmogorov-Smirnov distance {found.ks_distance:.2f})"
    if abs(found.lag1) > max(limits.arrival_distance, limits.arrival_lag1 / np.sqrt(planned.size)):
        return f"each gap depends on the one before (correlation {found.lag1:+.2f})"
    # Few counts scatter widely: only a dispersion that chance does not explain is held against it.
    by_chance = found.dispersion_p is None or found.dispersion_p >= limits.arrival_p
    if not (by_chance or limits.dispersion_low <= found.dispersion <= limits.dispersion_high):
        return f"counts in equal times have a dispersion of {found.dispersion:.2f} instead of 1"
    return None


def _departures_off(case: Case) -> str | None:
    """What in the departures is not the plan, beyond what a timer and a busy moment explain."""

    requests, limits = case.view.requests, case.limits
    left = np.isfinite(requests.sent)
    found = departures(requests.planned[left], requests.sent[left], limits.lag_ms / 1e3)
    if found is None:
        return None
    if found.moved > limits.departures:
        return (
            f"{found.moved:.0%} of them left in another {found.window_s * 1e3:,.0f} ms than planned, "
            "beside what all are late by"
        )
    # Equal gaps are no sample: what differs from them is no chance.
    chance = case.view.run.point.load.arrivals != "constant" and found.gaps_p >= limits.arrival_p
    if found.gaps_off > limits.departures and not chance:
        return f"{found.gaps_off:.0%} of the gaps are off by more than {found.tolerance_s * 1e3:,.0f} ms"
    return None
