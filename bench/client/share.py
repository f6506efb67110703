"""Share: one load process's part of a load while it runs: what is left to send, what came back."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic
from typing import Any

import gevent
from gevent.event import AsyncResult, Event

from bench.client.client import Client
from bench.client.deadline import Deadline
from bench.client.exchange import Exchange
from bench.client.job import LoadJob, Request, read_requests
from bench.client.response import parse
from bench.records.model import RequestError
from bench.traffic.prompts import own
from serving import wire
from serving.keys import authorization, masked

LONG_BACKLOG = 2000
"""Exchanges waiting to be written from which on they get ten times the time."""


class WorkerShare:
    """Filled in by the process (`locust_run`), used by its users. Stamps are CLOCK_MONOTONIC seconds."""

    def __init__(self, job: LoadJob) -> None:
        self.job = job
        self.planned = read_requests(job.requests)
        self.client = Client(job.url, job.path, _headers(job))
        self.raw = job.raw.open("wb")
        self.deadline = Deadline(job.request_timeout_s)
        self.start_s = 0.0
        self.started, self.stopped, self.over = Event(), Event(), Event()
        self.why_stopped = "the load was stopped"
        self.users_left = 0
        self.finished = 0
        self.delays: list[float] = []
        self.notes: list[str] = []
        self.environment: Any = None
        self.last_sent_s: float | None = None
        self._taken = 0
        self._ended: deque[Exchange] = deque()

    def warm_up(self, say: Callable[[str], None]) -> None:
        """Sends the warm-up requests; none is recorded. After one that is given up no further is sent.

        say: told every second that we are at it, so that the parent knows how long to wait.
        """
        left = read_requests(self.job.warmups)
        count = len(left)
        failed: list[str] = []
        given_up = False

        def one_after_the_other() -> None:
            nonlocal given_up
            while left and not given_up:
                request = left.pop()
                exchange = Exchange(-1, monotonic(), asked_tokens=request.output_tokens)
                ended: AsyncResult = AsyncResult()
                self.client.send(exchange, request.body.encode(), ended.set)
                ended.get()
                self.deadline.forget(exchange)
                answer = parse(exchange)
                if answer.error is not None:
                    said = masked(answer.detail, self.job.api_key_env)
                    failed.append(f"{answer.error.value}: {wire.line(said)}")
                given_up = given_up or answer.error is RequestError.TIMEOUT

        warming = [gevent.spawn(one_after_the_other) for _ in range(min(self.job.warm_users, count))]
        told = monotonic()
        while not all(greenlet.dead for greenlet in warming):
            gevent.joinall(warming, timeout=0.05)
            now = monotonic()
            self.client.expire(now, self.deadline)
            if now - told > 1.0:
                told = now
                say("warming up")
        if failed or left:
            what = failed[0] if failed else "not sent"
            self.notes.append(f"{len(failed) + len(left)} of {count} warm-up requests failed: {what}")
        self.client.events = 0

    def next(self) -> Request | None:
        """The next request of a closed loop; None when the load has ended."""
        if self.stopped.is_set():
            return None
        if self.job.duration_s is not None and monotonic() - self.start_s >= self.job.duration_s:
            return None
        number, count = self._taken, len(self.planned)
        if number < count:
            self._taken += 1
            return self.planned[number]
        if not self.job.own_words or not count:
            return None
        self._taken += 1
        return self._renewed(self.planned[number % count], number * self.job.workers + self.job.worker)

    def _renewed(self, request: Request, number: int) -> Request:
        """A request used before, beginning with words that no other has: its prefix is in no cache."""
        words = request.own.split(" ")
        fresh = " ".join(own(self.job.own_words, number).split(" ")[: len(words)])
        at, turns = request.own_at, len(request.follow_ups) + 1
        return replace(
            request,
            index=number * turns,
            session=None if request.session is None else number,
            own=fresh,
            body=request.body[:at] + fresh + request.body[at + len(request.own) :],
        )

    def keep(self, exchange: Exchange) -> None:
        """One exchange is over; it is written down when there is time (`write_down`)."""
        self.finished += 1
        self.deadline.forget(exchange)
        self._ended.append(exchange)

    def write_down(self, budget_s: float) -> None:
        """What is over goes to disk and is told to Locust, for so long: a burst of ends delays no read."""
        until = monotonic() + (budget_s if len(self._ended) < LONG_BACKLOG else 10 * budget_s)
        while self._ended and monotonic() < until:
            self._write(self._ended.popleft())

    def _write(self, exchange: Exchange) -> None:
        if exchange.sent_s is not None:
            self.last_sent_s = max(self.last_sent_s or 0.0, exchange.sent_s)
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

    def never_sent(self, requests: Iterator[Request]) -> None:
        """Open loop, stopped early: what was planned and never sent is censored, not dropped."""
        for request in requests:
            planned = self.start_s + request.planned_s
            self.keep(Exchange(request.index, planned, error="censored", detail=self.why_stopped))

    def user_done(self) -> None:
        self.users_left -= 1
        if self.users_left == 0:
            self.over.set()

    def write_health(self, cpu_s: float, wall_s: float) -> None:
        """What this process cost and how late its hub ran, for the parent."""
        delays = sorted(self.delays)
        data = {
            "cpu_s": cpu_s,
            "wall_s": wall_s,
            "events": self.client.events,
            "hub_delay_p99_ms": delays[int(len(delays) * 0.99)] * 1000 if len(delays) >= 100 else None,
            "hub_delay_max_ms": delays[-1] * 1000 if delays else None,
            "last_sent_s": self.last_sent_s,
            "notes": self.notes,
        }
        self.job.health.write_text(json.dumps(data))


def _headers(job: LoadJob) -> dict[str, str]:
    return {**job.headers, **authorization(job.api_key_env)}
