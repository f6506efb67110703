"""`drive`: a Load against an Endpoint, in processes of its own, to Records. No gevent in this process.

The schedule is made here, once, and split over the workers without overlap; all stamps are on
CLOCK_MONOTONIC, which the processes of a machine share; the bytes are parsed when the load is over.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.grid import Load
from bench.load import exchange, schedule
from bench.load.job import Job, Request, write_requests
from bench.load.records import record
from bench.prompts import Prompts
from bench.records import ClientHealth, Record
from serving.engine import Endpoint
from serving.errors import ServetuneError, UserError

PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
START_WITHIN_S = 60.0
LEAD_S = 0.2
"""Between the start signal and the first planned moment, so that every worker has heard it."""


@dataclass(frozen=True)
class Drive:
    """What a load gave. Times in seconds; records are relative to `started_monotonic_s`."""

    records: tuple[Record, ...]
    client: ClientHealth
    load_end_s: float
    started_unix_s: float
    started_monotonic_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a load is: requests ended, of how many (None: by duration), reads so far, seconds since the start."""

    done: int
    total: int | None
    events: int
    elapsed_s: float


def drive(
    endpoint: Endpoint,
    load: Load,
    *,
    seed: int,
    prompts: Prompts,
    folder: Path,
    salt: str = "",
    workers: int = 1,
    lenient: bool = False,
    alive: Callable[[], bool] = lambda: True,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], None] | None = None,
    keep_raw: bool = False,
) -> Drive:
    """Runs one load to its end and gives every planned request as a Record, none dropped.

    salt: other salts give other prompts. alive: polled; once False the load is stopped (the server died).
    stop: polled; True ends the load early, what was not sent is censored. lenient: no vLLM extensions
    in the request body. UserError: a key that is not set; ServetuneError: a load process that broke.
    """
    folder.mkdir(parents=True, exist_ok=True)
    planned = schedule.requests(load, endpoint.served_model, prompts, seed=seed, salt=salt, lenient=lenient)
    workers = max(1, min(workers, load.concurrency or workers))
    jobs = [_job(endpoint, load, number, workers, folder) for number in range(workers)]
    for number, job in enumerate(jobs):
        write_requests(planned[number::workers], job.requests)
    started_unix_s, start_s = time.time(), 0.0
    with _Processes(jobs, load.concurrency or workers) as processes:
        start_s = processes.start()
        started_unix_s = time.time() + (start_s - time.monotonic())
        total = load.requests if load.arrivals == "closed" else len(planned)
        processes.watch(start_s, total, alive, stop, progress)
    records = _collect(jobs, planned, load, start_s, prompts)
    health, ended = _health(jobs, start_s)
    if not keep_raw:
        shutil.rmtree(folder)
    return Drive(records, health, ended, started_unix_s, start_s)


def _job(endpoint: Endpoint, load: Load, number: int, workers: int, folder: Path) -> Job:
    if endpoint.api_key_env and endpoint.api_key_env not in os.environ:
        raise UserError(f"{endpoint.api_key_env} is not set", f"export {endpoint.api_key_env}=...")
    users = load.concurrency or 0
    return Job(
        url=endpoint.url,
        path=PATHS[load.endpoint],
        headers={
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "Connection": "keep-alive",
        },
        api_key_env=endpoint.api_key_env,
        # Locust's master spreads the users evenly, the first workers get one more.
        users=users // workers + (number < users % workers) if users else 0,
        duration_s=load.duration_s if load.arrivals == "closed" else None,
        request_timeout_s=load.request_timeout_s,
        silence_timeout_s=load.silence_timeout_s,
        worker=number,
        workers=workers,
        master_port=0,
        folder=str(folder),
    )


