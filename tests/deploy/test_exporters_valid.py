"""The real tools read every export: Kubernetes schemas, CRDs, kustomize, compose, systemd, promtool, vLLM."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from servetune.deploy.exporters import render, write
from servetune.deploy.exporters.vllm import arguments, serve, settings
from serving.install import environments
from tests.support.export_fixture import ALL, CRDS, HOSTILE, PLAIN, tool

VERSIONS = ("1.30", "1.37")
CORE = frozenset({"v1", "apps/v1", "batch/v1", "policy/v1", "networking.k8s.io/v1"})
NAMES = pytest.mark.parametrize("name", ALL)
METRIC = re.compile(r"vllm:([a-z_]+)")


def rendered(name: str, target: str) -> dict[str, str]:
    return render(ALL[name], target, allow_undeployable=True)


def manifests(name: str) -> list[dict[str, Any]]:
    """Every Kubernetes object of every target."""
    found = []
    for target in ("kubernetes", "kserve", "ray", "delivery"):
        for path, text in rendered(name, target).items():
            if path.endswith(".yaml"):
                found += [d for d in yaml.safe_load_all(text) if isinstance(d, dict) and "apiVersion" in d]
    return [d for d in found if d["kind"] != "Kustomization"]


def expressions(name: str) -> list[str]:
    """Every PromQL expression, with Argo's arguments and Grafana's variables filled in."""
    files = rendered(name, "delivery")
    rules = yaml.safe_load(files["alerts/rules.yaml"])["groups"][0]["rules"]
    found = [rule["expr"] for rule in rules]
    found += [t["expr"] for p in json.loads(files["grafana/dashboard.json"])["panels"] for t in p["targets"]]
    analysis = list(yaml.safe_load_all(files["rollout.yaml"]))[1]
    found += [m["provider"]["prometheus"]["query"] for m in analysis["spec"]["metrics"]]
    if "scaledobject.yaml" in files:
        found += [
            t["metadata"]["query"] for t in yaml.safe_load(files["scaledobject.yaml"])["spec"]["triggers"]
        ]
    return [e.replace("{{args.canary-hash}}", "abc").replace("{{args.window}}", "300s") for e in found]


@NAMES
@pytest.mark.parametrize("version", VERSIONS)
def test_core_objects_are_valid_kubernetes(name: str, version: str) -> None:
    import kubernetes_validate

    checked = 0
    for found in manifests(name):
        if found["apiVersion"] in CORE:
            kubernetes_validate.validate(found, version, strict=True)
            checked += 1
    assert checked >= 10


def test_the_kubernetes_check_finds_a_mistake() -> None:
    import kubernetes_validate

    wrong = next(d for d in manifests("plain") if d["kind"] == "Deployment")
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


@cache
def crd(kind: str, version: str) -> dict[str, Any]:
    """Schema of a kind with unknown keys forbidden, which the API server would drop without a word."""
    if not CRDS.is_dir():
        pytest.skip(f"not checked: {CRDS.name} schemas are not beside this checkout")
    for file in CRDS.glob("*_*.json"):
        found = json.loads(file.read_text())
        if found["kind"] == kind:
            schema = found["versions"][version]
            return strict(schema.get("openAPIV3Schema", schema))
    raise AssertionError(f"no schema of {kind}")


def strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [strict(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    made = {k: strict(v) for k, v in schema.items()}
    closed = "properties" in made and not made.get("x-kubernetes-preserve-unknown-fields")
    if closed and "additionalProperties" not in made:
        made["additionalProperties"] = False
    if made.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    if isinstance(made.get("pattern"), str):
        made["pattern"] = made["pattern"].replace("^(?i)", "(?i)^")  # Go takes the flag anywhere
    return made


@NAMES
def test_custom_objects_are_valid_by_their_crds(name: str) -> None:
    import jsonschema

    kinds = set()
    for found in manifests(name):
        if found["apiVersion"] in CORE:
            continue
        schema = crd(found["kind"], found["apiVersion"].rpartition("/")[2])
        properties = {"apiVersion": {}, "kind": {}, "metadata": {}}
        schema = {**schema, "properties": {**schema["properties"], **properties}}
        jsonschema.validate(found, schema, cls=jsonschema.Draft202012Validator)
        kinds.add(found["kind"])
    assert {"Rollout", "AnalysisTemplate", "HTTPRoute", "PrometheusRule", "RayService"} <= kinds
    assert {"LLMInferenceService", "ServiceMonitor"} <= kinds


def test_the_crd_check_finds_a_mistake() -> None:
    import jsonschema

    wrong = next(d for d in manifests("plain") if d["kind"] == "Rollout")
    wrong["spec"]["strategy"]["canary"]["steps"][0] = {"setWeigth": 5}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, crd("Rollout", "v1alpha1"), cls=jsonschema.Draft202012Validator)


@NAMES
@pytest.mark.parametrize("stage", ["staging", "production"])
def test_kustomize_builds_each_overlay(name: str, stage: str, tmp_path: Path) -> None:
    import kubernetes_validate

    kubectl = tool("kubectl")
    write(rendered(name, "kubernetes"), tmp_path / "k")
    overlay = str(tmp_path / "k" / "overlays" / stage)
    run = subprocess.run([kubectl, "kustomize", overlay], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    built = list(yaml.safe_load_all(run.stdout))
    for found in built:
        assert found["metadata"]["namespace"] == f"{ALL[name].name}-{stage}"
        if found["apiVersion"] in CORE:
            kubernetes_validate.validate(found, VERSIONS[-1], strict=True)
    workload = next(d for d in built if d["kind"] == "Deployment")
    assert workload["spec"]["replicas"] == (1 if stage == "staging" else ALL[name].replicas)
    config = next(d for d in built if d["kind"] == "ConfigMap")
    mounted = workload["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"]
    assert mounted == config["metadata"]["name"] != f"{ALL[name].name}-serve"
    assert yaml.safe_load(config["data"]["serve.yaml"]) == json.loads(json.dumps(serve(ALL[name])))


@NAMES
def test_compose_file_meets_the_compose_schema(name: str, tmp_path: Path) -> None:
    write(rendered(name, "compose"), tmp_path / "c")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    run = subprocess.run([*command, str(tmp_path / "c" / "compose.yaml")], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    broken = tmp_path / "broken.yaml"
    broken.write_text((tmp_path / "c" / "compose.yaml").read_text().replace("cap_drop:", "cap_dropp:"))
    run = subprocess.run([*command, str(broken)], capture_output=True, text=True)
    assert run.returncode == 1


@NAMES
def test_systemd_reads_the_unit_without_a_word(name: str, tmp_path: Path) -> None:
    analyze, own = tool("systemd-analyze"), ALL[name].name
    files = rendered(name, "vllm")
    script = tmp_path / "run.sh"
    script.write_text(files["run.sh"])
    script.chmod(0o755)
    unit = tmp_path / f"{own}.service"
    unit.write_text(files[f"{own}.service"].replace(f"/opt/servetune/{own}/run.sh", str(script)))
    run = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True)
    said = [line for line in (run.stdout + run.stderr).splitlines() if own in line or str(tmp_path) in line]
    assert run.returncode == 0, run.stderr
    assert said == []


@NAMES
def test_promtool_accepts_the_rules_and_their_tests_pass(name: str, tmp_path: Path) -> None:
    promtool = tool("promtool")
    write(rendered(name, "delivery"), tmp_path / "d")
    alerts = tmp_path / "d" / "alerts"
    run = subprocess.run(
        [promtool, "check", "rules", "rules.yaml"], cwd=alerts, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    run = subprocess.run(
        [promtool, "test", "rules", "rules_test.yaml"], cwd=alerts, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_rule_tests_can_fail(tmp_path: Path) -> None:
    promtool = tool("promtool")
    write(rendered("plain", "delivery"), tmp_path / "d")
    rules = tmp_path / "d" / "alerts" / "rules.yaml"
    rules.write_text(rules.read_text().replace(" > 0.144", " > 1.1"))
    command = [promtool, "test", "rules", "rules_test.yaml"]
    run = subprocess.run(command, cwd=rules.parent, capture_output=True, text=True)
    assert run.returncode == 1
    assert "ServetuneTtftP99FastBurn" in run.stdout + run.stderr


@NAMES
def test_every_query_is_promql(name: str) -> None:
    import promql_parser

    found = expressions(name)
    assert len(found) >= 10
    for expression in found:
        assert promql_parser.parse(expression).prettify()


def test_hostile_names_come_back_from_promql() -> None:
    import promql_parser

    parsed = promql_parser.parse(expressions("hostile")[-1])
    assert HOSTILE.name in str(parsed)
    assert "${" not in "".join(expressions("hostile"))
    assert "{{" not in "".join(expressions("hostile"))


def test_metric_names_are_the_pinned_engines_own() -> None:
    """A name that the engine never had is the commonest mistake in published rules and dashboards."""
    sources = [
        e.folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "vllm" / "v1" / "metrics"
        for e in environments.environments("vllm")
        if e.installed and e.version == PLAIN.version
    ]
    if not sources:
        pytest.skip(f"not checked: vllm {PLAIN.version} is not installed (make engines)")
    text = "".join(file.read_text() for file in sources[0].glob("*.py"))
    known = set(METRIC.findall(text))
    assert len(known) > 30
    for name in ALL:
        for metric in METRIC.findall(" ".join(expressions(name))):
            assert re.sub(r"_(bucket|count|sum|total)$", "", metric) in known, metric


def test_every_flag_is_one_of_the_pinned_engine() -> None:
    installed = [e for e in environments.environments("vllm") if e.installed and e.version == PLAIN.version]
    if not installed:
        pytest.skip(f"not checked: vllm {PLAIN.version} is not installed (make engines)")
    known = environments.flags(installed[0])
    for name in ("plain", "cpu", "unmeasured"):
        assert {f"--{flag}" for flag in serve(ALL[name])} - {"--model"} <= known


PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
make_arg_parser(parser.add_subparsers(dest="command").add_parser("serve"))
for words in json.loads(sys.argv[1]):
    found = vars(parser.parse_args(words))
    kept = ("model", "served_model_name", "max_num_seqs", "enable_prefix_caching", "tokenizer")
    found["model"] = found.pop("model_tag", None) or found["model"]
    print(json.dumps({name: found[name] for name in kept}))
"""


