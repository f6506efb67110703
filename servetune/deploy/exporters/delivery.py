"""Target `delivery`: canary, autoscaling, alerts with tests, dashboard, capture of failing requests.

It is applied on top of target `kubernetes`: the Rollout takes the Deployment over by reference, and the
HTTPRoute replaces the one of the production overlay, now with a stable and a canary service behind it.
"""

from __future__ import annotations

from typing import Any

from servetune.deploy.exporters import alerts, histogram, kubernetes, placed
from servetune.deploy.exporters.alerts import selector
from servetune.deploy.exporters.analysis import PROMETHEUS, analysis
from servetune.deploy.exporters.canary import WEIGHTS, pause_s, test_size
from servetune.deploy.exporters.dashboard import dashboard
from servetune.deploy.exporters.deployment import Deployment, ExportedSlo
from servetune.deploy.exporters.pod import PORT, Json
from servetune.deploy.quoting import json_text, seconds, yaml_text

HEADROOM = 0.8
"""Scale out at this share of the measured concurrency, for a replica takes its cold start to come."""
UNTIMED_S = 3600
"""What an analysis looks back on where no measured rate says how long its requests take to come."""


def files(deployment: Deployment) -> dict[str, str]:
    """Objects at the top, so that `kubectl apply -f` takes the folder; what is none lies in folders below."""
    objects = {
        "rollout.yaml": [rollout(deployment), analysis(deployment)],
        "services.yaml": [_service(deployment, role) for role in ("stable", "canary")],
        "httproute.yaml": [route(deployment)],
        "servicemonitor.yaml": [service_monitor(deployment)],
        "prometheusrule.yaml": [prometheus_rule(deployment)],
    }
    scaling = scaled_object(deployment)
    if scaling:
        objects["scaledobject.yaml"] = [scaling]
    found = {p: yaml_text(*(placed.placed(deployment, o) for o in many)) for p, many in objects.items()}
    return found | {
        "alerts/rules.yaml": yaml_text({"groups": alerts.groups(deployment)}),
        "alerts/rules_test.yaml": yaml_text(rule_tests(deployment)),
        "grafana/dashboard.json": json_text(dashboard(deployment)),
        "capture/otel-collector.yaml": yaml_text(collector(deployment)),
    }


def whole(deployment: Deployment, *, beside: bool) -> dict[str, str]:
    """The delivery with the engine that it delivers, for `kubectl apply -f` of one folder.

    Over a deployment of the same name the Job and the claim stay out, which cannot be changed once they are
    there; `beside` another one they are needed, and so is a namespace.
    """
    engine = placed.engine(deployment)
    job = {"model/model-job.yaml": placed.model_job(deployment)}
    if beside:
        name = placed.namespace(deployment)
        engine["00-namespace.yaml"] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        engine["model-volume.yaml"] = placed.volume(deployment)
        job = {"model-job.yaml": placed.model_job(deployment)}
    made = {p: yaml_text(*(o if isinstance(o, list) else [o])) for p, o in (engine | job).items()}
    return files(deployment) | made


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


def route(deployment: Deployment) -> Json:
    """The base's route with two weighted services behind it; Argo moves the weights."""
    found = kubernetes.route(deployment)
    stable = {"name": f"{deployment.name}-stable", "port": PORT, "weight": 100}
    canary = {"name": f"{deployment.name}-canary", "port": PORT, "weight": 0}
    found["spec"]["rules"][0]["backendRefs"] = [stable, canary]
    found["spec"] = {"hostnames": [placed.hostname(deployment)], **found["spec"]}
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
            # Without metrics: never fewer than there are, for they are there because of the load.
            "fallback": {
                "failureThreshold": 3,
                "replicas": deployment.replicas,
                "behavior": "currentReplicasIfHigher",
            },
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


def _healthy_s(slo: ExportedSlo) -> float:
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
