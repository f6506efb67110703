"""Rates of work over the steady window: requests, tokens by arrival stamp, good requests, money."""

from __future__ import annotations

import numpy as np

from bench.metrics.columns import Mask
from bench.metrics.latency import complete, request_statistic
from bench.metrics.statistics import Array
from bench.metrics.view import View

LATE_S = 0.010
"""As `Thresholds.lag_ms`: what is later is the client's fault (inference-perf)."""


def _rate(amount: float, seconds: float) -> float | None:
    return amount / seconds if seconds > 0 else None


def _ended(view: View) -> Mask:
    """Requests completed inside the window, whenever they began."""
    r, w = view.requests, view.window
    return r.ok & (r.end >= w.start_s) & (r.end <= w.end_s)


def requests_per_s(view: View) -> float | None:
    return _rate(float(_ended(view).sum()), view.window.length_s)


def requests_per_s_total(view: View) -> float | None:
    return _rate(float(view.requests.ok.sum()), run_length_s(view))


def run_length_s(view: View) -> float:
    """First planned departure to the last sign of output: ramp and drain included."""
    r = view.requests
    if not r.planned.size:
        return 0.0
    ends = r.end[np.isfinite(r.end)]
    last = max(ends.max(initial=-np.inf), view.events.t.max(initial=-np.inf))
    return max(0.0, float(last - r.planned.min())) if np.isfinite(last) else 0.0


def _countable(view: View) -> bool:
    """Whether the output of every completed request is known: a sum with holes would be too small."""
    return bool(view.requests.ok.any() and np.isfinite(view.requests.tokens[view.requests.ok]).all())


def output_tokens_between(view: View, start_s: float, end_s: float) -> float | None:
    """Output tokens that arrived in an interval, each with the event that brought it."""
    if not _countable(view):
        return None
    t = view.events.t
    return float(np.nan_to_num(view.events.tokens[(t >= start_s) & (t <= end_s)]).sum())


def output_tokens_per_s(view: View) -> float | None:
    tokens = output_tokens_between(view, view.window.start_s, view.window.end_s)
    return None if tokens is None else _rate(tokens, view.window.length_s)


def output_tokens_per_s_total(view: View) -> float | None:
    tokens = output_tokens_between(view, -np.inf, np.inf)
    return None if tokens is None else _rate(tokens, run_length_s(view))


def input_tokens_per_s(view: View) -> float | None:
    """Prompt tokens of requests whose first output arrived in the window: by then they are processed."""
    r, w = view.requests, view.window
    seen = np.where(np.isnan(r.first), r.end, r.first)
    inside = ~r.failed & (seen >= w.start_s) & (seen <= w.end_s)
    known = np.where(np.isnan(r.input_tokens), asked_input(view), r.input_tokens)[inside]
    return _rate(float(known.sum()), w.length_s) if known.size else None


def asked_input(view: View) -> Array:
    return np.array([r.asked_input_tokens for r in view.records], dtype=float)


def total_tokens_per_s(view: View) -> float | None:
    inward, outward = input_tokens_per_s(view), output_tokens_per_s(view)
    return None if inward is None or outward is None else inward + outward


def good(view: View) -> Mask:
    """Requests due in the window that completed within every latency limit of the SLOs."""
    out = complete(view)
    for slo in view.slos:
        if slo.statistic is not None:
            with np.errstate(invalid="ignore"):
                out = out & (request_statistic(view, slo.metric, slo.statistic) <= slo.limit)
    return out


def goodput_per_s(view: View) -> float | None:
    return _rate(float(good(view).sum()), view.window.length_s) if view.inside.any() else None


def good_share(view: View) -> float | None:
    due = int(view.inside.sum())
    return int(good(view).sum()) / due if due else None


def good_tokens_per_s(view: View) -> float | None:
    if not _countable(view):
        return None
    return _rate(float(view.requests.tokens[good(view)].sum()), view.window.length_s)


def price_per_hour(view: View) -> float | None:
    """Of everything the engine runs on, in the price's currency; None where it is not known what that is."""
    return None if view.price is None else view.price.per_hour_of(view.devices)


def _cost(view: View, tokens_per_s: float | None) -> float | None:
    hourly = price_per_hour(view)
    if hourly is None or not tokens_per_s:
        return None
    return hourly / (3600 * tokens_per_s) * 1e6


def cost_output(view: View) -> float | None:
    return _cost(view, output_tokens_per_s(view))


def cost_total(view: View) -> float | None:
    return _cost(view, total_tokens_per_s(view))


def cost_good(view: View) -> float | None:
    return _cost(view, good_tokens_per_s(view))


def concurrency_mean(view: View) -> float | None:
    """Requests in flight, averaged over the time of the window."""
    r, w = view.requests, view.window
    if w.length_s <= 0:
        return None
    begun = np.clip(r.sent, w.start_s, w.end_s)
    ended = np.clip(r.end, w.start_s, w.end_s)
    return float(np.nansum(ended - begun)) / w.length_s


def littles_law_ratio(view: View) -> float | None:
    """Mean requests in flight over (rate of leaving x mean time in the system of those that left)."""
    r, w = view.requests, view.window
    left = np.isfinite(r.end) & (r.end >= w.start_s) & (r.end <= w.end_s) & ~np.isnan(r.sent)
    held, flight = float((r.end - r.sent)[left].sum()), concurrency_mean(view)
    return flight * w.length_s / held if flight is not None and held > 0 else None


def dispatched_share(view: View) -> float | None:
    """Of the requests due in the window, those that had left by the last moment planned in it.

    One mean gap and LATE_S are allowed for the edge: a single late request is no rate that was not reached.
    """
    r, inside = view.requests, view.inside
    due = int(inside.sum())
    if not due:
        return None
    last_s = float(r.planned[inside].max())
    grace_s = (last_s - float(r.planned[inside].min())) / due + LATE_S
    with np.errstate(invalid="ignore"):
        return int((r.sent[inside] <= last_s + grace_s).sum()) / due


def offered_per_s(view: View) -> float | None:
    return _rate(float(view.inside.sum()), view.window.length_s) if view.inside.any() else None
