"""The way to production and back, with the simulated engine in vLLM's place: the exported script is started,
verified, watched by the exported alert, replaced by a slower one, and rolled back."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from bench.records.model import Judgement
from servetune.cli.main import main
from servetune.deploy import exporters
from servetune.deploy.deployable import dump, with_id
from servetune.deploy.exporters import rollback
from servetune.deploy.spec import ServingSpec
from servetune.deploy.verify import verify
from tests.support.export_fixture import tool
from tests.support.prometheus_fixture import ALERT, DEPLOYMENT, prometheus, traffic, wait
from tests.support.sim_process import MODEL, Started
from tests.support.spec_fixture import simulated

PROGRAM = f"""#!{sys.executable}
import json, os, sys, yaml
words = sys.argv[1:]
assert words[0] == "serve", words
said = yaml.safe_load(open(words[words.index("--config") + 1]))
settings = {{"model": "{MODEL}", "max_model_len": said["max-model-len"], "max_num_seqs": said["max-num-seqs"]}}
sim = {{"gpu": "h200", "shape": "{MODEL}", "seed": 1}}
if os.environ.get("SIM_FAULT"):
    sim["fault"] = os.environ["SIM_FAULT"]
port = words[words.index("--port") + 1]
server = [sys.executable, "-m", "serving.sim.server", "--port", port]
os.execv(sys.executable, [*server, "--settings", json.dumps({{**settings, "sim": sim}})])
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Takes vLLM's command line and becomes the simulated server."""
    file = tmp_path / "vllm"
    file.write_text(PROGRAM)
    file.chmod(0o755)
    return file


@contextmanager
def deployed(folder: Path, program: Path, port: int, files: str = "files", **env: str) -> Iterator[Started]:
    """The exported run.sh as a service manager would run it."""
    kept = {"PATH": os.environ["PATH"], "VLLM": str(program), "PORT": str(port), **env}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(folder / files / "run.sh")],
            cwd=folder,
            env=kept,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        with httpx.Client(timeout=20, trust_env=False) as client:
            server = Started(process, f"http://127.0.0.1:{port}", folder / "log", client)
            assert server.ready(30), server.log
            yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.mark.slow
def test_alert_then_roll_back(tmp_path: Path, program: Path) -> None:
    """The new export carries the way back: the rollback folder in it is checked and started, as it says."""
    tool("prometheus")
    flags = {"max-model-len": 2048, "max-num-seqs": 32}
    old, new = (
        replace(DEPLOYMENT, flags={**flags, "max-num-batched-tokens": tokens}, spec_id=name, secrets=())
        for name, tokens in (("old", 2048), ("new", 4096))
    )
    made = {**exporters.render(new, "vllm"), **rollback.files(new, "vllm", old, None)}
    exporters.write(made, tmp_path / "files")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with prometheus(tmp_path, f"127.0.0.1:{port}") as states:
        with deployed(tmp_path, program, port, SIM_FAULT="slow_after:3") as server, traffic(server):
            assert wait(lambda: states().get(ALERT) == "firing", 90), states()
        first = (tmp_path / "files" / "ROLLBACK.md").read_text().split("```")[1].strip().splitlines()[0]
        assert first.startswith("(cd rollback && sha256sum")
        subprocess.run(["sh", "-c", first], cwd=tmp_path / "files", check=True, capture_output=True)
        assert "max-num-batched-tokens: 2048" in (tmp_path / "files/rollback/serve.yaml").read_text()
        with deployed(tmp_path, program, port, "files/rollback") as server, traffic(server):
            assert wait(lambda: ALERT not in states(), 90), states()
            time.sleep(3)
            assert ALERT not in states()
            assert server.get("/v1/models").json()["data"][0]["id"] == MODEL


