"""What the tests of the load client share: a scripted server and a short way to drive it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from bench.client.drive import Drive, drive
from bench.point import Load
from bench.proof.conformance import scripted_server
from bench.traffic.prompts import prompts
from serving.engine import Endpoint

CLOSED = Load("w", 12, 8, concurrency=4, requests=20)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with scripted_server() as found:
        yield found


def run(url: str, load: Load, folder: Path, model: str = "plain:20:5", **more: object) -> Drive:
    endpoint = Endpoint(url, model, "scripted", "1")
    return drive(endpoint, load, seed=1, prompts=prompts(None), folder=folder / "load", **more)  # type: ignore[arg-type]


def load_processes() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # one that has just ended
            if "bench.client.worker_main" in process.cmdline():
                found.append(process)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def bodies(folder: Path) -> list[dict[str, object]]:
    rows = [line for file in folder.glob("load/requests-*.jsonl") for line in file.read_text().splitlines()]
    return [json.loads(json.loads(row)["body"]) for row in rows]
