"""The load process: Locust runs our users, our client sends. Started as `python -m bench.load.locust_run JOB`.

Talks by lines: says `ready`, is told `start <monotonic seconds>`, says `progress {...}` twice a second, is
told `stop` to end early. Locust's request events are fired, so that its own tools work; no number is read
from its statistics (two significant digits, bodies that break go uncounted).
"""

from __future__ import annotations

import os

# Our sockets are the system's own and nothing else here blocks: patching the world would only slow it.
os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"

import gc
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
from gevent.event import AsyncResult, Event
from gevent.fileobject import FileObjectThread
from locust import User, task
from locust.env import Environment

from bench.load.client import Client, pause_until
from bench.load.exchange import Exchange
from bench.load.job import Job, Request, read_requests
from bench.load.turns import Conversation

TICK_S = 0.01
"""How often the hub's own delay is sampled."""


class Share:
    """This process's share of the load, while it runs: what is left to send, what came back."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.requests = read_requests(job.requests)
        self.left: Iterator[Request] = iter(self.requests)
        self.client = Client(job.url, job.path, _headers(job))
        self.raw = job.raw.open("wb")
        self.start_s = 0.0
        self.started, self.stopped, self.over = Event(), Event(), Event()
        self.users_left = job.users or 1
        self.finished = 0
        self.delays: list[float] = []
        self.notes: list[str] = []
        self.environment: Any = None
        self.dispatch_end_s: float | None = None

    def next(self) -> Request | None:
        """The next request of a closed loop; None when the load has ended."""
        if self.stopped.is_set():
            return None
        if self.job.duration_s is not None and monotonic() - self.start_s >= self.job.duration_s:
            return None
        request = next(self.left, None)
        if request is None and self.job.duration_s is not None:
            note = "the prompts ran out before the duration; give `requests` too, or a shorter duration"
            if note not in self.notes:
                self.notes.append(note)
        return request

    def keep(self, exchange: Exchange) -> None:
        """One exchange is over: on disk, and told to Locust."""
        self.finished += 1
        exchange.write(self.raw)
        end = exchange.closed_s or monotonic()
        self.environment.events.request.fire(
            request_type="POST",
            name=self.job.path,
            response_time=(end - exchange.planned_s) * 1000,
            response_length=sum(map(len, exchange.parts)),
            exception=RuntimeError(exchange.error) if exchange.error else None,
            context={},
        )

    def user_done(self) -> None:
        self.users_left -= 1
        if self.users_left == 0:
            self.dispatch_end_s = monotonic()
            self.over.set()

    def sent_none(self, requests: Iterator[Request]) -> None:
        """Open loop, stopped early: what was planned and never sent is censored, not dropped."""
        for request in requests:
            planned = self.start_s + request.planned_s
            self.keep(Exchange(request.index, planned, error="censored", detail="the load was stopped"))


SHARE: Share


class ClosedUser(User):
    """One of N users: sends, waits for the end, sends the next."""

    @task
    def work(self) -> None:
        share = SHARE
        share.started.wait()
        pause_until(share.start_s)
        previous: Exchange | None = None
        while (request := share.next()) is not None:
            conversation = Conversation(request)
            while (body := conversation.next_body()) is not None:
                exchange = Exchange(conversation.index, monotonic(), conversation.session)
                ended: AsyncResult = AsyncResult()
                share.client.send(exchange, body, ended.set)
                if previous is not None:
                    share.keep(previous)  # after the next is on its way: writing it down delays nobody
                ended.get()
                previous = exchange
                conversation.hear(exchange)
        if previous is not None:
            share.keep(previous)
        share.user_done()
        self.stop()


class OpenUser(User):
    """The dispatcher: every request at its planned moment, whatever became of those before it."""

    @task
    def work(self) -> None:
        share = SHARE
        share.started.wait()
        for request in share.left:
            planned = share.start_s + request.planned_s
            pause_until(planned)
            if share.stopped.is_set():
                share.sent_none(iter([request]))
                share.sent_none(share.left)
                break
            share.client.send(Exchange(request.index, planned), request.body.encode(), share.keep)
        share.user_done()
        self.stop()


def _headers(job: Job) -> dict[str, str]:
    headers = dict(job.headers)
    if job.api_key_env:
        headers["Authorization"] = f"Bearer {os.environ[job.api_key_env]}"
    return headers


def main() -> None:
    """Runs one job, or Locust's master (`master PORT WORKERS USERS`)."""
    if sys.argv[1] == "master":
        _master(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
        return
    global SHARE
    job = Job.read(Path(sys.argv[1]))
    share = SHARE = Share(job)
    kind = ClosedUser if job.users else OpenUser
    environment = Environment(user_classes=[kind], catch_exceptions=False)
    share.environment = environment
    if job.master_port:
        environment.create_worker_runner("127.0.0.1", job.master_port)
    else:
        runner = environment.create_local_runner()
        runner.start(job.users or 1, spawn_rate=job.users or 1)
    share.client.open(job.users or 16)
    gevent.sleep(0.05)
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection is a pause that would be read as the server's
    listening = gevent.spawn(_listen, share)
    share.started.wait()
    pause_until(share.start_s)
    begun_cpu, begun = time.process_time(), monotonic()
    _watch(share)
    cpu_s = time.process_time() - begun_cpu
    wall_s = monotonic() - begun
    listening.kill(block=False)
    share.raw.close()
    _write_health(share, cpu_s, wall_s)
    os._exit(0)  # everything is on disk; Locust's own goodbye takes seconds


def _listen(share: Share) -> None:
    """Commands from the parent; its end is ours."""
    commands = FileObjectThread(sys.stdin.buffer, "rb")
    _say("ready")
    for line in commands:
        word, _, value = line.decode().strip().partition(" ")
        if word == "start":
            share.start_s = float(value)
            share.client.last_byte_s = share.start_s
            share.started.set()
        elif word == "stop":
            share.stopped.set()
    share.stopped.set()


def _watch(share: Share) -> None:
    """Deadlines, silence, hub delay and progress, until every request has ended."""
    job, client = share.job, share.client
    told = swept = monotonic()
    while not (share.over.is_set() and not client.busy):
        before = monotonic()
        gevent.sleep(TICK_S)
        now = monotonic()
        share.delays.append(now - before - TICK_S)
        if now - swept >= 0.05:
            swept = now
            client.expire(now, job.request_timeout_s)
            oldest = min((x.sent_s for x in client.busy if x.sent_s), default=now)
            if now - max(client.last_byte_s, oldest) > job.silence_timeout_s:
                share.stopped.set()
                client.fail_all("silent", f"no byte on any request for {job.silence_timeout_s:g} s")
            elif share.stopped.is_set() and client.busy:
                client.fail_all("censored", "the load was stopped")
        if now - told >= 0.5:
            told = now
            _say(f"progress {json.dumps({'done': share.finished, 'events': client.events})}")


def _write_health(share: Share, cpu_s: float, wall_s: float) -> None:
    delays = sorted(share.delays)
    data = {
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "events": share.client.events,
        "hub_delay_p99_ms": delays[int(len(delays) * 0.99)] * 1000 if len(delays) >= 100 else None,
        "hub_delay_max_ms": delays[-1] * 1000 if delays else None,
        "dispatch_end_s": share.dispatch_end_s,
        "notes": share.notes,
    }
    share.job.health.write_text(json.dumps(data))


def _master(port: int, workers: int, users: int) -> None:
    """Locust's master: waits for its workers, spreads the users over them, ends when they have gone."""
    environment = Environment(user_classes=[ClosedUser])
    master = environment.create_master_runner("127.0.0.1", port)
    _say("listening")
    while len(master.clients.ready) < workers:
        gevent.sleep(0.02)
    master.start(users, spawn_rate=users)
    while master.clients.all:
        gevent.sleep(0.1)
    os._exit(0)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
