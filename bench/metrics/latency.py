"""Latencies of the requests due in the steady window, in milliseconds, one array a definition.

Completed requests only; `lost` counts the others due in the window, which adjusted percentiles take as
infinite. Origins: `planned` (when it should have left) and `sent` (first byte to the socket).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.metrics.buffered import at_once
from bench.metrics.columns import Mask
from bench.metrics.statistics import Array, floor, percentile
from bench.metrics.view import View

STATISTICS: dict[str, float | None] = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "mean": None}


def lost(view: View) -> int:
    """Requests due in the window that failed, or had not ended when the load was stopped."""
    return int((view.inside & ~view.requests.ok).sum())


def complete(view: View) -> Mask:
    """Requests due in the window that ended as they should."""
    return view.inside & view.requests.ok


def _since(view: View, stamp: str, origin: str) -> Array:
    taken: Array = getattr(view.requests, stamp) - getattr(view.requests, origin)
    if not view.streams and stamp != "last":
        taken = np.full_like(taken, np.nan)
    return taken * 1e3


def ttft(view: View, origin: str = "planned") -> Array:
    return _known(_since(view, "first", origin)[complete(view)])


def ttfo(view: View, origin: str = "planned") -> Array:
    return _known(_since(view, "answer", origin)[complete(view)])


def e2e(view: View, origin: str = "planned") -> Array:
    return _known(_since(view, "last", origin)[complete(view)])


def tpot_by_request(view: View) -> Array:
    """(last - first) / (visible tokens - 1) of every request; NaN with fewer than two, and see `_spent`."""
    seen = view.requests.visible
    return np.where(seen >= 2, _spent(view) / np.maximum(seen - 1, 1), np.nan)


def _spent(view: View) -> Array:
    """Last output - first, ms; NaN without a stream, where both came in one read, and behind a buffer."""
    spent = _since(view, "last", "planned") - _since(view, "first", "planned")
    return np.full_like(spent, np.nan) if view.buffered else np.where(at_once(view.requests), np.nan, spent)


def tpot(view: View) -> Array:
    return _known(tpot_by_request(view)[complete(view)])


def tpot_event(view: View) -> Array:
    r = view.requests
    after = r.tokens - r.first_tokens
    return _known(np.where(after >= 1, _spent(view) / np.maximum(after, 1), np.nan)[complete(view)])


def _gaps(view: View) -> tuple[Array, Mask]:
    """Gap before each output event but the first of its request; which belong to complete requests.

    None behind a buffer, whose gaps they would be.
    """
    events = view.events
    if not view.streams or events.t.size < 2 or view.buffered:
        return np.empty(0), np.empty(0, dtype=bool)
    same = events.owner[1:] == events.owner[:-1]
    return np.diff(events.t) * 1e3, same & complete(view)[events.owner[1:]]


def icl(view: View) -> Array:
    gaps, taken = _gaps(view)
    return gaps[taken]


def itl(view: View) -> Array:
    """One value a token; empty unless the server says how many tokens every event carries."""
    gaps, taken = _gaps(view)
    if not taken.any() or not view.events.exact[1:][taken].all():
        return np.empty(0)
    tokens = view.events.tokens[1:][taken]
    some = tokens > 0
    return np.repeat(gaps[taken][some] / tokens[some], tokens[some].astype(int))


def schedule_lag(view: View) -> Array:
    """All requests due in the window that were sent, failed ones too: lateness is the client's."""
    r = view.requests
    return _known((r.sent - r.planned)[view.inside] * 1e3)


SERIES: dict[str, Callable[[View], Array]] = {
    "ttft": ttft,
    "ttft_sent": lambda view: ttft(view, "sent"),
    "ttfo": ttfo,
    "ttfo_sent": lambda view: ttfo(view, "sent"),
    "e2e": e2e,
    "e2e_sent": lambda view: e2e(view, "sent"),
    "tpot": tpot,
    "tpot_event": tpot_event,
    "icl": icl,
    "itl": itl,
    "schedule_lag": schedule_lag,
}
"""Name of a latency -> its values over the window, in milliseconds."""

ADJUSTED = ("ttft", "ttfo", "e2e", "tpot")
"""Latencies that are one value a request, so that a lost request can count as infinite."""


def values(view: View, series: str) -> Array:
    """SERIES[series] of a view, computed once."""
    if series not in view.cache:
        view.cache[series] = np.sort(SERIES[series](view))
    return view.cache[series]


def statistic(sample: Array, name: str) -> float | None:
    """One of STATISTICS over the values; a percentile is None below its floor of samples."""
    q = STATISTICS[name]
    if q is None:
        return float(sample.mean()) if sample.size else None
    return percentile(sample, q) if sample.size >= floor(q) else None


def adjusted(view: View, series: str, name: str) -> float | None:
    """The percentile with every lost request as infinite; None below the floor, or without any success."""
    known = values(view, series)
    if not known.size:
        return None
    return statistic(np.concatenate([known, np.full(lost(view), np.inf)]), name)


def request_statistic(view: View, metric: str, name: str) -> Array:
    """One value a request, in the order of `view.requests`, to hold against an SLO: NaN when unknown.

    Latencies are the request's own; of inter-chunk latency it is the request's own statistic `name`.
    """
    stamps = {"ttft": "first", "ttfo": "answer", "e2e": "last"}
    if metric in stamps:
        return _since(view, stamps[metric], "planned")
    if metric == "tpot":
        return tpot_by_request(view)
    out = np.full(view.requests.ok.size, np.nan)
    gaps, taken = _gaps(view)
    if taken.any():
        owners = view.events.owner[1:][taken]
        starts = np.flatnonzero(np.r_[True, np.diff(owners) > 0])
        for owner, own in zip(owners[starts], np.split(gaps[taken], starts[1:]), strict=True):
            q = STATISTICS[name]
            out[owner] = own.mean() if q is None else percentile(own, q)
    return out


def _known(values: Array) -> Array:
    return values[~np.isnan(values)]
