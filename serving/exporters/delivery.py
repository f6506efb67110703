"""Target `delivery`: canary, autoscaling, alerts with tests, dashboard, capture of failing requests.

It is applied on top of target `kubernetes`: the Rollout takes the Deployment over by reference, and the
HTTPRoute replaces the one of the base, now with a stable and a canary service behind it.
"""

from __future__ import annotations

from typing import Any

from serving.exporters import alerts, histogram, kubernetes
from serving.exporters.alerts import selector
from serving.exporters.canary import WEIGHTS, SampleTest, pause_s, test_size
from serving.exporters.dashboard import dashboard
from serving.exporters.deployment import Deployment, Slo
from serving.exporters.pod import PORT, Json
from serving.exporters.quoting import json_text, seconds, yaml_text

PROMETHEUS = "http://prometheus-operated.monitoring.svc:9090"
HEADROOM = 0.8
"""Scale out at this share of the measured concurrency, for a replica takes its cold start to come."""
POD_HASH = "rollouts_pod_template_hash"
WINDOW = "{{args.window}}"
UNTIMED_S = 3600
"""What an analysis looks back on where no measured rate says how long its requests take to come."""


def files(deployment: Deployment) -> dict[str, str]:
    found = {
        "rollout.yaml": yaml_text(rollout(deployment), analysis(deployment)),
        "services.yaml": yaml_text(*(_service(deployment, role) for role in ("stable", "canary"))),
        "httproute.yaml": yaml_text(route(deployment)),
        "servicemonitor.yaml": yaml_text(service_monitor(deployment)),
        "prometheusrule.yaml": yaml_text(prometheus_rule(deployment)),
        "alerts/rules.yaml": yaml_text({"groups": alerts.groups(deployment)}),
        "alerts/rules_test.yaml": yaml_text(rule_tests(deployment)),
        "dashboard.json": json_text(dashboard(deployment)),
        "capture/otel-collector.yaml": yaml_text(collector(deployment)),
    }
    scaling = scaled_object(deployment)
    return found | ({"scaledobject.yaml": yaml_text(scaling)} if scaling else {})


def rollout(deployment: Deployment) -> Json:
    name = deployment.name
    plugin = {"argoproj-labs/gatewayAPI": {"httpRoute": name}}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": name, "labels": deployment.labels},
        "spec": {
            "replicas": deployment.replicas,
            "selector": {"matchLabels": kubernetes.selector(deployment)},
            "workloadRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": name,
                "scaleDown": "progressively",
            },
            "progressDeadlineSeconds": deployment.startup_budget_s + 300,
            "progressDeadlineAbort": True,
            "rollbackWindow": {"revisions": 2},
            "strategy": {
                "canary": {
                    "stableService": f"{name}-stable",
                    "canaryService": f"{name}-canary",
                    "abortScaleDownDelaySeconds": deployment.grace_s,
                    "trafficRouting": {"plugins": plugin},
                    "steps": steps(deployment),
                }
            },
        },
    }


def steps(deployment: Deployment) -> list[Json]:
    """Weight, pause, analysis. Each pause lasts until the analysis has the requests its test needs; where no
    rate was measured it lasts until somebody says go, and the analysis looks back an hour."""
    budgets = [alerts.ERROR_BUDGET, *(slo.budget for slo in deployment.slos)]
    needed = max(test_size(budget).requests for budget in budgets)
    found: list[Json] = []
    for weight in WEIGHTS:
        found.append({"setWeight": weight})
        if deployment.safe_rate:
            pause = pause_s(needed, weight, deployment.safe_rate, deployment.replicas)
            found.append({"pause": {"duration": f"{pause}s"}})
        else:
            pause = UNTIMED_S
            found.append({"pause": {}})
        window = [{"name": "window", "value": f"{pause}s"}]
        latest = [{"name": "canary-hash", "valueFrom": {"podTemplateHashValue": "Latest"}}]
        found.append(
            {"analysis": {"templates": [{"templateName": deployment.name}], "args": latest + window}}
        )
    return found


def analysis(deployment: Deployment) -> Json:
    """Both conditions are given: an empty or NaN answer is then inconclusive, which pauses for a person,
    while a success condition alone would call it failed. Errors are looked for whatever the SLOs say: fast
    answers that fail are fast."""
    counts = {slo.name.replace("_", "-"): _counted(deployment, slo) for slo in deployment.slos}
    notes = "; ".join(f"{name}{counted.note}" for name, counted in counts.items() if counted.note)
    said = {"annotations": {"servetune.dev/buckets": notes}} if notes else {}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AnalysisTemplate",
        "metadata": {"name": deployment.name, "labels": deployment.labels, **said},
        "spec": {
            "args": [{"name": "canary-hash"}, {"name": "window"}],
            "metrics": [
                *(_metric(deployment, slo, test_size(slo.budget)) for slo in deployment.slos),
                _errors(deployment),
                _http_errors(deployment),
                _silent(deployment),
            ],
        },
    }


