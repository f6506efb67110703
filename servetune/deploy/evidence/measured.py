"""The numbers of a spec: promises, capacity and evidence, from the measured points of one configuration.

Points are repeats of one another when their load is the same: a search starts its finalists anew for each,
so that their spread is that between launches, which no single run can show.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from bench.metrics.intervals import intervals
from bench.records.folder import RunFolder
from bench.result import PointResult
from servetune.deploy.spec import SloFact, SpecCapacity

HEADROOM = 0.2
"""Off the highest rate that held: arrivals vary, and a replica more takes its cold start to come."""

NAMES = {"ttft": "ttft", "tpot": "tpot", "e2e": "e2e", "icl": "itl"}
"""Our latency -> vLLM's. A chunk is what one step gives, so the gap between chunks is its ITL."""


def believed(o: PointResult) -> bool:
    return o.judgement.verdict == "ok" and o.slo == "met"


def safe(same: Iterable[PointResult]) -> PointResult | None:
    """The highest open-loop rate of this config that held its SLOs and may be believed."""
    return max((o for o in same if believed(o) and o.run.point.load.rate_per_s), key=rate, default=None)


def rate(o: PointResult) -> float:
    return float(o.run.point.load.rate_per_s or 0.0)


def capacity(
    same: Sequence[PointResult], held: PointResult | None, at: PointResult, replicas: int
) -> SpecCapacity:
    """Of one replica. A rate that broke below one that held is left out: it was noise, and shows as such."""
    broke = [o for o in same if o.judgement.verdict != "invalid" and o.slo == "missed" and rate(o)]
    above = [rate(o) for o in broke if held is not None and rate(o) > rate(held)]
    return SpecCapacity(
        safe_rate_per_s=rate(held) * (1 - HEADROOM) if held else None,
        headroom=HEADROOM,
        held_per_s=rate(held) if held else None,
        broke_per_s=min(above, default=None),
        concurrency=at.metrics["concurrency_mean"] or None,
        queue_at_knee=at.metrics["queue_peak"],
        kv_peak=at.metrics["kv_cache_peak_share"],
        replicas=replicas,
    )


def promises(folder: RunFolder, same: Sequence[PointResult], at: PointResult) -> list[SloFact]:
    """Each latency limit with the median over the repeats and the envelope of their 95 % intervals."""
    alike = [o for o in same if o.run.point.load == at.run.point.load and o.judgement.verdict == "ok"]
    repeats = sorted(alike, key=lambda o: o.key) or [at]
    known = [intervals(folder.run(o.key)) for o in repeats]
    found = []
    for slo, _ in at.slos:
        if slo.metric not in NAMES or slo.statistic in (None, "mean"):
            continue
        values = [v for o in repeats if (v := o.metrics[slo.name])]
        bounds = [i[slo.name] for i in known if slo.name in i]
        found.append(
            SloFact(
                metric=NAMES[slo.metric],  # type: ignore[arg-type]  # the table's values are its names
                percentile=float(str(slo.statistic)[1:]),
                limit_ms=slo.limit,
                measured_ms=statistics.median(values) if values else None,
                interval_ms=[min(float(b.low) for b in bounds), max(float(b.high) for b in bounds)]
                if bounds and values
                else None,
            )
        )
    return found


def worst_request_s(o: PointResult) -> float:
    """The longest request that the server admits, at the slowest measured pace."""
    load, config = o.run.point.load, o.run.point.config
    length = config.max_model_len or o.run.effective.get("max_model_len")
    tokens = length if isinstance(length, int) else load.output_tokens
    pace = next((v for q in ("p99", "p95", "p90", "p50") if (v := o.metrics[f"tpot_{q}_ms"])), None)
    first = next((v for q in ("p99", "p95", "p90", "p50") if (v := o.metrics[f"ttft_{q}_ms"])), None)
    if pace is None or first is None:
        return load.request_timeout_s
    return (first + pace * tokens) / 1000


def evidence(o: PointResult) -> dict[str, Any]:
    """One point of this config: its load, verdict and numbers that could be told."""
    load = {
        k: v for k, v in vars(o.run.point.load).items() if isinstance(v, (str, int, float)) and k != "trace"
    }
    metrics = {k: v for k, v in o.metrics.items() if v is not None}
    return {"key": o.key, "verdict": o.judgement.verdict, "slo": o.slo, "load": load, "metrics": metrics}
