"""Locust's users: N that wait for their answers (closed loop), or one dispatcher of a schedule (open)."""

from __future__ import annotations

from time import monotonic
from typing import ClassVar

from gevent.event import AsyncResult
from locust import User, task

from bench.client.alarm import Alarm
from bench.client.client import pause_until
from bench.client.exchange import Exchange
from bench.client.share import WorkerShare
from bench.client.turns import Conversation


class LoadUser(User):  # type: ignore[misc]
    """Waits for the common start. One that comes later (Locust refills after losses) changes nothing."""

    abstract = True
    share: ClassVar[WorkerShare]

    @task  # type: ignore[untyped-decorator]
    def work(self) -> None:
        share = self.share
        if not share.started.is_set():
            share.started.wait()
            pause_until(share.start_s)
            self.send_all(share)
            share.user_done()
        self.stop()

    def send_all(self, share: WorkerShare) -> None:
        raise NotImplementedError


class ClosedUser(LoadUser):
    """Sends, waits for the end, sends the next."""

    def send_all(self, share: WorkerShare) -> None:
        while (request := share.next()) is not None:
            conversation = Conversation(request)
            while (body := conversation.next_body()) is not None:
                exchange = Exchange(
                    conversation.index, monotonic(), conversation.session, asked_tokens=request.output_tokens
                )
                ended: AsyncResult = AsyncResult()
                share.client.send(exchange, body, ended.set)
                ended.get()
                share.keep(exchange)
                conversation.hear(exchange)


class OpenUser(LoadUser):
    """The dispatcher: every request at its planned moment, whatever became of those before it."""

    def send_all(self, share: WorkerShare) -> None:
        left = iter(share.planned)
        with Alarm() as alarm:
            for request in left:
                planned = share.start_s + request.planned_s
                alarm.wait_until(planned)
                if share.stopped.is_set():
                    share.never_sent(iter([request]))
                    share.never_sent(left)
                    return
                exchange = Exchange(request.index, planned, asked_tokens=request.output_tokens)
                share.client.send(exchange, request.body.encode(), share.keep)
