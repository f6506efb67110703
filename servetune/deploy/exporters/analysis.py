"""What a canary step is judged by: the SLOs, and errors whatever the SLOs say."""

from __future__ import annotations

from servetune.deploy.exporters import alerts, histogram
from servetune.deploy.exporters.alerts import selector
from servetune.deploy.exporters.canary import SampleTest, test_size
from servetune.deploy.exporters.deployment import Deployment, ExportedSlo
from servetune.deploy.exporters.pod import Json

PROMETHEUS = "http://prometheus-operated.monitoring.svc:9090"
POD_HASH = "rollouts_pod_template_hash"
WINDOW = "{{args.window}}"


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


def _counted(deployment: Deployment, slo: ExportedSlo) -> histogram.Count:
    return histogram.count(deployment, slo, slo.limit_s)


def _of_canary(labels: str) -> str:
    """A selector without its closing brace, of the canary's pods alone."""
    return labels[:-1] + f',{POD_HASH}="{{{{args.canary-hash}}}}"'


def _metric(deployment: Deployment, slo: ExportedSlo, test: SampleTest) -> Json:
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
