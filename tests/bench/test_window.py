"""The steady window: ramp and drain out, steady data kept, a refusal with its reason when too short."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.metrics.view import View
from bench.records.model import Run
from tests.support.synthetic import closed_loop, gauge, open_loop, record


def exponential(rng: np.random.Generator, n: int) -> np.ndarray:
    return 0.05 + rng.exponential(0.05, n)


def test_a_steady_open_loop_loses_little_more_than_its_filling():
    kept = []
    for seed in range(30):
        window = View(open_loop(seed=seed, ttft_s=exponential)).window
        assert not window.whole
        assert window.start_s >= 0.25, "one request duration fills the system"
        kept.append(window.length_s / window.end_s)
    assert np.median(kept) >= 0.95


def test_steady_runs_are_rarely_said_to_drift():
    drifting = 0
    for seed in range(60):
        for run in (open_loop(seed=seed, ttft_s=exponential), closed_loop(seed=seed)):
            drifting += any(abs(d.t) > 4.5 and abs(d.change) > 0.15 for d in View(run).window.drifts)
    assert drifting <= 3


def test_a_slow_start_is_cut():
    """The first fifth waits five times as long for its first token, as while graphs are captured."""

    def slow_start(rng: np.random.Generator, n: int) -> np.ndarray:
        return exponential(rng, n) * np.where(np.arange(n) < n // 5, 5, 1)

    view = View(open_loop(requests=1000, ttft_s=slow_start))
    ends_s = float(view.requests.planned[200])
    assert 0.9 * ends_s <= view.window.start_s <= 1.5 * ends_s


def test_a_server_signal_alone_moves_the_window():
    filling = gauge("server:vllm:kv_cache_usage_perc", lambda t: min(t / 6, 1.0) * 0.8, 16)
    assert View(open_loop()).window.start_s < 1
    assert View(open_loop(samples=filling)).window.start_s > 3


def test_drain_is_out_of_the_window_and_of_the_throughput():
    run = closed_loop(users=8, rounds=30, jitter=0.0)
    straggler = record(999, run.load_end_s - 0.1, ttft_s=60.0)
    view = View(replace(run, records=(*run.records, straggler)))
    assert view.window.end_s == run.load_end_s
    assert view.inside[[r.index == 999 for r in view.records]].all(), "the straggler is timed all the same"


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (closed_loop(users=2, rounds=3), "completed requests"),
        (closed_loop(users=30, rounds=1), "request durations"),
        (Run(open_loop().point), "no request was sent"),
    ],
)
def test_too_short_a_run_is_taken_whole_with_its_reason(run, why):
    window = View(run).window
    assert window.whole
    assert why in window.reason


def test_a_queue_without_end_drifts():
    def growing(rng: np.random.Generator, n: int) -> np.ndarray:
        return 0.1 + np.arange(n) * 0.005

    drifts = {d.signal: d for d in View(open_loop(ttft_s=growing)).window.drifts}
    assert drifts["requests in flight"].change > 0.75
    assert drifts["time to first token"].t > 4.5
