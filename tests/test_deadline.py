"""Long answers go on, silent ones end: by the pure rule, through the load processes, and what it is called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from load_fixture import CLOSED, run, url

from bench.load.deadline import Deadline, first_within_s
from bench.load.drive import NO_CLIENT, Drive
from bench.load.exchange import LEFT_OPEN, Exchange
from bench.measure import _failure
from bench.records import Record, RequestError
from serving.config import ServingConfig
from serving.errors import Failure, FailureKind
from serving.process import Server

__all__ = ["url"]
EVENT = b'data: {"choices": []}\n\n'


def given_up(events: list[float], asked: int, timeout_s: float, until_s: float) -> float | None:
    """When a request with events at these moments is given up, looked at every 50 ms; None: it is not."""
    exchange, deadline = Exchange(0, 0.0, sent_s=0.0, asked_tokens=asked), Deadline(timeout_s)
    left, now = list(events), 0.0
    while now < until_s:
        now += 0.05
        while left and left[0] <= now:
            exchange.stamps.append(left.pop(0))
            exchange.parts.append(EVENT)
        if deadline.why_over(exchange, now):
            return now
    return None


@settings(max_examples=40, deadline=None)
@given(pace_s=st.floats(0.02, 0.9), tokens=st.integers(20, 400), a_token=st.integers(1, 8))
def test_an_answer_that_keeps_coming_is_never_given_up(pace_s: float, tokens: int, a_token: int) -> None:
    events = [0.5 + pace_s * i for i in range(tokens // a_token)]
    assert given_up(events, tokens, 1.0, events[-1] + 0.5) is None


@settings(max_examples=40, deadline=None)
@given(pace_s=st.floats(0.02, 0.9), before=st.integers(0, 60))
def test_silence_ends_it_within_the_deadline(pace_s: float, before: int) -> None:
    events = [0.2 + pace_s * i for i in range(before)]
    ended = given_up(events, 500, 1.0, 120.0)
    assert ended == pytest.approx(max(1.0, (events[-1] if events else 0.0) + 1.0), abs=0.11)


@settings(max_examples=20, deadline=None)
@given(pace_s=st.floats(0.01, 0.3), tokens=st.integers(1, 50))
def test_an_answer_without_end_ends(pace_s: float, tokens: int) -> None:
    ended = given_up([pace_s * (i + 1) for i in range(20_000)], tokens, 1.0, 600.0)
    assert ended is not None
    assert ended <= max(1.1, 2.5 * pace_s * (2 * tokens + 16) + 1.1)


def test_the_first_event_of_a_long_answer_may_take_longer() -> None:
    assert first_within_s(120, 64) == 120
    assert first_within_s(120, 32_768) > 3000
    assert given_up([], 64, 1.0, 60) == pytest.approx(1.0, abs=0.1)
    assert given_up([], 1200, 1.0, 60) == pytest.approx(21.0, abs=0.1)


def test_a_healthy_long_answer_outlives_the_deadline(url: str, tmp_path: Path) -> None:
    """Warm-up, closed loop and open loop, of answers three times as long as the deadline."""
    long = replace(CLOSED, output_tokens=60, requests=4, warmup_requests=2, request_timeout_s=1.0)
    closed = run(url, long, tmp_path / "c", "plain:50:50")
    arriving = replace(long, arrivals="constant", rate_per_s=4.0, concurrency=None)
    opened = run(url, arriving, tmp_path / "o", "plain:50:50")
    for driven in (closed, opened):
        assert [r.error for r in driven.records] == [None] * 4
        assert not driven.client.notes


def test_an_answer_that_is_not_streamed_may_be_silent_for_its_length(url: str, tmp_path: Path) -> None:
    load = replace(CLOSED, concurrency=1, requests=1, output_tokens=1010, stream=False, request_timeout_s=0.3,
                   silence_timeout_s=0.3)  # fmt: skip
    driven = run(url, load, tmp_path, "late_whole")
    assert [r.error for r in driven.records] == [None]


class Alive:
    child, config = None, ServingConfig(engine="vllm", model="m", device="cuda")
    why_silent = Server.why_silent

    def alive(self) -> bool:
        return True


def timed_out(last_s: float | None, error: RequestError = RequestError.TIMEOUT) -> Record:
    events = () if last_s is None else (1.0, last_s)
    return Record(0, 0.0, 0.001, first_s=1.0 if events else None, last_s=last_s, closed_s=120.02,
                  event_s=events, error=error)  # fmt: skip


def test_what_streamed_until_its_end_does_not_hang() -> None:
    def failure(*records: Record) -> Failure | None:
        return _failure(Alive(), Drive(records, NO_CLIENT, 120.0, 0.0, 0.0))  # type: ignore[arg-type]

    assert failure(*[timed_out(119.99)] * 64) is None
    assert failure(timed_out(119.99), timed_out(None)) is None
    for silent in (timed_out(None), timed_out(30.0), timed_out(119.99, RequestError.SILENT)):
        found = failure(silent, silent)
        assert found is not None
        assert found.kind is FailureKind.HANG


def test_an_answer_left_open_is_whole_and_costs_no_time(url: str, tmp_path: Path) -> None:
    load = replace(CLOSED, concurrency=2, requests=4, output_tokens=16, request_timeout_s=3.0)
    driven = run(url, load, tmp_path, "open_after_done")
    assert [r.error for r in driven.records] == [None] * 4
    assert all(r.last_s - r.sent_s < 0.4 for r in driven.records)
    assert max(r.closed_s for r in driven.records) < 3
    assert {r.error_detail for r in driven.records} == {LEFT_OPEN}
