"""A real Prometheus with the exported rules, and traffic for the server it watches."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx

from servetune.deploy.exporters.alerts import groups
from servetune.deploy.exporters.deployment import ExportedSlo
from servetune.deploy.quoting import yaml_text
from tests.support.export_fixture import PLAIN, tool
from tests.support.sim_process import MODEL, Started

SCALE = 1 / 60
"""Windows of seconds instead of minutes; the rules are otherwise the exported ones."""

HEALTHY = 60

DEPLOYMENT = replace(
    PLAIN,
    title="live",
    served_model=MODEL,
    slos=(ExportedSlo("tpot", 90, 0.025),),
    safe_rate=None,
    queue_at_knee=None,
    kv_peak=None,
    cache_labels={},
)

ALERT = "ServetuneTpotP90FastBurn"


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Callable[[], dict[str, str]]]:
    """Yields a function: alert name -> its state."""
    program = tool("prometheus")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "rules.yaml").write_text(yaml_text({"groups": groups(DEPLOYMENT, SCALE)}))
    jobs = [{"job_name": DEPLOYMENT.name, "static_configs": [{"targets": [target]}]}]
    settings = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (folder / "p.yaml").write_text(
        yaml_text({"global": settings, "rule_files": ["rules.yaml"], "scrape_configs": jobs})
    )
    command = [program, "--config.file=p.yaml", "--storage.tsdb.path=data", f"--web.listen-address={address}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=10) as http:
            wait(lambda: process.poll() is not None or answers(http), 30)
            assert process.poll() is None, (folder / "prometheus.log").read_text()

            def states() -> dict[str, str]:
                found = http.get("/api/v1/alerts").raise_for_status().json()["data"]["alerts"]
                return {a["labels"]["alertname"]: a["state"] for a in found}

            yield states
    finally:
        process.kill()
        process.wait()


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def wait(true: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.2)
    return False


@contextmanager
def traffic(server: Started, stop_after: int | None = None) -> Iterator[None]:
    """Four clients, one request after the other each, until the body ends."""
    stop, lock, sent = threading.Event(), threading.Lock(), [0]

    def client() -> None:
        while not stop.is_set():
            with lock:
                if stop_after is not None and sent[0] >= stop_after:
                    return
                sent[0] += 1
            assert server.complete(tokens=16).status_code == 200

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
