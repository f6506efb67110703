"""The server's histograms against the client: the same truth agrees, a slow client or other users do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.metrics.histogram import Pair, histogram, reconcile, served
from bench.metrics.view import View
from bench.records.model import Run, Sample
from tests.support.synthetic import open_loop

VLLM_TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
VLLM_E2E_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0)


def exposed(name: str, values, edges=VLLM_TTFT_S, before: float = 100.0) -> list[Sample]:
    """A histogram read before and after the run; `before`: what it had counted earlier, in every bucket."""
    out = []
    for edge in (*edges, float("inf")):
        series = f"server:{name}_bucket|le={edge if np.isfinite(edge) else '+Inf'}"
        count = float(sum(v <= edge for v in values))
        out += [Sample(-0.5, series, before), Sample(99.0, series, before + count)]
    return out


def measured(shift_s: float = 0.0, extra: int = 0) -> Run:
    run = open_loop(ttft_s=lambda rng, n: 0.05 + rng.exponential(0.05, n))
    ttft = [r.first_s - r.sent_s - shift_s for r in run.records]
    e2e = [r.last_s - r.sent_s - shift_s for r in run.records] + [1.0] * extra
    samples = exposed("vllm:time_to_first_token_seconds", ttft)
    samples += exposed("vllm:e2e_request_latency_seconds", e2e, VLLM_E2E_S)
    return replace(run, samples=tuple(samples))


def test_the_same_truth_agrees():
    pairs = reconcile(View(measured()))
    assert {(p.latency, p.statistic) for p in pairs} == {
        (a, b) for a in ("TTFT", "E2E") for b in ("p50", "p90")
    }
    assert all(p.low_s < p.client_s <= p.high_s for p in pairs)
    assert all(p.agrees for p in pairs)


def test_time_lost_between_the_two_is_seen():
    run = measured(shift_s=0.04)
    assert not all(p.agrees for p in reconcile(View(run)))


def test_what_an_api_server_takes_outside_its_stamps_is_no_loss():
    """Below 20 ms vLLM's buckets are 5 ms wide, and less: parsing and sending take as much."""
    assert Pair("TTFT", "p50", 0.014, 0.001, 0.005).agrees
    assert not Pair("TTFT", "p50", 0.016, 0.001, 0.005).agrees
    assert Pair("TTFT", "p50", 0.39, 0.1, 0.25).agrees
    assert not Pair("TTFT", "p50", 0.41, 0.1, 0.25).agrees


def test_other_users_are_counted():
    assert served(View(measured())) == 800
    assert served(View(measured(extra=50))) == 850


def test_a_histogram_of_other_requests_is_not_compared():
    assert {p.latency for p in reconcile(View(measured(extra=500)))} == {"TTFT"}


def test_nothing_sampled_nothing_said():
    view = View(open_loop())
    assert reconcile(view) == []
    assert served(view) is None


@settings(deadline=None)
@given(st.lists(st.floats(0.0005, 20), min_size=1, max_size=80), st.sampled_from([0.5, 0.9]))
def test_the_bucket_holds_the_quantile(values, q):
    run = replace(open_loop(requests=1), samples=tuple(exposed("x", values)))
    found = histogram(View(run), "x")
    assert found is not None
    assert found.count == len(values)
    low, high = found.bucket(q)
    exact = sorted(values)[max(1, int(np.ceil(q * len(values) - 1e-9))) - 1]
    assert low < exact <= high or exact == pytest.approx(low)
