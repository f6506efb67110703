"""Intervals of one run hold its truth, and widen when requests depend on each other."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from bench.metrics import compute
from bench.metrics.intervals import error_within, intervals
from bench.metrics.view import View
from tests.support.synthetic import ar1, closed_loop, open_loop


def alone(rng: np.random.Generator, n: int) -> np.ndarray:
    return 0.1 * np.exp(0.3 * rng.normal(size=n))


def together(rng: np.random.Generator, n: int) -> np.ndarray:
    return 0.1 * np.exp(0.3 * ar1(rng, n, 0.9))


def test_intervals_hold_the_truth():
    """Those there are: correlated requests may be too few independent ones for an interval at p90."""
    truth = {
        "ttft_sent_p50_ms": 100.0,
        "ttft_sent_p90_ms": 100 * math.exp(0.3 * 1.28155),
        "ttft_sent_mean_ms": 100 * math.exp(0.045),
    }
    hits, tried = Counter(), Counter()
    for seed in range(60):
        found = intervals(open_loop(seed=seed, ttft_s=together if seed % 2 else alone))
        for name in truth.keys() & found.keys():
            tried[name] += 1
            hits[name] += found[name].low <= truth[name] <= found[name].high
    assert min(tried[name] for name in truth) >= 30
    assert min(hits[name] / tried[name] for name in truth) >= 0.85, (hits, tried)


def test_dependence_widens_them():
    def width(law) -> float:
        found = [intervals(open_loop(seed=s, ttft_s=law))["ttft_p50_ms"] for s in range(10)]
        return float(np.mean([i.high - i.low for i in found]))

    assert width(together) > 2 * width(alone)


def test_printed_numbers_have_intervals_and_others_none():
    run = closed_loop(users=16, rounds=20)
    found, numbers = intervals(run), compute(run)
    assert numbers["ttft_p99_ms"] is None
    assert "ttft_p99_ms" not in found
    for name in ("ttft_p50_ms", "tpot_mean_ms", "output_token_throughput_per_s", "request_throughput_per_s"):
        assert found[name].low <= numbers[name] <= found[name].high
    assert "itl_p50_ms" not in found


def test_errors_of_rates_come_from_sections():
    error = error_within(View(closed_loop()), "output_token_throughput_per_s")
    assert 0.001 < error < 0.05
    assert error_within(View(open_loop(requests=3)), "output_token_throughput_per_s") is None
