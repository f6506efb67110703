"""A load tool as a program: run to its end or its limit, and what that cost."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "ERROR"}


@dataclass(frozen=True)
class Spent:
    """status: as subprocess's, -9 at the limit; cpu_s: of the program and all it started, its own start included."""

    status: int
    wall_s: float
    cpu_s: float


def run(command: Sequence[str], log: Path, limit_s: float) -> Spent:
    """In the folder of `log`, which gets all it says. Its group is ended after `limit_s`, or when we are interrupted."""
    before, started = _cpu_s(), time.monotonic()
    with log.open("ab") as said:
        child = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, cwd=log.parent, env={**os.environ, **QUIET},
            start_new_session=True,
        )  # fmt: skip
        try:
            with suppress(subprocess.TimeoutExpired):
                child.wait(limit_s)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            status = child.wait()
    return Spent(status, time.monotonic() - started, _cpu_s() - before)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
