"""Who an exported server is and where it may write: a uid that the image has no passwd entry for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from servetune.deploy.exporters import EXPORTERS, render, write
from tests.support.export_fixture import ALL, CPU, PLAIN

UID = 4242
WHO = "import getpass; print(getpass.getuser())"


def objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(inner)


def pods(target: str, name: str = "plain") -> list[dict[str, Any]]:
    """Every pod specification that says under which uid it runs, wherever it stands in the files."""
    files = render(ALL[name], target, allow_undeployable=True)
    documents = [d for p, t in files.items() if p.endswith(".yaml") for d in yaml.safe_load_all(t)]
    found = [o for d in documents for o in objects(d) if "containers" in o]
    return [o for o in found if "runAsUser" in o.get("securityContext", {})]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["containers"], *pod.get("initContainers", [])]


def environment(target: str) -> list[dict[str, str]]:
    """What each container of a target finds in its environment, values only."""
    if target == "compose":
        services = yaml.safe_load(render(PLAIN, target)["compose.yaml"])["services"]
        return [services["vllm"]["environment"]]
    return [
        {e["name"]: e["value"] for e in c["env"] if "value" in e} for p in pods(target) for c in containers(p)
    ]


def nobody() -> list[str]:
    """Words before a command that run it under a uid without a passwd entry."""
    unshare = shutil.which("unshare")
    words = [str(unshare), "--user", f"--map-user={UID}", f"--map-group={UID}"]
    if unshare is None or subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("not checked: no user namespace here (util-linux, kernel.unprivileged_userns_clone)")
    return words


TARGETS = pytest.mark.parametrize("target", ["kubernetes", "kserve", "ray", "compose"])


def test_these_are_the_targets_that_set_a_user() -> None:
    said = [t for t in EXPORTERS if any("runAsUser" in x or "user:" in x for x in render(PLAIN, t).values())]
    assert said == ["compose", "kubernetes", "kserve", "ray"]


@TARGETS
def test_the_server_has_a_name_that_needs_no_passwd_entry(target: str) -> None:
    """Before: KeyError: 'getpwuid(): uid not found: 4242' at import, for getpass looks there last."""
    alone = [*nobody(), "env", "-i"]
    python = [sys.executable, "-P", "-c", WHO]
    bare = subprocess.run([*alone, "HOME=/", *python], capture_output=True, text=True)
    assert "uid not found" in bare.stderr
    found = environment(target)
    assert found
    for env in found:
        named = [f"{name}={value}" for name, value in env.items()]
        run = subprocess.run([*alone, *named, *python], capture_output=True, text=True)
        assert run.stdout == "vllm\n", run.stderr


@TARGETS
def test_every_folder_in_the_environment_is_on_a_mount_that_can_be_written(target: str) -> None:
    found = environment(target)
    assert found
    for env in found:
        folders = {n: v for n, v in env.items() if n == "HOME" or n.endswith(("_HOME", "_DIR", "_ROOT"))}
        folders.pop("MODEL_DIR", None)
        assert {"HOME", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"} <= set(folders)
        assert "VLLM_CACHE_ROOT" in folders
        for name, path in folders.items():
            assert PurePosixPath(path).is_relative_to("/cache"), name


@pytest.mark.parametrize("target", ["kubernetes", "kserve", "ray"])
@pytest.mark.parametrize("name", ALL)
def test_pods_mount_what_they_write(target: str, name: str) -> None:
    """So a policy that makes the root file system read-only changes nothing."""
    found = pods(target, name)
    assert found
    for pod in found:
        kinds = {v["name"]: v for v in pod["volumes"]}
        for container in containers(pod):
            mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
            for path in ("/cache", "/tmp"):
                assert not mounts[path].get("readOnly")
                assert "emptyDir" in kinds[mounts[path]["name"]]


def test_the_cache_of_compose_belongs_to_the_servers_user() -> None:
    """A new named volume is root's where the image has no such folder."""
    services = yaml.safe_load(render(PLAIN, "compose")["compose.yaml"])["services"]
    server, owner = services["vllm"], services["cache"]
    assert server["depends_on"]["cache"]["condition"] == "service_completed_successfully"
    assert owner["entrypoint"] == ["chown", server["user"], "/cache"]
    assert owner["volumes"][0] in server["volumes"]
    assert owner["image"] == server["image"]
    assert (owner["user"], owner["cap_add"], owner["network_mode"]) == ("0:0", ["CHOWN"], "none")


def test_the_chart_gets_the_name_too() -> None:
    """Its values set no user, but a cluster may choose one."""
    engine = yaml.safe_load(render(PLAIN, "production-stack")["values.yaml"])["servingEngineSpec"]
    env = {e["name"]: e.get("value") for e in engine["modelSpec"][0]["env"]}
    assert env["USER"] == env["LOGNAME"] == "vllm"


@pytest.mark.parametrize(
    ("given", "who"), [({}, {str(UID), "vllm"}), ({"USER": "ada"}, {"ada"}), ({"LOGNAME": "ada"}, {"ada"})]
)
def test_run_script_names_a_uid_that_has_no_name(
    given: dict[str, str], who: set[str], tmp_path: Path
) -> None:
    write(render(CPU, "vllm"), tmp_path / "out")
    program = tmp_path / "vllm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -c "{WHO}"\n')
    program.chmod(0o755)
    env = {"PATH": "/usr/bin:/bin", "VLLM": str(program), **given}
    run = subprocess.run(
        [*nobody(), str(tmp_path / "out" / "run.sh")], env=env, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() in who
