"""A Run at one open-loop rate as evidence: which requests are over which limit, and is a queue growing.

Every request that was due counts: a failed one is over the limit, one cut off is over unless the moment
in question had come before. Latency counts from the planned departure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.findrate.slotest import Outcomes, allowed_share
from bench.metrics.columns import Mask, Requests
from bench.metrics.latency import request_statistic
from bench.metrics.statistics import Array
from bench.metrics.view import View
from bench.records.model import Run
from bench.scenario.slo import Slo
from serving.errors import UserError

SETTLE_SHARE = 0.1
SETTLE_LATENCIES = 2.0
"""The start of a stretch is left out: a tenth of it, and two request durations, while the server fills."""
FLOW_BINS = 20
FLOW_T = 3.0
"""Mean net flow over its error, 19 degrees of freedom: one in 270 for a queue that only just keeps up."""
FEWEST_FOR_FLOW = 60


@dataclass(frozen=True)
class Stretch:
    """One run at one rate. `overloaded`: the queue grows and is over the limit.

    outcomes  one a SLO;  in_flight  requests in the system as each one came
    seconds   how long requests were sent;  latency_s  median time in the system of completed requests
    """

    outcomes: tuple[Outcomes, ...]
    in_flight: Array
    requests: int
    seconds: float
    latency_s: float
    overloaded: bool


def stretch(run: Run, slos: Sequence[Slo]) -> Stretch:
    """Reads a run. UserError when an SLO needs a first token and answers did not come as streams."""
    view = View(run, tuple(slos))
    requests = view.requests
    if view.buffered and any(slo.metric in ("tpot", "icl") for slo in slos):
        raise UserError(
            "the output arrives in one read or in clumps: no time between tokens can be told",
            "switch off the buffering of the proxy in front of the server, or aim at the server itself",
        )
    if not view.streams and any(slo.metric not in ("e2e", "error_rate") for slo in slos):
        raise UserError("only e2e and error_rate can be told without streaming", "leave out --no-stream")
    if not requests.planned.size:
        return Stretch(tuple(Outcomes(*(np.empty(0),) * 3) for _ in slos), np.empty(0), 0, 0.0, 0.0, False)
    spent = (requests.end - requests.planned)[requests.ok]
    latency_s = float(np.median(spent)) if spent.size else 0.0
    begin = float(requests.planned.min())
    end = float(requests.planned.max()) if run.load_end_s is None else run.load_end_s
    length = max(0.0, end - begin)
    cut = begin + min(length / 2, max(SETTLE_SHARE * length, SETTLE_LATENCIES * latency_s))
    inside = requests.planned >= cut
    outcomes = tuple(_outcomes(view, slo, inside) for slo in slos)
    for slo, one in zip(slos, outcomes, strict=True):
        if inside.any() and not one.value.size:
            raise UserError(f"{slo}: the answers have no such latency", "ask for 2 output tokens or more")
    growing = _growing(requests, begin + SETTLE_SHARE * length, end)
    late = any(_late(slo, one) for slo, one in zip(slos, outcomes, strict=True))
    return Stretch(
        outcomes, _in_flight(requests)[inside], int(inside.sum()), length, latency_s, growing and late
    )


def _outcomes(view: View, slo: Slo, inside: Mask) -> Outcomes:
    requests = view.requests
    if slo.metric == "error_rate":
        over = requests.failed[inside].astype(float)
        return Outcomes(np.where(over > 0, np.inf, 0.0), over, np.ones(over.size))
    if slo.metric == "icl":
        return _gaps(view, slo, inside)
    value = request_statistic(view, slo.metric, slo.statistic or "")
    lost = requests.failed | (requests.censored & np.isnan(value))
    if allowed_share(slo) is None:
        # A mean with an infinite value says nothing: a lost request counts the longest anybody waits.
        value = np.where(lost, np.fmax(value, view.run.point.load.request_timeout_s * 1e3), value)
    else:
        value = np.where(lost, np.inf, value)
    taken = inside & ~np.isnan(value)  # NaN and not lost: no such latency, a single token has no TPOT
    value = value[taken]
    return Outcomes(value, (value > slo.limit).astype(float), np.ones(value.size))


def _gaps(view: View, slo: Slo, inside: Mask) -> Outcomes:
    """Gaps between output events, pooled: each request with as much weight as it has gaps."""
    lost = view.requests.failed | view.requests.censored
    gaps = [np.diff(record.event_s) * 1e3 for record in view.records]
    weight = np.array([gap.size for gap in gaps], dtype=float)
    usual = weight[~lost & inside]
    weight = np.where(lost, np.maximum(weight, usual.mean() if usual.size else 1.0), weight)
    over = np.array([(gap > slo.limit).sum() for gap in gaps], dtype=float)
    over = np.where(lost, weight, over)
    # Each request's share of the pooled mean: its gaps' total over the usual number of gaps.
    totals = np.array([gap.sum() if gap.size else np.nan for gap in gaps]) / max(1.0, weight[inside].mean())
    value = np.where(lost, view.run.point.load.silence_timeout_s * 1e3, totals)
    taken = inside & (weight > 0) & ~np.isnan(value)
    return Outcomes(value[taken], over[taken], weight[taken])


def _in_flight(requests: Requests) -> Array:
    """Requests in the system as each one arrives."""
    ends = np.sort(requests.end[np.isfinite(requests.end)])
    gone: Array = np.searchsorted(ends, requests.planned, "right").astype(float)
    return np.arange(requests.planned.size, dtype=float) - gone


def _growing(requests: Requests, start_s: float, end_s: float) -> bool:
    """More come than go: the net flow of equal spans of time is above 0 by far more than it varies.

    In a queue that only just keeps up the net flow of long spans has mean 0 and is nearly independent; in
    a stable one it is pulled back to 0, so this test is the more careful there.
    """
    came = requests.planned[(requests.planned >= start_s) & (requests.planned <= end_s)]
    if came.size < FEWEST_FOR_FLOW or end_s <= start_s:
        return False
    gone = requests.end[np.isfinite(requests.end)]
    edges = np.linspace(start_s, end_s, FLOW_BINS + 1)
    flow = (np.histogram(came, edges)[0] - np.histogram(gone, edges)[0]).astype(float)
    return _t(flow) > FLOW_T


def _t(values: Array) -> float:
    mean, error = float(values.mean()), float(values.std(ddof=1)) / values.size**0.5
    return mean / error if error > 0 else float(np.copysign(np.inf, mean)) if mean else 0.0


def _late(slo: Slo, found: Outcomes) -> bool:
    """Whether most of the last quarter of the requests is over the limit."""
    last = slice(found.value.size * 3 // 4, None)
    weight = float(found.weight[last].sum())
    if not weight:
        return False
    allowed = allowed_share(slo)
    if allowed is None:
        return float(found.value[last].mean()) > 1.5 * slo.limit
    return float(found.over[last].sum()) / weight > (1 + allowed) / 2
