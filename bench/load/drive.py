"""`drive`: a Load against an Endpoint, in processes of its own, to Records. No gevent in this process.

The schedule is made here, once, and split over the workers without overlap; all stamps are on
CLOCK_MONOTONIC, which the processes of a machine share; the bytes are parsed when the load is over.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from bench.grid import Load
from bench.load import exchange, schedule
from bench.load.deadline import first_within_s
from bench.load.dialect import PATHS
from bench.load.job import Job, Request, write_requests
from bench.load.processes import Processes, Progress
from bench.load.records import record
from bench.records import ClientHealth, Record
from bench.traffic.prompts import Prompts
from serving.engine import Endpoint
from serving.errors import UserError
from serving.keys import key_of, masked

__all__ = ["Drive", "Interrupted", "Progress", "drive"]

NO_CLIENT = ClientHealth(0, 0.0, 0.0, 0, None, None)
COUNTED_CHARACTERS = 2_000_000
"""Output text up to so much is counted by the tokenizer; of more, a seeded sample of requests."""
FILES_BESIDE_CONNECTIONS = 100


@dataclass(frozen=True)
class Drive:
    """What a load gave. Times in seconds; records are relative to `started_monotonic_s`."""

    records: tuple[Record, ...]
    client: ClientHealth
    load_end_s: float
    started_unix_s: float
    started_monotonic_s: float


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a load: `drive` holds what was recorded until then, the rest censored."""

    def __init__(self, drive: Drive) -> None:
        super().__init__()
        self.drive = drive


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
    before_start: Callable[[], None] = lambda: None,
    alive: Callable[[], bool] = lambda: True,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], None] | None = None,
    keep_raw: bool = False,
) -> Drive:
    """Runs one load to its end and gives everything sent, and in open loop everything planned, as Records.

    The warm-up requests come first and are in no record; then `before_start` is called (to empty a cache,
    to begin sampling), then the load starts. salt: other salts give other prompts. alive: polled; once False
    the load is stopped (the server died). stop: polled; True ends the load early, what was not sent is
    censored. lenient: no vLLM extensions in the request body. UserError: a key that is not set, more users
    than this process may open connections; ServetuneError: a load process broke; Interrupted: Ctrl-C.
    """
    workers = max(1, min(workers, load.concurrency or workers))
    _check(endpoint, load, workers)
    folder.mkdir(parents=True, exist_ok=True)
    planned, words = schedule.requests(
        load, endpoint.served_model, prompts, seed=seed, salt=salt, lenient=lenient
    )
    warmups = schedule.warmups(load, endpoint.served_model, prompts, seed=seed, salt=salt, lenient=lenient)
    jobs = [_job(endpoint, load, number, workers, folder, words) for number in range(workers)]
    for number, job in enumerate(jobs):
        write_requests(planned[number::workers], job.requests)
        write_requests(warmups[number::workers], job.warmups)
    started_unix_s = time.time()

    def why_stop() -> str:
        return "the server died" if not alive() else "the load was stopped" if stop() else ""

    with Processes(jobs, load.concurrency or workers) as processes:
        if not processes.ready(alive):
            return Drive((), NO_CLIENT, 0.0, started_unix_s, time.monotonic())
        before_start()
        start_s = processes.start()
        started_unix_s = time.time() + (start_s - time.monotonic())
        total = len(planned) * load.turns if not words else None
        interrupted = processes.watch(start_s, total, why_stop, progress)
    records = _collect(jobs, planned, load, start_s, prompts, endpoint.api_key_env)
    health, last_sent_s = _health(jobs, start_s)
    if not keep_raw:
        shutil.rmtree(folder)
    ended_s = _load_end_s(load, records, last_sent_s)
    driven = Drive(records, health, ended_s, started_unix_s, start_s)
    if interrupted:
        raise Interrupted(driven)
    return driven


