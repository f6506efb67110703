"""Starts the simulated server as a child on a free loopback port, and talks to it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

MODEL = "llama-3.1-8b"


@dataclass
class Started:
    process: subprocess.Popen[bytes]
    url: str
    log_file: Path
    client: httpx.Client

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def post(self, path: str, **body: Any) -> httpx.Response:
        body.setdefault("model", MODEL)
        return self.client.post(f"{self.url}{path}", json=body)

    def get(self, path: str) -> httpx.Response:
        return self.client.get(f"{self.url}{path}")

    def complete(self, prompt: Any = "one two three", tokens: int = 4, **more: Any) -> httpx.Response:
        return self.post("/v1/completions", prompt=prompt, max_tokens=tokens, ignore_eos=True, **more)

    def stream(self, path: str = "/v1/completions", **body: Any) -> list[str]:
        """The data of every event."""
        body = {"model": MODEL, "stream": True, **body}
        with self.client.stream("POST", f"{self.url}{path}", json=body) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            return [line.removeprefix("data: ") for line in answer.iter_lines() if line]

    def ready(self, seconds: float = 15) -> bool:
        """Waits for /health, or for the end of the process."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                return self.get("/health").status_code == 200
            except httpx.TransportError:
                time.sleep(0.01)
        return False


@contextlib.contextmanager
def started(folder: Path, fault: str = "", wait: bool = True, **settings: Any) -> Iterator[Started]:
    """A server with these neutral settings; `fault` and the keys of `sim` merged into sim."""
    sim = {"gpu": "h200", "shape": MODEL, "seed": 1, **settings.pop("sim", {})}
    if fault:
        sim["fault"] = fault
    asked = {"model": MODEL, "max_model_len": 2048, **settings, "sim": sim}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "engine.log"
    command = [sys.executable, "-m", "serving.sim.server", "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--settings", json.dumps(asked)],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    try:
        with httpx.Client(timeout=20, trust_env=False, verify=False) as client:
            server = Started(process, f"http://127.0.0.1:{port}", log, client)
            if wait:
                assert server.ready(), server.log
            yield server
    finally:
        process.kill()
        process.wait()
