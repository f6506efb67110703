"""The exported script with the real engine: it starts from the files alone and serves what they say."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from servetune.deploy.exporters import render, write
from servetune.deploy.exporters.deployment import ExportedSlo
from serving.install import environments
from tests.support.export_fixture import CPU

MODEL = Path(__file__).parents[2] / ".models" / "smollm2-135m-instruct"


@pytest.mark.engine
def test_run_script_serves_what_the_files_say(tmp_path: Path) -> None:
    environment = environments.find("vllm", CPU.version, "cpu")
    if environment is None or not environment.installed or not MODEL.is_dir():
        pytest.skip(f"not checked: vllm {CPU.version} for the CPU or {MODEL.name} is not here (make model)")
    deployment = replace(
        CPU, flags={**CPU.flags, "enable-prefix-caching": False}, slos=(ExportedSlo("ttft", 99, 0.333),)
    )
    write(render(deployment, "vllm"), tmp_path / "files")
    (tmp_path / "key").write_text("test-key-of-no-worth")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONSAFEPATH": "1",
        "VLLM": str(environment.program("vllm")),
        "MODEL_DIR": str(MODEL),
        "PORT": str(port),
        "API_KEY_FILE": str(tmp_path / "key"),
    }
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [str(tmp_path / "files" / "run.sh")],
            cwd=tmp_path,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
            deadline = time.monotonic() + 240
            while not healthy(http):
                assert server.poll() is None, (tmp_path / "log").read_text()[-3000:]
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
                time.sleep(0.5)
            assert http.get("/v1/models").status_code == 401
            key = {"Authorization": "Bearer test-key-of-no-worth"}
            served = http.get("/v1/models", headers=key).json()["data"][0]
            assert served["id"] == deployment.served_model
            assert served["max_model_len"] == deployment.max_model_len
            asked = {"model": deployment.served_model, "prompt": "Once", "max_tokens": 4}
            assert http.post("/v1/completions", json=asked, headers=key).status_code == 200
            metrics = http.get("/metrics").text
            assert re.search(r'cache_config_info\{[^}]*enable_prefix_caching="False"', metrics)
            assert re.search(r'time_to_first_token_seconds_bucket\{[^}]*le="0.333"', metrics)
            assert http.get("/docs").status_code == 404
            assert http.post("/reset_prefix_cache").status_code == 404
            assert "test-key" not in Path(f"/proc/{server.pid}/cmdline").read_text()
        os.killpg(server.pid, signal.SIGTERM)
        assert server.wait(60) is not None
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def healthy(http: httpx.Client) -> bool:
    try:
        return http.get("/health").status_code == 200
    except httpx.TransportError:
        return False
