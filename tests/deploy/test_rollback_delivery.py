"""Going back with the real kubectl, against a stand-in of the API: `kubectl apply -f rollback/` restores the
earlier engine's settings."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from servetune.deploy.exporters import render, write
from servetune.deploy.exporters.deployment import Deployment
from servetune.deploy.exporters.rollback import FALLBACK, ROLLBACK, RUNBOOK, files
from tests.support.export_fixture import ALL, CPU, PLAIN, tool
from tests.support.kube_stand_in import APPLIED, KINDS, Cluster, cluster

EARLIER = replace(
    PLAIN,
    spec_id="aaaaaaaaaaaa",
    image="docker.io/vllm/vllm-openai:v0.31.0@sha256:" + "b2" * 32,
    flags={**PLAIN.flags, "max-num-seqs": 64},
)
OTHER = replace(CPU, spec_id="bbbbbbbbbbbb")
SPACE = f"{PLAIN.name}-production"


def kubectl(line: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Validation is off: it would ask the API for its OpenAPI; tests/deploy/test_exporters_valid.py has the schemas."""
    words = shlex.split(line)
    words += ["--validate=false"] if words[0] == "apply" else []
    return subprocess.run([tool("kubectl"), *words], cwd=folder, env=env, capture_output=True, text=True)


def exported(folder: Path, now: Deployment, earlier: Deployment | None, fallback: Deployment | None) -> Path:
    for target in ("kubernetes", "delivery"):
        made = {**render(now, target), **files(now, target, earlier, fallback)}
        write(made, folder / target)
    return folder / "delivery"


def settings(state: Cluster, space: str = SPACE) -> dict[str, Any]:
    """What the engine of the Rollout's pods reads, through every reference on the way."""
    rollout = next(o for o in state.of("Rollout") if o["metadata"]["namespace"] == space)
    workload = state.objects[space, "Deployment", rollout["spec"]["workloadRef"]["name"]]
    volumes = workload["spec"]["template"]["spec"]["volumes"]
    config = next(v["configMap"]["name"] for v in volumes if v["name"] == "serve")
    found: dict[str, Any] = yaml.safe_load(state.objects[space, "ConfigMap", config]["data"]["serve.yaml"])
    return {**found, "image": workload["spec"]["template"]["spec"]["containers"][0]["image"]}


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[tuple[Cluster, dict[str, str], Path]]:
    """The new spec, applied as docs/exporters.md says: kubernetes, then delivery on top of it."""
    folder = exported(tmp_path, PLAIN, EARLIER, OTHER)
    with cluster(tmp_path, SPACE) as (state, env):
        for line in ("apply -k kubernetes/overlays/production", "apply -f delivery/"):
            run = kubectl(line, tmp_path, env)
            assert run.returncode == 0, run.stderr
        yield state, env, folder


def test_going_back_restores_the_engines_settings(deployed: tuple[Cluster, dict[str, str], Path]) -> None:
    """Before: exit status 1 at dashboard.json, and no engine setting in any file."""
    state, env, folder = deployed
    assert settings(state)["max-num-seqs"] == 96
    run = kubectl("apply -f rollback/", folder, env)
    assert run.returncode == 0, run.stderr
    assert state.refused == []
    assert settings(state)["max-num-seqs"] == 64
    assert settings(state)["image"] == EARLIER.image
    assert all(space == SPACE for space, *_ in state.objects)
    route = state.objects[SPACE, "HTTPRoute", PLAIN.name]
    assert route["spec"]["hostnames"] == [f"{PLAIN.name}.production.example"]
    assert len(route["spec"]["rules"][0]["backendRefs"]) == 2


def test_going_back_starts_no_second_set_of_pods(deployed: tuple[Cluster, dict[str, str], Path]) -> None:
    state, env, folder = deployed
    assert kubectl("apply -f rollback/", folder, env).returncode == 0
    assert state.objects[SPACE, "Deployment", PLAIN.name]["spec"]["replicas"] == 0


def test_every_kubectl_line_of_the_runbook_works_as_written(
    deployed: tuple[Cluster, dict[str, str], Path],
) -> None:
    """But for Argo's plugin and for waiting, which a stand-in cannot end."""
    state, env, folder = deployed
    for block in re.findall(r"```\n(.*?)```", (folder / RUNBOOK).read_text(), re.DOTALL):
        for line in block.splitlines():
            assert line.startswith("kubectl ")
            if " argo " in line or " wait " in line:
                assert "--namespace" in line
                continue
            run = kubectl(line.removeprefix("kubectl "), folder, env)
            assert run.returncode == 0, (line, run.stderr)
    assert state.refused == []
    assert settings(state, f"{OTHER.name}-production")["max-num-seqs"] == 8
    assert {o["metadata"]["name"] for o in state.of("Job")} == {f"{PLAIN.name}-model", f"{OTHER.name}-model"}


