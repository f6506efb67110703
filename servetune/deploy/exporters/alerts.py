"""Alert rules whose thresholds are the run's own: SLOs, the measured interval, the safe rate, the knee.

Burn rates follow Google's SRE workbook, chapter 5: a short and a long window must both burn. Annotations are
fixed text, so no value of a spec is ever read as a template. Metric names are those of vLLM 0.32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from servetune.deploy.exporters import histogram
from servetune.deploy.exporters.deployment import Deployment, ExportedSlo
from servetune.deploy.quoting import promql_string, seconds

ERROR_BUDGET = 0.01
"""Share of requests that may end in an error or an abort of the server before somebody is told."""
LEAST_EVENTS = 5
"""Requests that must be able to violate within the short window before its ratio means anything."""


@dataclass(frozen=True)
class Burn:
    """Both windows must spend the budget at `factor` times the allowed pace."""

    name: str
    short_s: float
    long_s: float
    factor: float
    wait_s: float
    severity: str


BURNS = (
    Burn("Fast", 300, 3600, 14.4, 120, "page"),
    Burn("Slow", 1800, 21600, 6.0, 900, "ticket"),
)


@dataclass(frozen=True)
class Alert:
    """One rule, and input series (series, values once a minute) with which it must fire after `after_s`."""

    name: str
    expr: str
    wait_s: float
    severity: str
    summary: str
    fires_on: tuple[tuple[str, str], ...]
    after_s: float
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the expression's own result carries, beside the severity."""

    @property
    def rule(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": seconds(self.wait_s),
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary},
        }


def selector(deployment: Deployment, **more: str) -> str:
    """`{job="...",model_name="..."}`; the job is the Service's name, as a ServiceMonitor sets it."""
    return labels({"job": deployment.name, "model_name": deployment.served_model, **more})


def labels(pairs: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{name}={promql_string(value)}" for name, value in pairs.items()) + "}"


def alerts(deployment: Deployment, scale: float = 1.0) -> list[Alert]:
    """Every alert of a deployment. `scale` shortens all windows and waits alike, for drills."""
    found = [_burn(deployment, slo, burn, scale) for slo in deployment.slos for burn in BURNS]
    if deployment.safe_rate:
        slow = [_regression(deployment, slo, scale) for slo in deployment.slos if slo.regression_s]
        found += [*slow, _over_capacity(deployment, scale)]
    if deployment.queue_at_knee is not None:
        found.append(_queueing(deployment, scale))
    if deployment.kv_peak is not None:
        found.append(_kv_pressure(deployment, scale))
    if deployment.cache_labels:
        found.append(_drift(deployment, scale))
    return [*found, _errors(deployment, scale), _absent(deployment, scale)]


def groups(deployment: Deployment, scale: float = 1.0) -> list[dict[str, Any]]:
    rules = [alert.rule for alert in alerts(deployment, scale)]
    return [{"name": deployment.name, "interval": seconds(max(1, 30 * scale)), "rules": rules}]


def burn_threshold(budget: float, factor: float) -> float:
    """Share of slow requests that alerts; halfway to all of them where the factor would ask for more."""
    return min(factor * budget, (1 + budget) / 2)


def _burn(deployment: Deployment, slo: ExportedSlo, burn: Burn, scale: float) -> Alert:
    limit = burn_threshold(slo.budget, burn.factor)
    short, long = (seconds(max(1, window * scale)) for window in (burn.short_s, burn.long_s))
    count = f"{slo.series}_count{selector(deployment)}"
    least = math.ceil(LEAST_EVENTS / limit)
    expr = (
        f"{_slow_share(deployment, slo, slo.limit_s, short)} > {limit:.6g}"
        f" and {_slow_share(deployment, slo, slo.limit_s, long)} > {limit:.6g}"
        f" and sum(increase({count}[{short}])) >= {least}"
    )
    minutes, per_minute = 90, max(60, 2 * least)
    counted = histogram.count(deployment, slo, slo.limit_s)
    return Alert(
        f"Servetune{_camel(slo.name)}{burn.name}Burn",
        expr,
        burn.wait_s * scale,
        burn.severity,
        f"{slo.metric.upper()} is above {slo.limit_s:g} s for too many requests (SLO: p{slo.percentile:g})"
        + counted.note,
        _slow(deployment, slo, slo.limit_s, per_minute, minutes),
        60.0 * (minutes - 1),
    )


def _slow_share(deployment: Deployment, slo: ExportedSlo, limit_s: float, window: str) -> str:
    counted = histogram.count(deployment, slo, limit_s)
    return histogram.slow_share(counted, slo.series, selector(deployment)[:-1], window)


def _slow(
    deployment: Deployment, slo: ExportedSlo, limit_s: float, rate: float, minutes: int
) -> tuple[tuple[str, str], ...]:
    """Every request a little above the limit, in the buckets that the server really has."""
    value_s = histogram.JUST_ABOVE * limit_s
    return tuple(histogram.observed(deployment, slo, selector(deployment)[:-1], value_s, rate, minutes))


