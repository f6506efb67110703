"""The steady part of a run, found by rule on several signals; one window for tokens, latency and energy.

Ramp: cut by MSER truncation on requests in flight, output tokens a second, time to first token and, where
they were sampled, the server's running and waiting requests and its KV-cache use: the latest cut counts.
In a closed loop the window also begins no earlier than nine tenths of the usual concurrency (after the rule
of SGLang's bench_serving), in an open loop no earlier than one request duration: until then it fills.
Drain: everything after the last planned departure is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.metrics.columns import Events, Requests
from bench.metrics.statistics import Array, mser
from bench.telemetry.series import TelemetrySeries

BINS = 100
LEAST_BINS = 16
LEAST_COMPLETED = 20
LEAST_LATENCIES = 2.0
"""A window shorter than this many median request durations shows the start and the end, no middle."""
CLOSED_SHARE = 0.9
TREND_BATCHES = 10


@dataclass(frozen=True, slots=True)
class Drift:
    """Trend of one signal over the window: `change` relative to its mean, `t` of its slope (8 degrees)."""

    signal: str
    change: float
    t: float


@dataclass(frozen=True, slots=True)
class Window:
    """`whole`: no steady part could be told, `reason` says why, and the bounds are those of the run."""

    start_s: float
    end_s: float
    whole: bool = False
    reason: str = ""
    drifts: tuple[Drift, ...] = ()

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s


def find(
    requests: Requests, events: Events, telemetry: TelemetrySeries, load_end_s: float | None, *, closed: bool
) -> Window:
    """The steady window of a run; the whole run, with the reason, where it is too short to have one."""
    sent = requests.sent[np.isfinite(requests.sent)]
    if not sent.size:
        due = requests.planned if requests.planned.size else np.zeros(1)
        return Window(float(due.min()), float(due.max()), True, "no request was sent")
    ends = requests.end[np.isfinite(requests.end)]
    begin, end = float(requests.planned.min()), float(max(ends.max(initial=0.0), sent.max()))
    if events.t.size:
        end = max(end, float(events.t.max()))
    close = float(sent.max()) if load_end_s is None else min(load_end_s, end)
    if not closed:
        # A gap after the last planned one, never the last one sent: the window must not grow with lateness.
        last = float(requests.planned.max())
        close = min(close, last + (last - begin) / requests.planned.size)
    whole = Window(begin, max(end, begin), True, "")
    if int(requests.ok.sum()) < LEAST_COMPLETED:
        return _because(whole, f"{int(requests.ok.sum())} completed requests; {LEAST_COMPLETED} are needed")
    duration = float(np.median((requests.end - requests.sent)[requests.ok]))
    if close - begin < LEAST_LATENCIES * duration:
        return _because(whole, _too_short("the load", close - begin, duration))
    bins = min(BINS, max(events.t.size // 5, int(requests.ok.sum()) // 2))
    if bins < LEAST_BINS:
        return _because(whole, "too few output events to see a trend")
    signals = _signals(requests, events, telemetry, begin, close, bins, duration)
    start = max(begin + mser(values) / values.size * (close - begin) for values in signals.values())
    filled = _filled(signals["requests in flight"], begin, close) if closed else begin + duration
    start = max(start, filled)
    if close - start < LEAST_LATENCIES * duration:
        return _because(whole, _too_short("its steady part", close - start, duration))
    steady = requests.ok & (requests.planned >= start) & (requests.planned <= close)
    if int(steady.sum()) < LEAST_COMPLETED:
        return _because(whole, f"its steady part has {int(steady.sum())} completed requests")
    later = _signals(requests, events, telemetry, start, close, bins, duration)
    drifts = tuple(_drift(name, values) for name, values in later.items())
    return Window(start, close, drifts=drifts)


def _because(window: Window, reason: str) -> Window:
    return Window(window.start_s, window.end_s, True, reason)


def _too_short(what: str, length_s: float, duration_s: float) -> str:
    return f"{what} lasts {length_s:.3g} s, below {LEAST_LATENCIES:g} request durations of {duration_s:.3g} s"


def _signals(
    requests: Requests,
    events: Events,
    telemetry: TelemetrySeries,
    start: float,
    end: float,
    bins: int,
    span: float,
) -> dict[str, Array]:
    """Each signal on an even grid from start to end."""
    edges = np.linspace(start, end, bins + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    ended = np.sort(requests.end[~np.isnan(requests.end)])
    begun = np.sort(requests.sent[~np.isnan(requests.sent)])
    flight = np.searchsorted(begun, middles, "right") - np.searchsorted(ended, middles, "right")
    found: dict[str, Array] = {"requests in flight": flight.astype(float)}
    weight = np.nan_to_num(events.tokens, nan=1.0)
    if events.t.size:
        tokens = np.histogram(events.t, edges, weights=weight)[0]
        found["output tokens a second"] = _smooth(tokens, round(span / (end - start) * bins))
    inside = requests.ok & (requests.planned >= start) & (requests.planned <= end)
    wait = (requests.first - requests.planned)[inside]
    if np.isfinite(wait).sum() >= LEAST_BINS:
        found["time to first token"] = _batched(wait[np.isfinite(wait)], bins)
    for what, name in (
        ("running", "running requests (server)"),
        ("waiting", "waiting requests (server)"),
        ("kv_use", "KV-cache use (server)"),
    ):
        series = telemetry.server(what)
        within = series.between(start, end) if series else None
        if within is not None and within.t.size >= LEAST_BINS:
            found[name] = within.value
    return found


def _smooth(values: Array, width: int) -> Array:
    """Moving mean over one request duration: synchronized requests make tokens come in waves."""
    width = min(max(1, width), values.size // 4)
    return np.convolve(values, np.ones(width) / width, mode="valid")


def _batched(values: Array, bins: int) -> Array:
    """Means of consecutive batches, at most `bins` of them."""
    size = -(-values.size // bins)
    starts = np.arange(0, values.size, size)
    return np.add.reduceat(values, starts) / np.diff([*starts, values.size])


def _filled(flight: Array, begin: float, close: float) -> float:
    level = float(np.median(flight[flight.size // 2 :]))
    reached = int(np.argmax(flight >= CLOSED_SHARE * level))
    return begin + reached / flight.size * (close - begin)


def _drift(name: str, values: Array) -> Drift:
    """Least-squares trend over ten batch means, which makes the residuals nearly independent."""
    means = np.array([part.mean() for part in np.array_split(values, TREND_BATCHES)])
    level = float(np.abs(means).mean())
    if level == 0 or np.ptp(means) < 1e-9 * level:
        return Drift(name, 0.0, 0.0)
    x = np.arange(means.size) - (means.size - 1) / 2
    slope = float((x @ means) / (x @ x))
    left = means - means.mean() - slope * x
    error = float(np.sqrt((left @ left) / (means.size - 2) / (x @ x)))
    t = slope / error if error > 0 else float(np.copysign(np.inf, slope))
    return Drift(name, slope * (means.size - 1) / level, t)
