"""Sends the items of one pass through a fixed number of workers, and notices when nobody answers any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bench.accuracy.client import AskError, Client
from bench.accuracy.journal import Entry, Journal
from bench.accuracy.limits import LATER, Backoff
from bench.accuracy.task import Answer, Ask, Item, Pass, Task, prompt_hash

RETRIES_S = (0.2, 1.0)
"""Waits before a request whose connection failed is tried again."""
TELL_S = 0.25
GRACE_S = 1.0
"""How long after the end of its time a request may still be answered."""


class Halt(Exception):  # noqa: N818
    """The server is of no further use. `silent`: it holds connections open and does not answer."""

    def __init__(self, why: str, *, silent: bool) -> None:
        super().__init__(why)
        self.silent = silent


class Tells(Protocol):
    def evaluating(self, task: str, done: int, total: int, items_per_s: float) -> None: ...


@dataclass(frozen=True)
class Round:
    """The items of one pass still to be asked; `ends` is when to stop asking (monotonic, seconds)."""

    task: Task
    part: Pass
    items: tuple[Item, ...]
    ends: float | None
    done: int
    total: int


async def ask_all(
    client: Client,
    work: Round,
    users: int,
    log: Journal,
    watch: Tells,
    scored: Callable[[Item, tuple[Answer, ...]], bool],
    alive: Callable[[], bool] | None,
    backoff: Backoff,
) -> int:
    """Requests sent. `scored` is told each item and may end the round by answering True. Halt: see there."""
    line = _Line(client, alive, users, backoff)
    waiting = iter(work.items)
    started = told = time.monotonic()
    stop = False
    finished = 0

    async def worker() -> None:
        nonlocal stop, finished, told
        for item in waiting:
            if stop or (work.ends is not None and time.monotonic() >= work.ends):
                return
            began = time.monotonic()
            asks = work.task.asks(item)
            answers: tuple[Answer, ...] = ()
            error = ""
            try:
                answers = tuple([await line.ask(ask) for ask in asks])
            except AskError as problem:
                error = str(problem)
            took = time.monotonic() - began
            log.add(Entry(item.id, work.part.name, prompt_hash(asks), answers, error, took))
            finished += 1
            stop = scored(item, answers) or stop
            now = time.monotonic()
            if now - told > TELL_S:
                told = now
                watch.evaluating(work.task.name, work.done + finished, work.total, finished / (now - started))

    # A request under way when time is up is given up soon after: one slow answer must not cost a trial.
    over = None if work.ends is None else max(0.0, work.ends - started) + GRACE_S
    try:
        async with asyncio.timeout(over), asyncio.TaskGroup() as group:
            for _ in range(min(users, len(work.items))):
                group.create_task(worker())
    except TimeoutError:
        stop = True
    except BaseExceptionGroup as several:
        # Workers see the same death at once; one of them is enough to tell it.
        halted, others = several.split(Halt)
        if halted is None or others is not None:
            raise
        raise _first(halted) from several
    if finished:
        rate = finished / max(1e-9, time.monotonic() - started)
        watch.evaluating(work.task.name, work.done + finished, work.total, rate)
    return line.sent


class _Line:
    """Requests with retries; counts how long nobody has answered."""

    def __init__(
        self, client: Client, alive: Callable[[], bool] | None, users: int, backoff: Backoff
    ) -> None:
        self._client, self._alive, self._patience = client, alive, max(3, users)
        self._backoff = backoff
        self.sent = 0
        self._timeouts = 0

    async def ask(self, ask: Ask) -> Answer:
        waits, refused = iter(RETRIES_S), 0
        while True:
            try:
                self.sent += 1
                answer = await self._client.ask(ask)
            except AskError as error:
                self._timeouts = self._timeouts + 1 if error.kind == "timeout" else 0
                if self._timeouts >= self._patience:
                    raise Halt(f"{self._timeouts} requests in a row timed out", silent=True) from error
                if not error.gone and error.status not in LATER:
                    raise
                if self._alive is not None and not self._alive():
                    raise Halt(f"the server died: {error}", silent=False) from error
                if error.status in LATER:
                    wait = self._backoff.wait_s(error, refused)
                    refused += 1
                else:
                    wait = next(waits, None)
                if wait is None:
                    if error.status is None:
                        raise Halt(
                            f"no connection, tried {len(RETRIES_S) + 1} times: {error}", silent=False
                        ) from error
                    raise
                await asyncio.sleep(wait)
            else:
                self._timeouts = 0
                self._backoff.passed()
                return answer


def _first(group: BaseExceptionGroup[Halt]) -> Halt:
    inner = group.exceptions[0]
    return inner if isinstance(inner, Halt) else _first(inner)
