"""Calibration: its ladder and cache on made-up steps, and one real step against the null server."""

from __future__ import annotations

import json
import socket
import urllib.request
from dataclasses import replace

import pytest

from bench.proof import calibration
from bench.proof.calibration import FEWER_STREAMS, STREAMS, Calibration, CalibrationStep

GOOD = CalibrationStep(64, 5000.0, 0.3, 1.0, 1.0, 0.999, 0.2, 8.0)


def machine(monkeypatch, honest_up_to: int) -> list[int]:
    """A machine whose client is truthful up to so many streams; returns what was tried."""
    tried: list[int] = []

    def measure(streams: int, workers: int = 1) -> CalibrationStep:
        tried.append(streams)
        late = 0.5 if streams <= honest_up_to else 30.0
        return replace(GOOD, streams=streams, events_per_s=streams * 70.0, first_p99_ms=late)

    monkeypatch.setattr(calibration, "measure", measure)
    return tried


def test_the_ladder_ends_at_the_last_honest_step(monkeypatch):
    tried = machine(monkeypatch, 700)
    assert calibration.calibrate().events_per_s == 512 * 70
    assert tried == [64, 256, 512, 768, 768]


def test_a_slow_machine_is_tried_downwards(monkeypatch):
    tried = machine(monkeypatch, 20)
    assert calibration.calibrate().events_per_s == 16 * 70
    assert tried == [STREAMS[0]] * 2 + [32, 32, 16]


def test_a_machine_that_cannot_time_anything_has_no_honest_rate(monkeypatch):
    machine(monkeypatch, 0)
    found = calibration.calibrate()
    assert found.events_per_s == 0
    assert len(found.steps) == 2 * (1 + len(FEWER_STREAMS))


@pytest.mark.parametrize(
    "bad",
    [
        {"first_median_ms": 4.0},
        {"first_p99_ms": 9.0},
        {"last_p99_ms": 9.0},
        {"offered_share": 0.97},
        {"cpu_share": 0.99},
    ],
)
def test_what_makes_a_step_dishonest(bad):
    assert GOOD.honest
    assert not replace(GOOD, **bad).honest


def test_it_is_measured_once_a_machine_and_client(monkeypatch, tmp_path):
    tried = machine(monkeypatch, 10_000)
    first = calibration.calibration(1, tmp_path)
    assert calibration.calibration(1, tmp_path) == first
    assert len(tried) == len(STREAMS)
    calibration.calibration(2, tmp_path)
    assert len(tried) == 2 * len(STREAMS), "other workers, another calibration"
    monkeypatch.setattr(calibration, "_installed", lambda: "gevent 99")
    calibration.calibration(1, tmp_path)
    assert len(tried) == 3 * len(STREAMS), "another client, another calibration"
    assert Calibration.from_json(json.loads(json.dumps(first.as_json()))) == first


def test_a_real_step_times_every_event(tmp_path):
    """Loose bounds: the machine of a test may be busy. The order of magnitude must be right."""
    step = calibration.measure(8)
    assert 8 * 40 < step.events_per_s < 8 * 100
    assert 0 <= step.first_median_ms < 50
    assert 0.8 < step.offered_share <= 1.0
    assert 0 < step.cpu_us_per_event < 1000


def test_the_null_server_ends_with_its_user():
    with calibration.null_server() as url, urllib.request.urlopen(f"{url}/truth") as answer:
        assert json.load(answer) == []
    port = int(url.rsplit(":", 1)[1])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
