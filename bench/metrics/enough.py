"""Can a load tell its promises, and did a measurement? A percentile is known from its floor of requests on.

A promise has three states: met, missed, and undetermined where too few requests were left in the steady
window. An undetermined one is neither kept nor broken, whoever asks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.metrics import latency
from bench.metrics.statistics import floor
from bench.metrics.view import View
from bench.point import Load, Point, label
from bench.scenario.slo import Slo
from bench.traffic import trace

ROOM = 1.5
"""Requests to ask for, as a multiple of those needed: the steady window leaves out the ramp. Truncation takes
up to half of a run; of simulated closed loops of 800 requests it took 0 to 42%."""
_NAME = re.compile(rf"({'|'.join(latency.SERIES)})_({'|'.join(latency.STATISTICS)})(_adjusted)?_ms")
_GAPS = ("icl", "itl")
"""Latencies that are one value a gap between events or tokens, not one a request."""
_WITHOUT_STREAM = ("e2e", "e2e_sent", "schedule_lag")
_OF_ONE_TOKEN = ("tpot", "tpot_event", *_GAPS)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A promise that a load cannot tell (`never`), or may not.

    needed     values in the steady window, from which the percentile is known; 0: no number helps
    sent       requests that the load sends at the most, or is expected to; None: the server's speed decides
    """

    load: Load
    promise: str
    needed: int
    sent: int | None
    never: bool
    text: str
    hint: str

    def as_json(self) -> dict[str, Any]:
        return {
            "load": label(self.load),
            "promise": self.promise,
            "needed": self.needed,
            "sent": self.sent,
            "never": self.never,
            "text": self.text,
            "hint": self.hint,
        }


def parts(metric: str) -> tuple[str, str] | None:
    """(`ttft`, `p99`) of `ttft_p99_ms` and `ttft_p99_adjusted_ms`; None for what is no latency."""
    match = _NAME.fullmatch(metric)
    return (match[1], match[2]) if match else None


def needed(metric: str) -> int:
    """Values from which this metric of METRICS is known; 1 for what is no percentile."""
    found = parts(metric)
    q = latency.STATISTICS[found[1]] if found else None
    return 1 if q is None else floor(q)


def telling(metrics: Mapping[str, float | None], metric: str, limit: float) -> float | None:
    """The value that tells whether `metric` is at most `limit`; None: undetermined.

    Failed requests count as infinitely slow where the metric allows it. A percentile without its samples is
    missed all the same where a lower one, which has them, is above the limit: that value is then returned.
    """
    value = _adjusted(metrics, metric)
    found = parts(metric)
    if value is not None or found is None or latency.STATISTICS[found[1]] is None:
        return value
    series, name = found
    lower = [
        n for n, q in latency.STATISTICS.items() if q is not None and q < (latency.STATISTICS[name] or 0)
    ]
    values = (_adjusted(metrics, f"{series}_{one}_ms") for one in reversed(lower))
    return next((v for v in values if v is not None and v > limit), None)


def _adjusted(metrics: Mapping[str, float | None], metric: str) -> float | None:
    adjusted = metric.replace("_ms", "_adjusted_ms")
    return metrics.get(adjusted) if adjusted in metrics else metrics.get(metric)


def lacking(view: View) -> dict[str, str]:
    """Latency percentile that no one can print here -> why: `640 of 662 requests`."""
    found = {}
    for series in latency.SERIES:
        known = latency.values(view, series).size
        have = known + (latency.lost(view) if series in latency.ADJUSTED else 0)
        unit = "gaps between outputs" if series in _GAPS else "requests"
        for name, q in latency.STATISTICS.items():
            if q is not None and (not known or have < floor(q)):
                why = f"{have:,} of {floor(q):,} {unit}"
                found[f"{series}_{name}_ms"] = why if known else "no request with such a latency completed"
    return found


def growth(view: View, metrics: Iterable[str]) -> float:
    """How many times the samples there are these percentiles need; 1: no more, infinite: there are none."""
    most = 1.0
    for series, name in filter(None, map(parts, metrics)):
        known = latency.values(view, series).size
        have = known + (latency.lost(view) if series in latency.ADJUSTED else 0)
        most = max(most, needed(f"{series}_{name}_ms") / have if known else math.inf)
    return most


def shortfalls(loads: Iterable[Load], promises: Mapping[str, str]) -> list[Shortfall]:
    """What of `promises` (as written -> metric) these loads cannot tell, or may not. Nothing is measured.

    UserError when the trace of a load cannot be read.
    """
    told = {promise: metric for promise, metric in promises.items() if parts(metric)}
    found = []
    for load in loads if told else ():
        sent = _sent(load)
        found += [one for promise, metric in told.items() if (one := _short(load, promise, metric, sent))]
    return found


