"""A small Grafana dashboard: what was promised and what was measured, beside what is."""

from __future__ import annotations

from typing import Any

from servetune.deploy.exporters import banner
from servetune.deploy.exporters.alerts import selector
from servetune.deploy.exporters.deployment import Deployment, ExportedSlo

WIDTH, HEIGHT = 12, 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard(deployment: Deployment) -> dict[str, Any]:
    """Dashboard as Grafana 10 and later import it; the banner is its description."""
    drawn = [_latency(deployment, slo) for slo in deployment.slos] + _load(deployment)
    panels = [{**panel, "id": i + 1, "gridPos": _place(i)} for i, panel in enumerate(drawn)]
    return {
        "description": " ".join(banner(deployment)),
        "title": f"servetune {deployment.name}",
        "uid": deployment.name[:40],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "tags": ["servetune"],
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }


def _latency(deployment: Deployment, slo: ExportedSlo) -> dict[str, Any]:
    buckets = f"sum by (le) (rate({slo.series}_bucket{selector(deployment)}[5m]))"
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if slo.regression_s is not None and slo.regression_s < slo.limit_s:
        steps.append({"color": "yellow", "value": round(slo.regression_s, 6)})
    steps.append({"color": "red", "value": slo.limit_s})
    said = f", measured {slo.measured_s:.4g} s" if slo.measured_s is not None else ""
    title = f"{slo.metric.upper()} p{slo.percentile:g}: SLO {slo.limit_s:g} s{said}"
    query = f"histogram_quantile({slo.percentile / 100:g}, {buckets})"
    return _panel(title, [("live", query)], "s", steps)


def _load(deployment: Deployment) -> list[dict[str, Any]]:
    own = selector(deployment)
    rate = f"sum(rate(vllm:request_success_total{own}[5m])) / count(vllm:num_requests_running{own})"
    safe: list[dict[str, Any]] = [{"color": "green", "value": None}]
    title = "Requests per second and replica"
    if deployment.safe_rate:
        safe.append({"color": "red", "value": round(deployment.safe_rate, 6)})
        title += f": safe up to {deployment.safe_rate:.4g}"
    plain: list[dict[str, Any]] = [{"color": "green", "value": None}]
    reasons = f"sum by (finished_reason) (rate(vllm:request_success_total{own}[5m]))"
    tokens = [("in", "prompt_tokens"), ("out", "generation_tokens")]
    return [
        _panel(title, [("requests", rate)], "reqps", safe),
        _panel(
            "Requests running and waiting",
            [(n, f"sum(vllm:num_requests_{n}{own})") for n in ("running", "waiting")],
            "short",
            plain,
        ),
        _panel("KV cache in use", [("share", f"max(vllm:kv_cache_usage_perc{own})")], "percentunit", plain),
        _panel("Requests by how they ended", [("{{finished_reason}}", reasons)], "reqps", plain),
        _panel(
            "Tokens per second",
            [(n, f"sum(rate(vllm:{m}_total{own}[5m]))") for n, m in tokens],
            "short",
            plain,
        ),
    ]


def _panel(
    title: str, queries: list[tuple[str, str]], unit: str, steps: list[dict[str, Any]]
) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": expr, "legendFormat": name}
        for i, (name, expr) in enumerate(queries)
    ]
    line = {"thresholdsStyle": {"mode": "line"}}
    defaults = {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}, "custom": line}
    return {
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
    }


def _place(index: int) -> dict[str, int]:
    return {"x": WIDTH * (index % 2), "y": HEIGHT * (index // 2), "w": WIDTH, "h": HEIGHT}
