"""What the page draws: every candidate and point as plain data for `page.js`. Numbers are in shown units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.metrics import METRICS
from bench.records import complaints
from bench.result import SHARES, PointResult
from servetune.report import labels
from servetune.report.marks import RANK_MARK
from servetune.report.ranking import Candidate, Job, push

LOAD_AXES = ("workload", "input_tokens", "output_tokens", "concurrency", "rate_per_s")


def data(jobs: Sequence[Job], outcomes: Sequence[PointResult], names: Sequence[str]) -> dict[str, Any]:
    """`{metrics, axes, shares, jobs, candidates, points}`; lists of values follow the order of `metrics`.

    Infinite values are the text "inf"; what cannot be known is null, and `need` says how many samples
    a percentile lacks. `names`: the settings that vary.
    """
    metrics = known_metrics(outcomes)
    currency = jobs[0].objective.currency if jobs else None
    candidates = [(number, c) for number, job in enumerate(jobs) for c in job.candidates]
    points: list[dict[str, Any]] = []
    described = []
    for job, candidate in candidates:
        own = list(range(len(points), len(points) + len(candidate.outcomes)))
        points += [_point(o, metrics) for o in candidate.outcomes]
        described.append(_candidate(candidate, job, own, metrics, names))
    return {
        "metrics": [
            {
                "name": name,
                "title": labels.title(name),
                "unit": labels.unit(METRICS[name].unit, currency),
                "better": METRICS[name].better,
                "doc": METRICS[name].doc,
                "source": METRICS[name].source,
            }
            for name in metrics
        ],
        "axes": axes([c for _, c in candidates], names),
        "shares": SHARES,
        "jobs": [{"name": job.name} for job in jobs],
        "objective": jobs[0].objective.metric if jobs else None,
        "slos": _limits(outcomes),
        "candidates": described,
        "points": points,
    }


def known_metrics(outcomes: Sequence[PointResult]) -> list[str]:
    """METRICS with a value, or wanting only samples, in at least one point; in their own order."""
    return [
        name for name in METRICS if any(o.metrics[name] is not None or name in o.needed for o in outcomes)
    ]


def axes(candidates: Sequence[Candidate], names: Sequence[str]) -> list[str]:
    """What candidates differ in: engine and settings first, then the load."""
    found = [n for n in (*labels.BARE, *names) if len({axis(c, n) for c in candidates}) > 1]
    loads = [n for n in LOAD_AXES if len({axis(c, n) for c in candidates}) > 1]
    return list(dict.fromkeys([*found, *loads]))


def axis(candidate: Candidate, name: str) -> str:
    """Where a candidate stands on an axis, as text; `default` where the engine chooses."""
    value = getattr(candidate.load, name) if name in LOAD_AXES else candidate.config.shown(name)
    return "default" if value is None else labels.value_text(value)


def _candidate(
    candidate: Candidate, job: int, points: list[int], metrics: Sequence[str], names: Sequence[str]
) -> dict[str, Any]:
    several = len(points) > 1
    load = candidate.load
    return {
        "job": job,
        "rank": candidate.rank,
        "standing": candidate.standing,
        "mark": RANK_MARK[candidate.standing],
        "simulated": candidate.simulated,
        "name": labels.config_text(candidate.config, names),
        "config": candidate.config.key,
        "push": push(load),
        "pushed": load.concurrency or load.rate_per_s or 0,
        "at": {name: axis(candidate, name) for name in axes_of(names)},
        "points": points,
        "values": [_number(candidate.value(n), n) for n in metrics] if several else None,
        "low": _extreme(candidate, metrics, 0) if several else None,
        "high": _extreme(candidate, metrics, 1) if several else None,
    }


def axes_of(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*labels.BARE, *names, *LOAD_AXES]))


def _extreme(candidate: Candidate, metrics: Sequence[str], side: int) -> list[float | str | None]:
    spreads = ((n, candidate.spread(n)) for n in metrics)
    return [_number(spread[side] if spread else None, n) for n, spread in spreads]


def _point(o: PointResult, metrics: Sequence[str]) -> dict[str, Any]:
    run, curves = o.run, o.curves
    return {
        "key": o.key,
        "repeat": run.point.repeat,
        "launch": run.launch,
        "version": run.engine_version,
        "simulated": run.simulated,
        "verdict": o.judgement.verdict,
        "reasons": [[r.verdict, r.text, r.remedy] for r in o.judgement.reasons],
        "slos": [[str(slo), o.why_unknown(slo) or state] for slo, state in o.slos],
        "settings": {n: labels.value_text(v) for n, v in run.point.config.settings.items()},
        "effective": {n: labels.value_text(v) for n, v in run.effective.items()},
        "load": {n: v for n, v in vars(run.point.load).items() if v is not None},
        "notes": [*run.notes, *o.heard],
        "failed": [[complaints.brief(group), group.hint] for group in o.failed],
        "failure": f"{run.failure.kind}: {run.failure.detail}" if run.failure else None,
        "values": [_number(o.metrics[n], n) for n in metrics],
        "need": {str(i): o.needed[n] for i, n in enumerate(metrics) if n in o.needed},
        "quantiles": {name: [_digits(v) for v in values] for name, values in curves.quantiles.items()},
        "end_s": _digits(curves.edges_s[-1]) if curves.edges_s else None,
        "tokens_per_s": [_digits(v) for v in curves.tokens_per_s],
        "in_flight": [_digits(v) for v in curves.in_flight],
        "window_s": curves.window_s,
    }


def _limits(outcomes: Sequence[PointResult]) -> Mapping[str, float]:
    """SLO limits by the metric they are on, in shown units."""
    slos = (slo for slo, _ in outcomes[0].slos) if outcomes else ()
    return {slo.name: labels.shown(slo.limit, METRICS[slo.name].unit) for slo in slos if slo.name in METRICS}


def _number(value: float | None, metric: str) -> float | str | None:
    if value is None or math.isnan(value):
        return None
    return "inf" if math.isinf(value) else _digits(labels.shown(value, METRICS[metric].unit))


def _digits(value: float) -> float:
    """Five digits: what a screen can show, and a fifth of the bytes."""
    return float(f"{value:.5g}")