def _counted(deployment: Deployment, slo: Slo) -> histogram.Count:
    return histogram.count(deployment, slo, slo.limit_s)


def _of_canary(labels: str) -> str:
    """A selector without its closing brace, of the canary's pods alone."""
    return labels[:-1] + f',{POD_HASH}="{{{{args.canary-hash}}}}"'


def _metric(deployment: Deployment, slo: Slo, test: SampleTest) -> Json:
    own = _of_canary(selector(deployment))
    count = f"sum(increase({slo.series}_count{own}}}[{WINDOW}]))"
    slow = histogram.slow_share(_counted(deployment, slo), slo.series, own, WINDOW, "increase")
    query = f"{slow} and {count} >= {test.requests}"
    return {"name": slo.name.replace("_", "-"), **_measured(query, f"{test.share:.6g}")}


def _errors(deployment: Deployment) -> Json:
    """Requests that the engine ended in an error or an abort."""
    own, name = _of_canary(selector(deployment)), "vllm:request_success_total"
    bad = f'sum(increase({name}{own},finished_reason=~"error|abort"}}[{WINDOW}]))'
    return _failing("errors", bad, f"sum(increase({name}{own}}}[{WINDOW}]))")


def _http_errors(deployment: Deployment) -> Json:
    """Answers 5xx, which may never reach the engine's own count. Their series begins with the first of them,
    where increase() sees no step; a canary's counters begin at nought, so their value is the count."""
    own = _of_canary(alerts.labels({"job": deployment.name})) + ',handler!="/v1/models"'
    name = "http_requests_total"
    bad, every = (f"sum(max_over_time({name}{own}{more}}}[{WINDOW}]))" for more in (',status="5xx"', ""))
    return _failing("http-errors", bad, every)


def _failing(name: str, bad: str, every: str) -> Json:
    """Fails as soon as there are more bad ones than the test allows of all its requests; passes once it has
    seen as many; until then there is no answer."""
    test = test_size(alerts.ERROR_BUDGET)
    limit, bad = f"{test.share:.6g}", f"({bad} or vector(0))"
    early = f"{bad} / clamp_min({every}, {test.requests}) > {limit}"
    query = f"({early}) or ({bad} / {every} and {every} >= {test.requests})"
    return {"name": name, **_measured(query, limit)}


def _silent(deployment: Deployment) -> Json:
    """A canary that reports nothing is not well: 1 when no pod of it has a metric, which fails the step."""
    alive = f"count(vllm:num_requests_running{_of_canary(selector(deployment))}}})"
    return {"name": "reports-nothing", **_measured(f"({alive} or vector(0)) < bool 1", "0")}


def _measured(query: str, limit: str) -> Json:
    known = "len(result) > 0 && !isNaN(result[0])"
    return {
        "count": 1,
        "failureLimit": 0,
        "inconclusiveLimit": 0,
        "successCondition": f"{known} && result[0] <= {limit}",
        "failureCondition": f"{known} && result[0] > {limit}",
        "provider": {"prometheus": {"address": PROMETHEUS, "query": query}},
    }


def route(deployment: Deployment) -> Json:
    """The base's route with two weighted services behind it; Argo moves the weights."""
    found = kubernetes.route(deployment)
    stable = {"name": f"{deployment.name}-stable", "port": PORT, "weight": 100}
    canary = {"name": f"{deployment.name}-canary", "port": PORT, "weight": 0}
    found["spec"]["rules"][0]["backendRefs"] = [stable, canary]
    return found


def scaled_object(deployment: Deployment) -> Json | None:
    """Scales on requests in flight, which the load causes; GPU use and memory stay high whatever happens."""
    own = selector(deployment)
    if deployment.concurrency:
        query = f"sum(vllm:num_requests_running{own}) + sum(vllm:num_requests_waiting{own})"
        threshold = HEADROOM * deployment.concurrency
    elif deployment.safe_rate:
        query = f"sum(rate(vllm:request_success_total{own}[2m]))"
        threshold = HEADROOM * deployment.safe_rate
    else:
        return None
    trigger = {
        "serverAddress": PROMETHEUS,
        "query": query,
        "threshold": f"{threshold:.6g}",
        "ignoreNullValues": "false",
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": deployment.name, "labels": deployment.labels},
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "argoproj.io/v1alpha1",
                "kind": "Rollout",
                "name": deployment.name,
            },
            "minReplicaCount": deployment.replicas,
            "maxReplicaCount": deployment.max_replicas,
            "pollingInterval": 15,
            "cooldownPeriod": max(300, 3 * deployment.startup_budget_s),
            "fallback": {"failureThreshold": 3, "replicas": deployment.replicas},
            "triggers": [{"type": "prometheus", "metricType": "AverageValue", "metadata": trigger}],
        },
    }


