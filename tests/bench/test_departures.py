"""Departures: an honest client is believed at any rate and under any process, a late or bunched one is not."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from bench.checks import judge
from bench.checks.case import Case
from bench.checks.client import arrivals
from bench.client.alarm import Alarm
from bench.client.drive import drive
from bench.metrics.view import View
from bench.point import Load
from bench.proof.calibration import null_server
from bench.records.model import Run
from bench.traffic.arrivals import Times, planned
from bench.traffic.departures import departures
from bench.traffic.prompts import prompts
from serving.engine import Endpoint
from tests.support.synthetic import HEALTHY, point, record

Client = Callable[[Times, np.random.Generator], Times]
PROCESSES = ("poisson", "gamma", "constant", "ramp", "burst", "trace")
RATES = ((1.5, 30), (5.0, 100), (20.0, 400), (100.0, 1000), (300.0, 3000), (1000.0, 5000), (2000.0, 10_000))


def plan(process: str, rate: float, requests: int, seed: int) -> tuple[Load, Times]:
    """A trace is taken from a Poisson process."""
    drawn = "poisson" if process == "trace" else process
    load = Load("w", 8, 8, arrivals=drawn, rate_per_s=rate, requests=requests,  # type: ignore[arg-type]
                cv=2.5, ramp_to_per_s=3 * rate, burst_size=10)  # fmt: skip
    times = planned(load, seed)
    return (replace(load, arrivals="trace", trace="x.csv") if process == "trace" else load), times


def found(load: Load, due: Times, sent: Times) -> str | None:
    """What the check says of requests planned and sent at these times."""
    records = tuple(
        record(i, float(at), lag_s=float(left - at), tokens=1)
        for i, (at, left) in enumerate(zip(due, sent, strict=True))
    )
    run = Run(replace(point(), load=load), records, client=HEALTHY, load_end_s=float(due[-1]))
    finding = arrivals(Case(View(run)))
    return None if finding is None else finding.text


def stalling(long_s: float, every_s: float) -> Client:
    """Held up for so long, about every so many seconds: what was due meanwhile leaves at the end."""

    def client(due: Times, rng: np.random.Generator) -> Times:
        starts = np.cumsum(every_s * rng.uniform(0.8, 1.2, int(2 * due[-1] / every_s) + 10))
        last = np.concatenate([[-long_s], starts])[np.searchsorted(starts, due, "right")]
        return np.maximum(due, last + long_s)

    return client


def whole_milliseconds(due: Times, rng: np.random.Generator) -> Times:
    return np.ceil(due * 1e3) / 1e3 + rng.uniform(0, 1e-4, due.size)


def at_once(due: Times, rng: np.random.Generator) -> Times:
    return due + rng.exponential(5e-5, due.size)


def beside_neighbours(due: Times, rng: np.random.Generator) -> Times:
    """One departure in ten waits for its core, up to 8 ms."""
    return whole_milliseconds(due, rng) + (rng.random(due.size) < 0.1) * rng.uniform(0, 0.008, due.size)


def late_by(seconds: float) -> Client:
    return lambda due, rng: due + seconds


def bunched(seconds: float) -> Client:
    return lambda due, rng: np.ceil(due / seconds) * seconds


def falling_behind(share: float) -> Client:
    """Reaches only so much of the rate."""
    return lambda due, rng: due[0] + (due - due[0]) / share


HONEST = {
    "at once": at_once,
    "whole milliseconds": whole_milliseconds,
    "beside neighbours": beside_neighbours,
    "30 ms stalls": stalling(0.03, 1.0),
    "all 2 ms late": late_by(0.002),
}
DISHONEST = {
    "bunched by 50 ms": (bunched(0.05), 100.0),
    "bunched by 200 ms": (bunched(0.2), 20.0),
    "bunched by 1 s": (bunched(1.0), 20.0),
    "96% of the rate": (falling_behind(0.96), 20.0),
    "stalls of 0.4 s": (stalling(0.4, 1.0), 100.0),
}
"""And the rate from which on it shows: what a gap or ten hide is judged by its lag beside TTFT."""


@pytest.mark.parametrize("process", PROCESSES)
def test_an_honest_client_is_believed_at_every_rate(process: str) -> None:
    """Fresh seeds: 5 clients at 7 rates, 180 runs; not one is refused."""
    seed = secrets.randbits(32)
    rng = np.random.default_rng(seed)
    for name, client in HONEST.items():
        for rate, requests in RATES:
            for _ in range(8 if requests <= 1000 else 1):
                load, due = plan(process, rate, requests, int(rng.integers(1 << 31)))
                why = found(load, due, client(due, rng))
                assert why is None, f"{name} at {rate}/s, seed {seed}: {why}"


@pytest.mark.parametrize("process", ["poisson", "gamma", "constant", "trace"])
@pytest.mark.parametrize("name", DISHONEST)
def test_a_late_or_bunched_client_is_caught_at_every_rate(process: str, name: str) -> None:
    seed = secrets.randbits(32)
    rng = np.random.default_rng(seed)
    client, from_rate = DISHONEST[name]
    for rate in (r for r, _ in RATES if r >= from_rate):
        caught = 0
        for _ in range(5):
            load, due = plan(process, rate, max(1000, int(3 * rate)), int(rng.integers(1 << 31)))
            caught += found(load, due, client(due, rng)) is not None
        assert caught == 5, f"{name} at {rate}/s: {caught} of 5, seed {seed}"


@pytest.mark.parametrize(("process", "cv"), [("poisson", None), ("gamma", 0.3), ("gamma", 2.5)])
@pytest.mark.parametrize("requests", [25, 30, 100, 400])
def test_a_drawn_plan_is_never_called_another_process(process: str, cv: float | None, requests: int) -> None:
    """A campaign has thousands of points: 150 fresh plans a cell, 1,800 in all, and no false alarm."""
    seed = secrets.randbits(31)
    load = Load("w", 8, 8, arrivals=process, rate_per_s=1.5, cv=cv, requests=requests)  # type: ignore[arg-type]
    for number in range(150):
        due = planned(load, seed + number)
        why = found(load, due, due)
        assert why is None, f"seed {seed + number}: {why}"


def test_what_all_are_late_by_is_no_bunching() -> None:
    """A shifted load is the same process; the lateness itself is `schedule_lag`'s."""
    load, due = plan("poisson", 100.0, 2000, 1)
    shifted = departures(due, due + 0.5, 0.01)
    assert shifted is not None
    assert (shifted.moved, shifted.gaps_off) == pytest.approx((0, 0), abs=1e-9)
    run = Run(
        replace(point(), load=load),
        tuple(record(i, float(at), lag_s=0.5) for i, at in enumerate(due)),
        client=HEALTHY,
        load_end_s=float(due[-1]),
    )
    assert next((r.check, r.verdict) for r in judge(run).reasons) == ("schedule_lag", "invalid")