def _check(endpoint: Endpoint, load: Load, workers: int) -> None:
    parts = urlsplit(endpoint.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{endpoint.url!r} is no address of a server", "such as http://127.0.0.1:8000")
    try:
        socket.getaddrinfo(parts.hostname, None)
    except OSError as error:
        raise UserError(
            f"{parts.hostname}: {error.strerror}", "a host name that this machine knows"
        ) from error
    key_of(endpoint.api_key_env)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - FILES_BESIDE_CONNECTIONS
    if (load.concurrency or 0) > most * workers:
        raise UserError(
            f"{load.concurrency} users need a connection each; one process may open {most}",
            f"ulimit -Hn, or --workers {-(-(load.concurrency or 0) // most)}",
        )


def _job(
    endpoint: Endpoint, load: Load, number: int, workers: int, folder: Path, words: tuple[str, ...]
) -> Job:
    closed = load.arrivals == "closed"
    share = (load.concurrency or 1) if closed else load.warmup_requests
    return Job(
        url=endpoint.url,
        path=PATHS[load.endpoint],
        headers={
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "Connection": "keep-alive",
        },
        api_key_env=endpoint.api_key_env,
        closed=closed,
        users=load.concurrency or 1 if closed else 1,
        warm_users=-(-share // workers),
        duration_s=load.duration_s if closed else None,
        request_timeout_s=load.request_timeout_s,
        silence_timeout_s=_silence_s(load),
        worker=number,
        workers=workers,
        master_port=0,
        folder=str(folder),
        own_words=words,
    )


def _silence_s(load: Load) -> float:
    """No byte on any request for so long is silence. What is not streamed sends none until its end."""
    if load.stream:
        return load.silence_timeout_s
    return max(load.silence_timeout_s, first_within_s(load.request_timeout_s, load.output_tokens))


def _collect(
    jobs: list[Job],
    planned: list[Request],
    load: Load,
    start_s: float,
    prompts: Prompts,
    api_key_env: str | None,
) -> tuple[Record, ...]:
    """Parses what the workers wrote. A renewed request (index beyond the plan) has the sizes of any other."""
    by_index = {request.index: request for request in planned}
    made: list[Record] = []
    texts: list[str] = []
    for job in jobs:
        for one in exchange.read(job.raw):
            index = one.index // load.turns * load.turns
            request = by_index.get(index) or replace(planned[0], index=index)
            found, text = record(one, request, start_s, job.worker)
            said = masked(found.error_detail, api_key_env)
            made.append(found if said == found.error_detail else replace(found, error_detail=said))
            texts.append(text)
    for number, tokens in _counts(texts, prompts).items():
        made[number] = replace(made[number], counted_output_tokens=tokens)
    return tuple(sorted(made, key=lambda r: (r.planned_s, r.index)))


def _counts(texts: list[str], prompts: Prompts) -> dict[int, int]:
    """Tokens of the outputs, by position (of a seeded sample of long ones); none without a tokenizer."""
    order = random.Random(0).sample(range(len(texts)), len(texts))  # noqa: S311 -- a sample, no secret
    chosen: list[int] = []
    characters = 0
    for number in order:
        characters += len(texts[number])
        if characters > COUNTED_CHARACTERS and chosen:
            break
        chosen.append(number)
    counted = prompts.count([texts[number] for number in chosen])
    return {} if counted is None else dict(zip(chosen, counted, strict=True))


def _load_end_s(load: Load, records: tuple[Record, ...], last_sent_s: float) -> float:
    """The last planned departure of an open loop, the last of all otherwise or where it was stopped early."""
    if load.arrivals == "closed" or not records:
        return last_sent_s
    planned_s = max(record.planned_s for record in records)
    stopped = any(record.sent_s is None for record in records)
    return min(planned_s, last_sent_s) if stopped else planned_s


def _health(jobs: list[Job], start_s: float) -> tuple[ClientHealth, float]:
    """The busiest worker's CPU share, the worst hub delay, and when the last request was sent."""
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
    return health, max((s["last_sent_s"] or start_s) for s in said) - start_s
