"""The load processes: in groups of their own, told when to begin, watched, and ended whatever happens."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bench.client.job import LoadJob
from serving.errors import ServetuneError

START_WITHIN_S = 60.0
LEAD_S = 0.1
"""Between the start signal and the first planned moment, so that every worker has heard it."""
REPORT = "this is a defect of servetune, please report it"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a load is: requests ended, of how many (None: by duration), reads, seconds since the start."""

    done: int
    total: int | None
    events: int
    elapsed_s: float


class Processes:
    """One process a job, and Locust's master where there are several. A context: none outlives it."""

    def __init__(self, jobs: list[LoadJob], users: int) -> None:
        self.jobs, self.users = jobs, users
        self.children: list[subprocess.Popen[bytes]] = []
        self.master: subprocess.Popen[bytes] | None = None
        self.said: dict[int, dict[str, int]] = {}
        self._heard: dict[int, bytes] = {}

    def __enter__(self) -> Processes:
        try:
            if len(self.jobs) > 1:
                kind = "closed" if self.jobs[0].closed else "open"
                self.master = self._spawn("master", "master", kind, str(len(self.jobs)), str(self.users))
                line = self._line(self.master, "master", time.monotonic() + START_WITHIN_S)
                assert line is not None
                self.jobs = [replace(job, master_port=int(line.split()[1])) for job in self.jobs]
            for job in self.jobs:
                self.children.append(self._spawn(str(job.worker), str(job.write())))
        except BaseException:
            self.__exit__()
            raise
        return self

    def ready(self, alive: Callable[[], bool]) -> bool:
        """Waits until every worker has warmed up; False when the server died meanwhile.

        A worker that warms up says so every second: it ends by its own deadlines.
        """
        for job, child in zip(self.jobs, self.children, strict=True):
            line: bytes | None = b""
            while line != b"ready\n":
                line = self._line(child, str(job.worker), time.monotonic() + START_WITHIN_S, alive)
                if line is None:
                    return False
        return True

    def start(self) -> float:
        """Gives every worker the same start, a CLOCK_MONOTONIC moment, and returns it."""
        start_s = time.monotonic() + LEAD_S
        self._tell(f"start {start_s!r}\n")
        return start_s

    def watch(
        self,
        start_s: float,
        total: int | None,
        why_stop: Callable[[], str],
        progress: Callable[[Progress], None] | None,
    ) -> bool:
        """Until every worker has gone; True when Ctrl-C ended the load (a second one is not held back).

        `why_stop` is polled; a reason ends the load. ServetuneError: a process broke; never a silent gap.
        """
        told = interrupted = False
        with selectors.DefaultSelector() as selector:
            for number, child in enumerate(self.children):
                assert child.stdout is not None
                selector.register(child.stdout, selectors.EVENT_READ, number)
            while selector.get_map():
                why = ""
                try:
                    for key, _ in selector.select(timeout=0.2):
                        if not self._hear(key.data, os.read(key.fd, 1 << 16)):
                            selector.unregister(key.fileobj)
                            self._ended_well(key.data)
                    why = why_stop()
                    if progress is not None and self.said:
                        done = sum(said["done"] for said in self.said.values())
                        events = sum(said["events"] for said in self.said.values())
                        progress(Progress(done, total, events, time.monotonic() - start_s))
                except KeyboardInterrupt:
                    if interrupted:
                        raise
                    interrupted, why = True, "interrupted"
                if why and not told:
                    told = True
                    self._tell(f"stop {why}\n")
                if self.master is not None and self.master.poll() is not None:
                    raise ServetuneError(f"Locust's master ended: {self._errors('master')}", REPORT)
        return interrupted

    def _ended_well(self, number: int) -> None:
        status = self.children[number].wait(timeout=10)
        if status != 0:
            said = self._errors(str(self.jobs[number].worker))
            raise ServetuneError(
                f"load process {number} ended with {status}: {said}", f"the point is not measured; {REPORT}"
            )

    def _spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "bench.client.worker_main", *arguments]
        with (Path(self.jobs[0].folder) / f"errors-{name}.log").open("wb") as errors:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
                bufsize=0,  # what was read ahead would not be seen by select
            )  # fmt: skip

    def _line(
        self,
        child: subprocess.Popen[bytes],
        name: str,
        deadline: float,
        alive: Callable[[], bool] = lambda: True,
    ) -> bytes | None:
        """The child's first line; None when the server died while it was waited for."""
        assert child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while not selector.select(timeout=0.2):
                if not alive():
                    return None
                if time.monotonic() > deadline:
                    raise ServetuneError(f"load process {name} was not ready in time: {self._errors(name)}")
        line = child.stdout.readline()
        if not line:
            child.wait(timeout=10)
            raise ServetuneError(f"load process {name} did not start: {self._errors(name)}", REPORT)
        return line

    def _hear(self, number: int, data: bytes) -> bool:
        """Keeps the newest progress a worker tells; False at its end."""
        *lines, self._heard[number] = (self._heard.get(number, b"") + data).split(b"\n")
        for line in lines:
            word, _, rest = line.partition(b" ")
            if word == b"progress":
                self.said[number] = json.loads(rest)
        return bool(data)

    def _tell(self, line: str) -> None:
        for child in self.children:
            assert child.stdin is not None
            with suppress(BrokenPipeError):  # one that has gone is seen by `watch`
                child.stdin.write(line.encode())
                child.stdin.flush()

    def _errors(self, name: str) -> str:
        log = Path(self.jobs[0].folder) / f"errors-{name}.log"
        return log.read_text(errors="replace").strip()[-1500:] or "it said nothing"

    def __exit__(self, *_: object) -> None:
        for child in [*self.children, *([self.master] if self.master else [])]:
            if child.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with suppress(BrokenPipeError):
                        stream.close()