def test_effects_are_shares_and_few_gaps_say_nothing() -> None:
    due = np.arange(1001) / 100.0
    late = due.copy()
    late[:200] += 10.0  # a fifth leaves in other windows
    effect = departures(due, late, 0.01)
    assert effect is not None
    assert effect.window_s == pytest.approx(0.1)
    assert effect.moved == pytest.approx(0.2, abs=0.001)
    assert departures(due[:20], due[:20], 0.01) is None
    assert departures(np.zeros(100), np.zeros(100), 0.01) is None


def test_a_rate_of_which_only_96_percent_was_reached_is_not_believed() -> None:
    """Beside a slow server the lag is small; the window ends with the plan, not with the last one sent."""
    due = np.arange(6000) / 100.0
    records = tuple(
        record(i, float(at), lag_s=float(i / 96 - at), ttft_s=20.0, tokens=2) for i, at in enumerate(due)
    )
    made = point(arrivals="constant", rate_per_s=100.0, requests=6000)
    for end_s in (float(due[-1]), records[-1].sent_s):
        reasons = {r.check: r for r in judge(Run(made, records, client=HEALTHY, load_end_s=end_s)).reasons}
        assert reasons["rate_not_reached"].verdict == "invalid"
        assert "96.0%" in reasons["rate_not_reached"].text


def test_an_alarm_wakes_within_a_fraction_of_a_millisecond() -> None:
    """gevent's own timers are half a millisecond late in the mean, and never better than its clock."""
    lags = []
    with Alarm() as alarm:
        start = monotonic() + 0.01
        for number in range(400):
            moment = start + number * 0.00137
            alarm.wait_until(moment)
            lags.append(monotonic() - moment)
        before = monotonic()
        alarm.wait_until(before - 1)
        assert monotonic() - before < 0.01
    assert min(lags) >= 0
    assert np.quantile(lags, 0.25) < 0.0003, "a busy neighbour may hold up some, not three quarters"


@pytest.mark.parametrize("process", ["poisson", "constant"])
def test_a_thousand_a_second_leave_as_planned(process: str, tmp_path: Path) -> None:
    load = Load("w", 8, 4, arrivals=process, rate_per_s=1000.0, requests=2000)  # type: ignore[arg-type]
    with null_server() as url:
        endpoint = Endpoint(url, "null", "null", "1")
        driven = drive(
            endpoint, load, seed=secrets.randbits(31), prompts=prompts(None), folder=tmp_path / "l"
        )
    due, sent = (np.array([getattr(r, name) for r in driven.records]) for name in ("planned_s", "sent_s"))
    assert found(load, due, sent) is None
    assert driven.load_end_s == pytest.approx(due.max())
    assert driven.client.cpu_share < 0.8