def _regression(deployment: Deployment, slo: ExportedSlo, scale: float) -> Alert:
    """Slower than measured although it has no more to do: the deployment is not what was measured."""
    limit, window = slo.regression_s, seconds(max(1, 600 * scale))
    assert limit is not None
    limit = round(limit, 6)
    count = f"{slo.series}_count{selector(deployment)}"
    share = _slow_share(deployment, slo, limit, window)
    least = math.ceil(LEAST_EVENTS / slo.budget)
    allowed = burn_threshold(slo.budget, 2.0)
    expr = (
        f"{share} > {allowed:.6g} and {_rate_per_replica(deployment, window)} <= {deployment.safe_rate:.6g}"
        f" and sum(increase({count}[{window}])) >= {least}"
    )
    running = f"vllm:num_requests_running{selector(deployment)}"
    success = f"vllm:request_success_total{selector(deployment, finished_reason='stop')}"
    slow_rate = max(0.01, 0.5 * (deployment.safe_rate or 1) * 60)
    return Alert(
        f"Servetune{_camel(slo.name)}Regression",
        expr,
        300 * scale,
        "ticket",
        f"{slo.metric.upper()} p{slo.percentile:g} is above what was measured for this load ({limit:g} s)"
        + histogram.count(deployment, slo, limit).note,
        (
            *_slow(deployment, slo, limit, least, 60),
            (running, "1x60"),
            (success, f"0+{slow_rate:.6g}x60"),
        ),
        50 * 60.0,
    )


def _over_capacity(deployment: Deployment, scale: float) -> Alert:
    safe = deployment.safe_rate or 0.0
    running = f"vllm:num_requests_running{selector(deployment)}"
    success = f"vllm:request_success_total{selector(deployment, finished_reason='stop')}"
    return Alert(
        "ServetuneOverCapacity",
        f"{_rate_per_replica(deployment, seconds(max(1, 300 * scale)))} > {safe:.6g}",
        300 * scale,
        "ticket",
        f"more requests per replica than the {safe:.4g} per second that were measured to hold the SLOs",
        ((running, "1x60"), (success, f"0+{1.5 * safe * 60:.6g}x60")),
        50 * 60.0,
    )


def _queueing(deployment: Deployment, scale: float) -> Alert:
    limit = max(1.0, deployment.queue_at_knee or 0.0)
    series = f"vllm:num_requests_waiting{selector(deployment)}"
    return Alert(
        "ServetuneQueueing",
        f"avg(avg_over_time({series}[{seconds(max(1, 120 * scale))}])) > {limit:.6g}",
        120 * scale,
        "page",
        "more requests wait per replica than at the measured knee: latency grows from here",
        ((series, f"{math.ceil(2 * limit)}x30"),),
        25 * 60.0,
    )


def _kv_pressure(deployment: Deployment, scale: float) -> Alert:
    limit = min(0.98, (deployment.kv_peak or 0.0) + 0.1)
    series = f"vllm:kv_cache_usage_perc{selector(deployment)}"
    return Alert(
        "ServetuneKvCacheFull",
        f"max(avg_over_time({series}[{seconds(max(1, 300 * scale))}])) > {limit:.6g}",
        300 * scale,
        "ticket",
        "the KV cache is fuller than it ever was in the measurement: preemptions are next",
        ((series, "1x30"),),
        25 * 60.0,
    )


def _drift(deployment: Deployment, scale: float) -> Alert:
    """The server's own account of its cache differs from the measured one."""
    job = {"job": deployment.name}
    every = "vllm:cache_config_info" + labels(job)
    same = "vllm:cache_config_info" + labels({**job, **deployment.cache_labels})
    changed = dict.fromkeys(deployment.cache_labels, "changed")
    return Alert(
        "ServetuneConfigDrift",
        f"count({every}) - (count({same}) or vector(0)) > 0",
        300 * scale,
        "ticket",
        "a replica runs with other cache settings than the ones that were measured",
        (("vllm:cache_config_info" + labels({**job, **changed}), "1x30"),),
        25 * 60.0,
    )


def _errors(deployment: Deployment, scale: float) -> Alert:
    """An error after a stream has begun is no 5xx: only the finished reason tells."""
    window = seconds(max(1, 300 * scale))
    bad = f'vllm:request_success_total{selector(deployment)[:-1]},finished_reason=~"error|abort"}}'
    every = f"vllm:request_success_total{selector(deployment)}"
    return Alert(
        "ServetuneErrors",
        f"sum(rate({bad}[{window}])) / sum(rate({every}[{window}])) > {ERROR_BUDGET}",
        120 * scale,
        "page",
        f"more than {ERROR_BUDGET:.0%} of the requests end in an error or an abort",
        ((f"vllm:request_success_total{selector(deployment, finished_reason='error')}", "0+60x30"),),
        25 * 60.0,
    )


def _absent(deployment: Deployment, scale: float) -> Alert:
    return Alert(
        "ServetuneAbsent",
        f"absent(vllm:num_requests_running{selector(deployment)})",
        300 * scale,
        "page",
        "no replica of this model reports metrics",
        (),
        25 * 60.0,
        {"job": deployment.name, "model_name": deployment.served_model},
    )


def _rate_per_replica(deployment: Deployment, window: str) -> str:
    success = f"sum(rate(vllm:request_success_total{selector(deployment)}[{window}]))"
    return f"{success} / count(vllm:num_requests_running{selector(deployment)})"


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