def service_monitor(deployment: Deployment) -> Json:
    labels = {"matchLabels": {**kubernetes.selector(deployment), **kubernetes.SCRAPED}}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": deployment.name, "labels": deployment.labels},
        "spec": {
            "jobLabel": "app.kubernetes.io/name",
            "podTargetLabels": ["rollouts-pod-template-hash"],
            "selector": labels,
            "endpoints": [{"port": "http", "path": "/metrics", "interval": "15s"}],
        },
    }


def prometheus_rule(deployment: Deployment) -> Json:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": deployment.name, "labels": deployment.labels},
        "spec": {"groups": alerts.groups(deployment)},
    }


def rule_tests(deployment: Deployment) -> dict[str, Any]:
    """For `promtool test rules`: every alert fires on its own series, and none on a healthy service."""
    found = alerts.alerts(deployment)
    tests = [_fires(alert) for alert in found] + [_quiet(deployment, found)]
    return {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}


def _fires(alert: alerts.Alert) -> dict[str, Any]:
    labels = {"severity": alert.severity, **alert.labels}
    expected = {"exp_labels": labels, "exp_annotations": {"summary": alert.summary}}
    return {
        "name": f"{alert.name} fires",
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in alert.fires_on],
        "alert_rule_test": [
            {"eval_time": seconds(alert.after_s), "alertname": alert.name, "exp_alerts": [expected]}
        ],
    }


def _quiet(deployment: Deployment, found: list[alerts.Alert]) -> dict[str, Any]:
    """Fast answers at half the safe rate, nothing waiting, nothing failing: an hour of it."""
    minutes, rate = 60, max(1, round(30 * (deployment.safe_rate or 1)))
    own = selector(deployment)
    series = {
        f"vllm:num_requests_running{own}": f"1x{minutes}",
        f"vllm:num_requests_waiting{own}": f"0x{minutes}",
        f"vllm:kv_cache_usage_perc{own}": f"0.01x{minutes}",
        f"vllm:request_success_total{selector(deployment, finished_reason='stop')}": f"0+{rate}x{minutes}",
        f"vllm:request_success_total{selector(deployment, finished_reason='error')}": f"0x{minutes}",
    }
    if deployment.cache_labels:
        labels = alerts.labels({"job": deployment.name, **deployment.cache_labels})
        series[f"vllm:cache_config_info{labels}"] = f"1x{minutes}"
    for slo in deployment.slos:
        same = [s for s in deployment.slos if s.metric == slo.metric]
        series |= dict(
            histogram.observed(deployment, slo, own[:-1], min(map(_healthy_s, same)), rate, minutes)
        )
    checks = [
        {"eval_time": seconds(60.0 * (minutes - 5)), "alertname": a.name, "exp_alerts": []} for a in found
    ]
    return {
        "name": "no alert on a healthy service",
        "interval": "1m",
        "input_series": [{"series": s, "values": v} for s, v in series.items()],
        "alert_rule_test": checks,
    }


def _healthy_s(slo: Slo) -> float:
    """What was measured, where that kept the promise; half the limit otherwise."""
    measured = slo.measured_s
    return measured if measured is not None and measured < slo.limit_s else slo.limit_s / 2


def collector(deployment: Deployment) -> Json:
    """OpenTelemetry collector that keeps the traces of failing and slow requests, to become scenarios again.

    vLLM's spans carry lengths, parameters and times, no text; attributes that could hold text are removed
    all the same. Kept for a week in files of at most 100 MB. vLLM needs --otlp-traces-endpoint for it.
    """
    slow = [slo.limit_s for slo in deployment.slos if slo.metric == "e2e"]
    limit_ms = round(1000 * min(slow, default=deployment.worst_request_s))
    policies = [
        {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
        {"name": "slow", "type": "latency", "latency": {"threshold_ms": limit_ms}},
    ]
    texts = ["gen_ai.prompt", "gen_ai.completion", "gen_ai.input.messages", "gen_ai.output.messages"]
    removed = [{"key": key, "action": "delete"} for key in texts]
    rotation = {"max_megabytes": 100, "max_days": 7, "max_backups": 20}
    traces = {"receivers": ["otlp"], "processors": ["attributes", "tail_sampling"], "exporters": ["file"]}
    return {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": "127.0.0.1:4317"}}}},
        "processors": {
            "attributes": {"actions": removed},
            "tail_sampling": {"decision_wait": seconds(2 * limit_ms / 1000), "policies": policies},
        },
        "exporters": {"file": {"path": "/var/lib/otelcol/failing.jsonl", "rotation": rotation}},
        "service": {"pipelines": {"traces": traces}},
    }


def _service(deployment: Deployment, role: str) -> Json:
    return kubernetes.service(deployment, f"{deployment.name}-{role}")