class _Processes:
    """The load processes, ours to start and to end, in a process group each."""

    def __init__(self, jobs: list[Job], users: int) -> None:
        self.jobs, self.users = jobs, users
        self.children: list[subprocess.Popen[bytes]] = []
        self.said: dict[int, dict[str, int]] = {}

    def __enter__(self) -> _Processes:
        for job in self.jobs:
            command = [sys.executable, "-m", "bench.load.locust_run", str(job.write())]
            self.children.append(self._spawn(command))
        return self

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        errors = (Path(self.jobs[0].folder) / f"errors-{len(self.children)}.log").open("wb")
        with errors:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )

    def start(self) -> float:
        """Waits for every worker, gives all the same start, and returns it."""
        deadline = time.monotonic() + START_WITHIN_S
        for number, child in enumerate(self.children):
            assert child.stdout is not None
            line = child.stdout.readline()
            if line != b"ready\n" or time.monotonic() > deadline:
                raise ServetuneError(f"load process {number} did not start: {self._errors(number)}")
        start_s = time.monotonic() + LEAD_S
        for child in self.children:
            assert child.stdin is not None
            child.stdin.write(f"start {start_s!r}\n".encode())
            child.stdin.flush()
        return start_s

    def watch(
        self,
        start_s: float,
        total: int | None,
        alive: Callable[[], bool],
        stop: Callable[[], bool],
        progress: Callable[[Progress], None] | None,
    ) -> None:
        """Until every worker has gone; a worker that broke is an error, never a silent gap."""
        stopped = False
        with selectors.DefaultSelector() as selector:
            for number, child in enumerate(self.children):
                assert child.stdout is not None
                os.set_blocking(child.stdout.fileno(), False)
                selector.register(child.stdout, selectors.EVENT_READ, number)
            while selector.get_map():
                for key, _ in selector.select(timeout=0.2):
                    if not self._hear(key.data, key.fileobj):
                        selector.unregister(key.fileobj)
                if not stopped and (stop() or not alive()):
                    stopped = True
                    self._tell(b"stop\n")
                if progress is not None and self.said:
                    done = sum(said["done"] for said in self.said.values())
                    events = sum(said["events"] for said in self.said.values())
                    progress(Progress(done, total, events, time.monotonic() - start_s))
        for number, child in enumerate(self.children):
            if child.wait(timeout=10) != 0:
                raise ServetuneError(
                    f"load process {number} ended with {child.returncode}: {self._errors(number)}",
                    "the point is not measured; this is a defect of servetune, please report it",
                )

    def _hear(self, number: int, stream: Any) -> bool:
        data: bytes | None = stream.read()
        if data == b"":
            return False
        for line in (data or b"").splitlines():
            word, _, rest = line.partition(b" ")
            if word == b"progress":
                with suppress(ValueError):  # a line cut by the read: the next one says it again
                    self.said[number] = json.loads(rest)
        return True

    def _tell(self, line: bytes) -> None:
        for child in self.children:
            assert child.stdin is not None
            with suppress(BrokenPipeError):
                child.stdin.write(line)
                child.stdin.flush()

    def _errors(self, number: int) -> str:
        log = Path(self.jobs[0].folder) / f"errors-{number}.log"
        return log.read_text(errors="replace").strip()[-1500:] or "it said nothing"

    def __exit__(self, *_: object) -> None:
        for child in self.children:
            if child.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with suppress(BrokenPipeError):
                        stream.close()


def _collect(
    jobs: list[Job], planned: list[Request], load: Load, start_s: float, prompts: Prompts
) -> tuple[Record, ...]:
    by_index = {request.index: request for request in planned}
    made: list[Record] = []
    texts: list[str] = []
    for job in jobs:
        for one in exchange.read(job.raw):
            request = by_index[one.index // load.turns * load.turns]
            found, text = record(one, request, start_s, job.worker)
            made.append(found)
            texts.append(text)
    counts = prompts.count(texts)
    if counts is not None:
        made = [replace(r, counted_output_tokens=n) for r, n in zip(made, counts, strict=True)]
    return tuple(sorted(made, key=lambda r: (r.planned_s, r.index)))


def _health(jobs: list[Job], start_s: float) -> tuple[ClientHealth, float]:
    """The busiest worker's CPU share, the worst hub delay, and when dispatching ended."""
    said = [json.loads(job.health.read_text()) for job in jobs]
    delays = {k: [s[k] for s in said if s[k] is not None] for k in ("hub_delay_p99_ms", "hub_delay_max_ms")}
    health = ClientHealth(
        workers=len(jobs),
        cpu_share=max(s["cpu_s"] / max(s["wall_s"], 1e-9) for s in said),
        cpu_s=sum(s["cpu_s"] for s in said),
        events=sum(s["events"] for s in said),
        hub_delay_p99_ms=max(delays["hub_delay_p99_ms"], default=None),
        hub_delay_max_ms=max(delays["hub_delay_max_ms"], default=None),
        notes=tuple(dict.fromkeys(note for s in said for note in s["notes"])),
    )
    return health, max((s["dispatch_end_s"] or start_s) for s in said) - start_s