def _short(load: Load, promise: str, metric: str, sent: int | None) -> Shortfall | None:
    series, name = parts(metric) or ("", "")
    why = _impossible(load, series)
    if why:
        return Shortfall(load, promise, 0, sent, True, why[0], why[1])
    least = needed(metric)
    each = max(1, load.output_tokens - 1) if series in _GAPS else 1
    ask = math.ceil(least * ROOM / each)
    by_pace = load.arrivals == "closed" and load.duration_s is not None and least > floor(0.50)
    if latency.STATISTICS[name] is None or (sent is not None and sent >= ask and not by_pace):
        return None
    unit = "gaps between outputs" if series in _GAPS else "requests"
    needs = f"{least:,} {unit} in the steady window are needed"
    if sent is None or sent >= ask:
        return _by_pace(load, promise, needs, least, each) if by_pace else None
    sends = f"the load sends {'about ' if load.requests is None else ''}{sent:,}"
    sends += f" requests of at most {each:,} each" if series in _GAPS else ""
    if sent * each < least:
        hint = _hint(load, ask, series, sent * each)
        return Shortfall(load, promise, least, sent, True, f"{needs}, {sends}", hint)
    text = f"{needs}, {sends} and the ramp takes some"
    return Shortfall(load, promise, least, sent, False, text, _hint(load, ask, series, None))


def _by_pace(load: Load, promise: str, needs: str, least: int, each: int) -> Shortfall:
    """A closed loop for a time: how many it sends depends on the server."""
    assert load.duration_s is not None
    a_request = load.duration_s * (load.concurrency or 1) * each / least
    text = (
        f"{needs}: in {load.duration_s:g} s at {load.concurrency} at once, one in {a_request:.3g} s or less"
    )
    return Shortfall(
        load, promise, least, None, False, text, "a longer duration_s where the server is slower"
    )


def _impossible(load: Load, series: str) -> tuple[str, str] | None:
    """Why no number of requests helps, and what would."""
    if not load.stream and series not in _WITHOUT_STREAM:
        return "without streams (stream: false) only e2e is known", "stream: true, or an SLO on e2e"
    if load.trace is None and load.output_tokens < 2 and series in _OF_ONE_TOKEN:
        return "an answer of one token has no time between tokens", "output_tokens: 2 or more"
    return None


def _hint(load: Load, ask: int, series: str, told_from: int | None) -> str:
    ways = []
    if load.trace is not None and load.requests is None:
        ways.append(f"a longer part of a trace: {ask:,} arrivals")
    elif load.requests is not None:
        ways.append(f"requests: {ask}")
    if load.rate_per_s is not None and load.duration_s is not None:
        mean = (load.rate_per_s + (load.ramp_to_per_s or load.rate_per_s)) / 2
        ways.append(f"duration_s: {math.ceil(ask / mean)}s")
    lower = [(n, floor(q)) for n, q in latency.STATISTICS.items() if q is not None]
    fits = [(n, least) for n, least in lower if told_from is not None and least * ROOM <= told_from]
    if fits:
        ways.append(f"or an SLO at {series}:{fits[-1][0]}, which needs {fits[-1][1]}")
    return ", ".join(ways).replace(", or", " or")


def _sent(load: Load) -> int | None:
    """Requests that the load sends: at the most where it counts them, expected where it goes by time."""
    if load.trace is not None:
        return len(trace.read(Path(load.trace), requests=load.requests, duration_s=load.duration_s))
    counts = [] if load.requests is None else [float(load.requests)]
    if load.rate_per_s is not None and load.duration_s is not None:
        counts.append(load.duration_s * (load.rate_per_s + (load.ramp_to_per_s or load.rate_per_s)) / 2)
    return math.floor(min(counts)) if counts else None


def lines(found: Sequence[Shortfall]) -> list[str]:
    """One warning for each workload and number needed, by its load that has the fewest, with the way out."""
    grouped: dict[tuple[str, int, bool], list[Shortfall]] = {}
    for one in found:
        grouped.setdefault((one.load.workload, one.needed, one.never), []).append(one)
    out = []
    for same in grouped.values():
        worst = min(same, key=lambda one: math.inf if one.sent is None else one.sent)
        promises = ", ".join(dict.fromkeys(one.promise for one in same if one.text == worst.text))
        others = len({one.load for one in same}) - 1
        more = f"; so with {others} more of its loads" if others else ""
        verb = "cannot be told" if worst.never else "may not be told"
        way = f" ({worst.hint})" if worst.hint else ""
        out.append(f"{label(worst.load)}: {promises} {verb}: {worst.text}{more}{way}")
    return out


def of_points(points: Iterable[Point], slos: Iterable[Slo]) -> list[Shortfall]:
    """Those of the SLOs under each load of a plan, once."""
    loads = dict.fromkeys(point.load for point in points)
    return shortfalls(loads, {str(slo): slo.name for slo in slos})
