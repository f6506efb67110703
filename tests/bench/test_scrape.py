"""Scraping must not disturb, must not die, and must not invent."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bench.telemetry import scrape
from bench.telemetry.exposition import Exposition
from bench.telemetry.scrape import ServerProbe
from tests.support.metrics_server import registry_server, scripted


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(scrape, "LONGEST_PAUSE_S", 0.0)


TEXT = '# TYPE q gauge\nq 2\n# TYPE h histogram\nh_bucket{le="+Inf"} 4\nh_count 4\nh_sum 1.5\n'


def names(samples):
    return {sample.name: sample.value for sample in samples}


def test_whole_at_both_ends_and_only_scalars_between():
    registry, paths = CollectorRegistry(), []
    queue = Gauge("vllm:waiting", "text", ["engine"], registry=registry)
    done = Counter("vllm:tokens", "text", registry=registry)
    wait = Histogram("vllm:ttft_seconds", "text", buckets=(0.1,), registry=registry)
    queue.labels("0").set(3)
    with registry_server(registry, paths) as url:
        probe = ServerProbe(url)
        first = names(probe.read())
        done.inc(5)
        wait.observe(0.05)
        between = names(probe.read())
        last = names(probe.read(last=True))
    assert first["server:vllm:ttft_seconds_count"] == 0
    assert between == {"server:vllm:waiting": 3, "server:vllm:tokens_total": 5}
    assert last["server:vllm:ttft_seconds_bucket|le=0.1"] == 1
    assert last["server:vllm:tokens_total"] == 5
    assert paths[0] == paths[3] == "/metrics"
    assert [path.count("name%5B%5D=") for path in paths[1:3]] == [2, 2]
    assert probe.notes == []


def test_a_server_that_ignores_the_names_still_gives_scalars_only():
    with scripted(lambda path: (200, TEXT)) as url:
        probe = ServerProbe(url)
        assert len(probe.read()) == 4 + 1
        assert names(probe.read()) == {"server:q": 2}


def test_a_registry_without_names_is_asked_for_everything():
    asked = []

    def answer(path):
        asked.append(path)
        return 200, "" if "name" in path else TEXT

    with scripted(answer) as url:
        probe = ServerProbe(url)
        probe.read()
        assert names(probe.read()) == {"server:q": 2}
        assert names(probe.read()) == {"server:q": 2}
    assert ["name" in path for path in asked] == [False, True, False, False, False]


@pytest.mark.parametrize("status", [404, 401, 307])
def test_no_metrics_is_said_once_and_not_asked_again(status):
    asked = []

    def answer(path):
        asked.append(path)
        return status, "no"

    with scripted(answer) as url:
        probe = ServerProbe(url)
        assert probe.read() == probe.read() == probe.read(last=True) == []
    assert len(asked) == 1
    assert probe.notes == [f"server series not available: /metrics answers HTTP {status}"]


def test_failures_are_counted_and_the_next_scrape_is_tried():
    answers = iter(
        [*[(200, TEXT)] * 2, *[(500, "busy")] * 2, None, (200, "<html>"), (200, TEXT), (200, TEXT)]
    )
    with scripted(lambda path: next(answers)) as url:
        probe = ServerProbe(url)
        found = [len(probe.read()) for _ in range(5)]
        probe.read(last=True)
    assert found == [5, 0, 0, 0, 1]
    assert probe.failures == 3
    assert probe.notes[0].startswith("3 of 7 scrapes of /metrics failed; the last failure: NotExposition")


def test_a_kept_connection_that_was_closed_is_no_failure():
    with scripted(lambda path: (200, TEXT), keep=False) as url:
        probe = ServerProbe(url)
        assert [len(probe.read()) for _ in range(3)] == [5, 1, 1]
        assert probe.failures == 0


def test_a_redirect_of_the_slash_falls_back_to_the_plain_address():
    with scripted(lambda path: (307, "") if "/metrics/" in path else (200, TEXT)) as url:
        probe = ServerProbe(url)
        probe.read()
        assert names(probe.read()) == {"server:q": 2}
        assert probe.failures == 0


def test_a_costly_answer_is_asked_for_less_often(monkeypatch):
    """5 ms of a server at 0.5% of its time: once a second, and again at the end."""
    monkeypatch.setattr(scrape, "LONGEST_PAUSE_S", 2.0)
    now = [100.0]
    asked = []

    def whole(last):
        asked.append(now[0])
        now[0] += 0.005
        return Exposition({"q": 1.0}, ("q",))

    monkeypatch.setattr("bench.telemetry.scrape.time.monotonic", lambda: now[0])
    probe = ServerProbe("http://127.0.0.1:9")
    monkeypatch.setattr(probe, "_whole", whole)
    monkeypatch.setattr(probe, "_part", lambda: whole(False))
    for _ in range(30):
        probe.read()
        now[0] += 0.1
    probe.read(last=True)
    gaps = [b - a for a, b in pairwise(asked)]
    assert len(gaps) == 3
    assert all(1.0 <= gap <= 1.2 for gap in gaps[:2])


def test_nobody_there():
    with scripted(lambda path: (200, TEXT)) as url:
        pass
    probe = ServerProbe(url)
    assert probe.read() == []
    assert probe.read(last=True) == []
    assert probe.notes[0].startswith("2 of 2 scrapes of /metrics failed; the last failure: ConnectionRefused")


def test_a_slow_answer_is_a_failure_not_a_wait(monkeypatch):
    monkeypatch.setattr(scrape, "TIMEOUT_S", 0.1)
    released = threading.Event()

    def answer(path):
        released.wait(10)
        return 200, TEXT

    with scripted(answer) as url:
        probe = ServerProbe(url)
        assert probe.read() == []
        released.set()
    assert probe.failures == 1


def test_an_endless_answer_is_cut(monkeypatch):
    monkeypatch.setattr(scrape, "LARGEST_BYTES", 1000)
    with scripted(lambda path: (200, "q 1\n" * 1000)) as url:
        probe = ServerProbe(url)
        assert probe.read() == []
    assert probe.failures == 1