def test_other_weights_are_brought_first(tmp_path: Path) -> None:
    """The volume is shared, and a Job that has run cannot be changed."""
    earlier = replace(EARLIER, files=(("model.safetensors", "ef" * 32),))
    folder = exported(tmp_path, PLAIN, earlier, None)
    block = (folder / RUNBOOK).read_text().split("```")[1]
    assert block.index("delete job") < block.index("rollback/model/") < block.index("apply -f rollback/\n")
    same = exported(tmp_path / "same", PLAIN, EARLIER, None)
    assert "rollback/model/" not in (same / RUNBOOK).read_text()
    with cluster(tmp_path, SPACE) as (state, env):
        assert kubectl("apply -k kubernetes/overlays/production", tmp_path, env).returncode == 0
        assert kubectl("apply -f rollback/model/", folder, env).returncode == 1
        assert "immutable" in state.refused[0]
        assert kubectl(f"delete job {PLAIN.name}-model -n {SPACE}", folder, env).returncode == 0
        assert kubectl("apply -f rollback/model/", folder, env).returncode == 0


def test_the_way_back_of_the_base_gets_past_its_job(tmp_path: Path) -> None:
    exported(tmp_path, PLAIN, EARLIER, None)
    block = (tmp_path / "kubernetes" / RUNBOOK).read_text().split("```")[1]
    with cluster(tmp_path, SPACE) as (state, env):
        assert kubectl("apply -k overlays/production", tmp_path / "kubernetes", env).returncode == 0
        for line in block.strip().splitlines():
            if " status " not in line:
                run = kubectl(line.removeprefix("kubectl "), tmp_path / "kubernetes", env)
                assert run.returncode == 0, (line, run.stderr)
        assert state.refused == []


@pytest.mark.parametrize("name", ALL)
def test_folders_that_are_applied_hold_objects_alone(name: str, tmp_path: Path) -> None:
    """What kubectl reads of a folder: json, yaml and yml at its top. Each is valid, and in a namespace."""
    import kubernetes_validate

    now = ALL[name]
    made = {**render(now, "delivery", allow_undeployable=True), **files(now, "delivery", now, OTHER)}
    write(made, tmp_path / "d")
    for folder in (tmp_path / "d", tmp_path / "d" / ROLLBACK, tmp_path / "d" / FALLBACK):
        kinds = set()
        for file in sorted(f for f in folder.iterdir() if f.suffix in (".yaml", ".yml", ".json")):
            for found in yaml.safe_load_all(file.read_text()):
                assert found["kind"] in KINDS[found["apiVersion"]], file
                kinds.add(found["kind"])
                if found["kind"] != "Namespace":
                    assert found["metadata"]["namespace"].endswith("-production"), file
                if (
                    not found["apiVersion"].partition("/")[0].count(".")
                    or "networking.k8s" in found["apiVersion"][:14]
                ):
                    kubernetes_validate.validate(found, "1.30", strict=True)
        assert {"Rollout", "AnalysisTemplate", "HTTPRoute"} <= kinds
        assert ({"Deployment", "ConfigMap"} <= kinds) == (folder.name != "d")


@pytest.mark.parametrize("name", ["plain", "cpu", "hostile"])
def test_the_pods_are_those_that_kustomize_builds(name: str, tmp_path: Path) -> None:
    """Same template, same ConfigMap under the same name: Argo knows the pods again and starts no others."""
    now = ALL[name]
    write(render(now, "kubernetes", allow_undeployable=True), tmp_path / "k")
    run = subprocess.run(
        [tool("kubectl"), "kustomize", str(tmp_path / "k" / "overlays" / "production")],
        capture_output=True, text=True, env={**os.environ},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    built = {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(run.stdout)}
    found = files(now, "delivery", now, None)
    for path in (
        "config",
        "deployment",
        "service",
        "poddisruptionbudget",
        "networkpolicy",
        "model/model-job",
    ):
        for one in yaml.safe_load_all(found[f"{ROLLBACK}/{path}.yaml"]):
            wanted = json.loads(json.dumps(built[one["kind"], one["metadata"]["name"]]))
            if one["kind"] == "ConfigMap":  # a generated one has not all labels
                wanted["metadata"]["labels"] = one["metadata"]["labels"]
            if one["kind"] == "Deployment":
                assert one["spec"].pop("replicas") == 0
                wanted["spec"].pop("replicas")
            assert one == wanted, path


def test_the_stand_in_refuses_what_it_should(tmp_path: Path) -> None:
    with cluster(tmp_path) as (state, env):
        (tmp_path / "no-kind.json").write_text('{"title": "a dashboard"}')
        assert kubectl("apply -f no-kind.json", tmp_path, env).returncode == 1
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "nowhere"}}
        (tmp_path / "nowhere.json").write_text(json.dumps(config))
        assert kubectl("apply -f nowhere.json", tmp_path, env).returncode == 1
        assert "nowhere" in state.refused[0]
        assert APPLIED not in str(state.objects)