def verifiable(**changes: Any) -> ServingSpec:
    """A spec that the program in vLLM's place serves as it says."""
    slo = {"metric": "tpot", "percentile": 50.0, "limit_ms": 100.0}
    asked = {
        "max_model_len": {"value": 2048, "provenance": "fixed"},
        "max_num_seqs": {"value": 32, "provenance": "tuned"},
    }
    spec = simulated(**{"slos": [slo], "effective": {"max_model_len": 2048}, **changes})
    parameters = {n: spec.parameters[n].model_copy(update=v) for n, v in asked.items()}
    return with_id(spec.model_copy(update={"parameters": parameters}))


@pytest.fixture
def in_place_of_vllm(program: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = SimpleNamespace(installed=True, program=lambda name: program)
    monkeypatch.setattr("servetune.deploy.verify.verify.environments.find", lambda *asked: found)
    # Other work on this machine makes the client late and its measurements invalid: not the subject here.
    monkeypatch.setattr("bench.measure_load.judge", lambda *run, **how: Judgement("ok"))
    return program


@pytest.mark.slow
def test_verify_relaunches_from_the_exported_files(tmp_path: Path, in_place_of_vllm: Path) -> None:
    program, spec = in_place_of_vllm, verifiable()
    claims = {c.name: c for c in verify.verify(spec, tmp_path / "right")}
    assert claims["files"].verdict == "PASS"
    assert claims["start"].verdict == "PASS"
    assert claims["settings"].verdict == "PASS", claims["settings"].note
    assert claims["tpot_p50_ms"].verdict == "PASS", claims["tpot_p50_ms"].note
    assert claims["model"].verdict == "INCONCLUSIVE"  # the simulated model has no files
    program.write_text(PROGRAM.replace('said["max-model-len"]', "1024"))
    changed = {c.name: c for c in verify.verify(spec, tmp_path / "changed")}
    assert changed["settings"].verdict == "FAIL"
    assert "max_model_len: measured 2048, runs 1024" in changed["settings"].note
    program.write_text("#!/bin/sh\necho out of memory; exit 1\n")
    dead = {c.name: c for c in verify.verify(spec, tmp_path / "dead")}
    assert dead["start"].verdict == "FAIL"
    assert "out of memory" in dead["start"].note


TAMPERED = {
    "a script that does something else": ("run.sh", "exec ", "echo hello; exec "),
    "another flag": ("serve.yaml", "max-num-seqs: 32", "max-num-seqs: 33"),
    "an unsafe loader": ("serve.yaml", "load-format: safetensors", "load-format: auto"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_tampered_files_fail_on_the_command_line(
    how: str, tmp_path: Path, in_place_of_vllm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, files = tmp_path / "spec.yaml", tmp_path / "files"
    spec.write_text(dump(verifiable()))
    asked = ["export", str(spec), "--to", "vllm", "-o", str(files), "--allow-undeployable"]
    assert main(asked) == 0
    name, before, after = TAMPERED[how]
    text = (files / name).read_text()
    assert before in text
    (files / name).write_text(text.replace(before, after))
    out = tmp_path / "verified.yaml"
    assert main(["verify", str(spec), "--files", str(files), "-o", str(out)]) == 1
    said = capsys.readouterr().out
    assert f"{name} differs" in said
    assert "start" not in said
    assert not out.exists()


@pytest.mark.slow
def test_a_slowed_server_fails_on_the_command_line(
    tmp_path: Path, in_place_of_vllm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = {"metric": "tpot", "percentile": 50.0, "limit_ms": 500.0, "measured_ms": 8.0,
                "interval_ms": [6.0, 16.0]}  # fmt: skip
    spec = tmp_path / "spec.yaml"
    spec.write_text(dump(verifiable(slos=[measured])))
    slow = PROGRAM.replace('"seed": 1}', '"seed": 1, "fault": "slow_after:0"}')
    assert slow != PROGRAM
    in_place_of_vllm.write_text(slow)
    assert main(["verify", str(spec), "--json", "-"]) == 1
    claims = {c["name"]: c for c in json.loads(capsys.readouterr().out)["claims"]}
    assert claims["settings"]["verdict"] == "pass"
    assert claims["tpot_p50_ms"]["verdict"] == "fail", claims["tpot_p50_ms"]