@pytest.mark.engine
def test_vllms_own_parser_takes_every_flag(tmp_path: Path) -> None:
    """The pinned engine parses the exported file, and the arguments of the Helm values, to the same settings."""
    installed = [e for e in environments.environments("vllm") if e.installed and e.version == PLAIN.version]
    if not installed:
        pytest.skip(f"not checked: vllm {PLAIN.version} is not installed (make engines)")
    words = []
    for name, deployment in ALL.items():
        write(rendered(name, "vllm"), tmp_path / name)
        words.append(["serve", "--config", str(tmp_path / name / "serve.yaml")])
        words.append(["serve", *arguments(settings(deployment))])
    command = [str(installed[0].python), "-P", "-c", PARSE, json.dumps(words)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    parsed = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert len(parsed) == 2 * len(ALL)
    for by_file, by_words, deployment in zip(parsed[::2], parsed[1::2], ALL.values(), strict=True):
        assert by_file == by_words
        assert by_file["model"] == deployment.model
        assert by_file["served_model_name"] == [deployment.served_model]
        assert by_file["max_num_seqs"] == deployment.flags["max-num-seqs"]
    assert parsed[0]["enable_prefix_caching"] is False
    wrong = [["serve", "--config", str(tmp_path / "wrong.yaml")]]
    (tmp_path / "wrong.yaml").write_text("model: x\nmax-num-sequences: 3\n")
    run = subprocess.run([*command[:-1], json.dumps(wrong)], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 2


def test_ray_text_is_the_application_beside_it() -> None:
    files = rendered("plain", "ray")
    inside = yaml.safe_load(yaml.safe_load(files["rayservice.yaml"])["spec"]["serveConfigV2"])
    assert inside == yaml.safe_load(files["serve_config.yaml"])


def test_dashboard_is_whole() -> None:
    found = json.loads(rendered("plain", "delivery")["grafana/dashboard.json"])
    places = [tuple(p["gridPos"].values())[:2] for p in found["panels"]]
    assert len(set(places)) == len(places)
    assert len({p["id"] for p in found["panels"]}) == len(places)
    lines = [s["value"] for s in found["panels"][0]["fieldConfig"]["defaults"]["thresholds"]["steps"]]
    assert PLAIN.slos[0].limit_s in lines


@pytest.mark.parametrize("name", ALL)
def test_the_bill_of_materials_is_valid_cyclonedx(name: str) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json", reason="cyclonedx-python-lib is not here")
    schema = pytest.importorskip("cyclonedx.schema")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    for path, text in render(ALL[name], "bom", allow_undeployable=True).items():
        if path.endswith(".json"):
            wrong = validator.validate_str(text)
            assert wrong is None, str(wrong)[:2000]
            assert validator.validate_str(text.replace("bomFormat", "bomFromat")) is not None


def test_the_bill_of_materials_lists_every_file_and_the_score() -> None:
    import json

    found = json.loads(render(PLAIN, "bom")[f"{PLAIN.name}.cdx.json"])
    model = found["metadata"]["component"]
    listed = {part["name"]: part["hashes"][0]["content"] for part in model["components"]}
    assert listed == dict(PLAIN.files)
    assert model["purl"] == f"pkg:huggingface/Qwen/Qwen3-8B@{PLAIN.revision}"
    score = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0]
    assert score["type"] == "accuracy facts"
    assert score["value"] == "0.71"
    assert {part["bom-ref"] for part in found["components"]} == {"engine", "image"}
