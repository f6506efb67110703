"""The server's histograms against the client: the same truth agrees, a slow client or other users do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.metrics.histogram import Pair, histogram, reconcile, served
from bench.metrics.view import View
from tests.support.histogram_fixture import exposed, measured
from tests.support.synthetic import open_loop


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
