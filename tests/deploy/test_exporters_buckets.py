"""Alerts and canary on the histogram that a vLLM release really has: judged by promtool, not by the text."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from servetune.deploy.exporters import render, write
from servetune.deploy.exporters.alerts import alerts, selector
from servetune.deploy.exporters.canary import test_size as size_of_test
from servetune.deploy.exporters.deployment import METRIC_NAMES, Deployment, ExportedSlo, Latency
from serving.install import environments
from tests.support.export_fixture import ALL, PLAIN, UNMEASURED, tool

OWN: dict[str, tuple[float, ...]] = {
    "ttft": (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
             40.0, 80.0, 160.0, 640.0, 2560.0),
    "tpot": (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
             80.0),
    "e2e": (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
            960.0, 1920.0, 7680.0),
}  # fmt: skip
"""Read from the wheels 0.20.2, 0.24.0, 0.28.0, 0.31.0 and 0.32.0, where they are the same."""
OWN["itl"] = OWN["tpot"]
FAMILY = {"ttft": "time_to_first_token", "tpot": "inter_token_latency", "itl": "inter_token_latency"}
WITHOUT, WITH = "0.24.0", "0.32.0"
MINUTES = 60
VERSIONS = pytest.mark.parametrize("version", [WITHOUT, "0.31.0", WITH])

PROMISES = {
    "measured below the next bucket": ExportedSlo("ttft", 99, 0.3, 0.21, 0.23),
    "on a bucket": ExportedSlo("ttft", 95, 0.5, 0.21, 0.23),
    "measured in the bucket of the limit": ExportedSlo("ttft", 99, 0.2, 0.15, 0.16),
    "limit near the upper end of its bucket": ExportedSlo("ttft", 99, 0.245, 0.2, 0.21),
    "below the first bucket": ExportedSlo("tpot", 99, 0.008, 0.006, 0.0065),
    "tight": ExportedSlo("tpot", 95, 0.02, 0.018, 0.019),
    "median": ExportedSlo("e2e", 50, 4.0, 3.0, 3.1),
    "above the last bucket": ExportedSlo("itl", 99, 100.0, 30.0, 35.0),
    "not measured": ExportedSlo("e2e", 99.9, 12.0),
}


def bounds(deployment: Deployment, metric: str) -> tuple[float, ...]:
    """What the server says it has: its own, unless the exported serve.yaml gives it others."""
    asked = yaml.safe_load(render(deployment, "vllm")["serve.yaml"]).get("custom-histogram-buckets", {})
    return tuple(asked.get(FAMILY.get(metric, "request_latency"), OWN[metric]))


def served(
    deployment: Deployment, metric: Latency, value_s: float, per_minute: int, minutes: int, labels: str = ""
) -> list[dict[str, str]]:
    """Series of a server whose every request takes `value_s`."""
    own, name = selector(deployment)[:-1] + labels, METRIC_NAMES[metric]
    flows = {f"{name}_count{own}}}": float(per_minute), f"{name}_sum{own}}}": per_minute * value_s}
    for b in bounds(deployment, metric):
        flows[f'{name}_bucket{own},le="{float(b)!r}"}}'] = per_minute if value_s <= b else 0.0
    flows[f'{name}_bucket{own},le="+Inf"}}'] = float(per_minute)
    flows[f'vllm:request_success_total{own},finished_reason="stop"}}'] = 30.0
    series = [{"series": s, "values": f"0+{flow:.9g}x{minutes}"} for s, flow in flows.items()]
    return [*series, {"series": f"vllm:num_requests_running{own}}}", "values": f"1x{minutes}"}]


def promtool(folder: Path, tests: list[dict[str, Any]], deployment: Deployment) -> str:
    """What `promtool test rules` says; empty when all is as expected."""
    rules = render(deployment, "delivery")["alerts/rules.yaml"]
    (folder / "rules.yaml").write_text(rules)
    content = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "test.yaml").write_text(yaml.safe_dump(content))
    command = [tool("promtool"), "test", "rules", "test.yaml"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return "" if run.returncode == 0 else run.stdout + run.stderr


def latency_alerts(deployment: Deployment, slo: ExportedSlo, value_s: float, fire: bool) -> dict[str, Any]:
    expected = []
    for alert in alerts(deployment):
        if "Burn" in alert.name or "Regression" in alert.name:
            fired = {
                "exp_labels": {"severity": alert.severity},
                "exp_annotations": {"summary": alert.summary},
            }
            expected.append(
                {
                    "eval_time": f"{MINUTES - 5}m",
                    "alertname": alert.name,
                    "exp_alerts": [fired] if fire else [],
                }
            )
    assert expected
    series = served(deployment, slo.metric, value_s, 600, MINUTES)
    return {"name": f"{value_s} s", "interval": "1m", "input_series": series, "alert_rule_test": expected}


@pytest.mark.parametrize("version", [WITHOUT, WITH])
@pytest.mark.parametrize("promise", PROMISES)
def test_alerts_fire_above_the_limit_and_stay_quiet_below(version: str, promise: str, tmp_path: Path) -> None:
    """All of them with every request above the higher limit; none at what was measured, nor far below."""
    slo = PROMISES[promise]
    deployment = replace(PLAIN, version=version, slos=(slo,))
    least = 1.01 * max(slo.limit_s, slo.regression_s or 0)
    slow = [latency_alerts(deployment, slo, value_s, True) for value_s in (least, 10 * least)]
    well = [latency_alerts(deployment, slo, s, False) for s in (slo.limit_s / 10, slo.measured_s or 0.001)]
    assert promtool(tmp_path, [*slow, *well], deployment) == ""


@VERSIONS
@pytest.mark.parametrize("name", ["plain", "cpu", "unmeasured"])
def test_the_exported_rule_tests_pass(version: str, name: str, tmp_path: Path) -> None:
    write(render(replace(ALL[name], version=version), "delivery"), tmp_path / "d")
    command = [tool("promtool"), "test", "rules", "rules_test.yaml"]
    run = subprocess.run(command, cwd=tmp_path / "d" / "alerts", capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@VERSIONS
def test_the_exported_rule_tests_feed_the_servers_own_buckets(version: str) -> None:
    deployment = replace(PLAIN, version=version)
    tests = yaml.safe_load(render(deployment, "delivery")["alerts/rules_test.yaml"])["tests"]
    fed: dict[str, set[float]] = {}
    for series in (s["series"] for t in tests for s in t["input_series"]):
        found = re.match(r'(vllm:\w+)_bucket\{.*le="([\d.]+)"\}', series)
        if found:
            fed.setdefault(found[1], set()).add(float(found[2]))
    assert fed == {METRIC_NAMES[m]: set(bounds(deployment, m)) for m in ("ttft", "tpot", "e2e")}


@settings(deadline=None, max_examples=40)
@given(
    metric=st.sampled_from(["ttft", "tpot", "itl", "e2e"]),
    percentile=st.sampled_from([50, 95, 99]),
    limit=st.floats(1e-4, 1e4),
    share=st.floats(0.01, 1.5),
)
def test_no_query_names_a_bucket_that_is_not_there(
    metric: Latency, percentile: int, limit: float, share: float
) -> None:
    deployment = replace(
        PLAIN, version=WITHOUT, slos=(ExportedSlo(metric, percentile, limit, share * limit),)
    )
    rules = yaml.safe_load(render(deployment, "delivery")["alerts/rules.yaml"])["groups"][0]["rules"]
    template = list(yaml.safe_load_all(render(deployment, "delivery")["rollout.yaml"]))[1]
    queries = [r["expr"] for r in rules]
    queries += [m["provider"]["prometheus"]["query"] for m in template["spec"]["metrics"]]
    asked = [float(b) for b in re.findall(r'le="([^"]+)"', " ".join(queries))]
    assert asked
    assert set(asked) <= set(OWN[metric])
    burns = [r["annotations"]["summary"] for r in rules if "Burn" in r["alert"]]
    assert ["no bucket" in summary for summary in burns] == [limit not in OWN[metric]] * 2


@VERSIONS
def test_files_say_where_another_bucket_counts(version: str) -> None:
    """In the alert that somebody is woken by, and on the analysis; nothing where the limit is a bucket."""
    files = render(replace(PLAIN, version=version, slos=(PROMISES["tight"],)), "delivery")
    said = "vLLM has no bucket at 0.02 s: counted above 0.025 s, and above 0.01 s while the mean"
    assert (said in files["alerts/rules.yaml"]) == (version != WITH)
    assert (said in files["rollout.yaml"]) == (version != WITH)


HASH = ',rollouts_pod_template_hash="abc"'


def verdicts(deployment: Deployment, series: list[dict[str, str]], folder: Path) -> dict[str, str]:
    """Metric of the analysis -> Successful, Failed or Inconclusive, by its own conditions and a real query."""
    template = list(yaml.safe_load_all(render(deployment, "delivery")["rollout.yaml"]))[1]
    asked: dict[tuple[str, str], str] = {}
    for metric in template["spec"]["metrics"]:
        query = metric["provider"]["prometheus"]["query"]
        query = query.replace("{{args.canary-hash}}", "abc").replace("{{args.window}}", "3600s")
        for verdict, key in (("Failed", "failureCondition"), ("Successful", "successCondition")):
            known, condition = metric[key].split(" && result[0] ")
            assert known == "len(result) > 0 && !isNaN(result[0])"
            asked[metric["name"], verdict] = f"count(({query}) {condition})"
    one = [{"labels": "{}", "value": 1}]
    checks = [{"expr": e, "eval_time": "70m", "exp_samples": one} for e in asked.values()]
    said = promtool(
        folder, [{"interval": "1m", "input_series": series, "promql_expr_test": checks}], deployment
    )
    wrong = {e for e in asked.values() if f"expr: {json.dumps(e)}" in said}
    assert len(wrong) == said.count("expr: ")
    found = {name: "Inconclusive" for name, _ in asked}
    return found | {name: verdict for (name, verdict), e in asked.items() if e not in wrong}


def canary(
    deployment: Deployment, value_s: float = 0.01, stop: int = 20, error: int = 0, http: str = "2xx"
) -> list[dict[str, str]]:
    """Series of a canary: `stop` good and `error` bad requests a minute, all answered with `http`."""
    own = selector(deployment)[:-1] + HASH
    found: dict[str, str] = {}
    for slo in deployment.slos:
        found |= {s["series"]: s["values"] for s in served(deployment, slo.metric, value_s, 20, 80, HASH)}
    found[f'vllm:request_success_total{own},finished_reason="stop"}}'] = f"0+{stop}x80"
    found[f'vllm:request_success_total{own},finished_reason="error"}}'] = f"0+{error}x80"
    found[f"vllm:num_requests_running{own}}}"] = "1x80"
    labels = f'{{job="{deployment.name}"{HASH},handler="/v1/chat/completions",status="{http}"}}'
    found[f"http_requests_total{labels}"] = f"20+{stop + error}x80"
    return [{"series": s, "values": v} for s, v in found.items()]


ERRORS = ("errors", "http-errors", "reports-nothing")


@pytest.mark.parametrize(
    "deployment", [PLAIN, UNMEASURED, replace(PLAIN, slos=())], ids=["slos", "none", "rate"]
)
def test_every_canary_is_held_to_its_errors(deployment: Deployment, tmp_path: Path) -> None:
    def of(series: list[dict[str, str]]) -> dict[str, str]:
        judged = verdicts(deployment, series, tmp_path)
        return {name: judged[name] for name in ERRORS}

    well = dict.fromkeys(ERRORS, "Successful")
    assert of(canary(deployment)) == well
    assert of(canary(deployment, error=1)) == {**well, "errors": "Failed"}
    assert of(canary(deployment, http="5xx")) == {**well, "http-errors": "Failed"}
    silent = of([])
    assert silent["reports-nothing"] == "Failed"
    assert silent["errors"] == "Inconclusive"


def test_few_requests_are_no_verdict_but_many_errors_among_them_are(tmp_path: Path) -> None:
    few = replace(PLAIN, slos=())
    assert size_of_test(0.01).requests > 60
    assert verdicts(few, canary(few, stop=1), tmp_path)["errors"] == "Inconclusive"
    assert verdicts(few, canary(few, stop=0, error=1), tmp_path)["errors"] == "Failed"


@pytest.mark.parametrize("promise", PROMISES)
def test_the_canary_is_judged_without_the_flag(promise: str, tmp_path: Path) -> None:
    """Before: an empty answer, so that each step waited for a person."""
    slo = replace(PROMISES[promise], percentile=95)
    deployment = replace(PLAIN, version=WITHOUT, slos=(slo,))
    name = slo.name.replace("_", "-")
    for value_s, verdict in ((1.01 * slo.limit_s, "Failed"), (slo.measured_s or 0.001, "Successful")):
        assert verdicts(deployment, canary(deployment, value_s), tmp_path)[name] == verdict, value_s


def test_every_step_is_analysed() -> None:
    """Also where no rate was measured: the step then waits for a person first."""
    for deployment in (PLAIN, UNMEASURED, replace(PLAIN, slos=())):
        rollout = next(yaml.safe_load_all(render(deployment, "delivery")["rollout.yaml"]))
        steps = rollout["spec"]["strategy"]["canary"]["steps"]
        assert [next(iter(s)) for s in steps] == ["setWeight", "pause", "analysis"] * 3
        timed = all("duration" in s["pause"] for s in steps if "pause" in s)
        assert timed == (deployment.safe_rate is not None)


def test_these_are_the_buckets_of_the_pinned_engine() -> None:
    found = [e for e in environments.environments("vllm") if e.installed and e.version == PLAIN.version]
    if not found:
        pytest.skip(f"not checked: vllm {PLAIN.version} is not installed (make engines)")
    packages = found[0].folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    source = runpy.run_path(str(packages / "vllm" / "v1" / "metrics" / "buckets.py"))
    names = {"ttft": "TIME_TO_FIRST_TOKEN", "tpot": "INTER_TOKEN_LATENCY", "e2e": "REQUEST_LATENCY"}
    assert {m: source[f"{n}_BUCKETS"] for m, n in names.items()} == {m: OWN[m] for m in names}
