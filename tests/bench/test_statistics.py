"""Percentiles, floors and intervals: exact cases, properties, and coverage by seeded simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.metrics.statistics import (
    effective_size,
    floor,
    mser,
    order_interval,
    percentile,
)
from tests.support.synthetic import ar1

FINITE = st.floats(min_value=-1e6, max_value=1e6)


@settings(deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0]))
def test_nearest_rank_is_a_value_with_enough_below_and_not_too_many(values, q):
    found = percentile(np.array(values), q)
    at_most = sum(v <= found for v in values)
    below = sum(v < found for v in values)
    assert found in values
    assert at_most >= q * len(values) - 1e-6
    assert below < q * len(values) + 1e-6


def test_nearest_rank_is_not_fooled_by_binary_fractions():
    hundred = np.arange(1.0, 101.0)
    assert [percentile(hundred, q) for q in (0.5, 0.9, 0.95, 0.99, 0.07)] == [50, 90, 95, 99, 7]


@pytest.mark.parametrize(
    ("q", "n"), [(0.5, 11), (0.75, 24), (0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)]
)
def test_floors_are_those_of_mlperf_early_stopping(q, n):
    assert floor(q) == n
    from scipy.stats import binom

    assert binom.cdf(1, n, 1 - q) <= 0.01 < binom.cdf(1, n - 1, 1 - q)


@pytest.mark.parametrize(("q", "n"), [(0.5, 30), (0.9, 100), (0.99, 700)])
def test_order_interval_covers(q, n):
    rng = np.random.default_rng(3)
    truth = -math.log(1 - q)
    hits = 0
    for _ in range(600):
        interval = order_interval(rng.exponential(size=n), q)
        assert interval is not None
        hits += interval.low <= truth <= interval.high
    assert hits / 600 >= 0.93


def test_order_interval_is_refused_when_no_order_statistic_can_bound_it():
    assert order_interval(np.arange(100.0), 0.99) is None
    assert order_interval(np.arange(5.0), 0.5) is None


def test_order_interval_widens_with_a_smaller_effective_size():
    values = np.arange(1000.0)
    wide, narrow = order_interval(values, 0.5, effective=100), order_interval(values, 0.5)
    assert wide is not None
    assert narrow is not None
    assert wide.low < narrow.low < narrow.high < wide.high


def test_order_interval_covers_correlated_values_only_with_their_effective_size():
    rng = np.random.default_rng(4)
    naive = honest = 0
    for _ in range(200):
        values = ar1(rng, 2000, 0.8)
        plain = order_interval(values, 0.5)
        aware = order_interval(values, 0.5, effective=effective_size(values))
        assert plain is not None
        assert aware is not None
        naive += plain.low <= 0 <= plain.high
        honest += aware.low <= 0 <= aware.high
    assert honest >= 180
    assert naive < 140, "the naive interval must be seen to fail, or this test proves nothing"


@pytest.mark.parametrize(("phi", "least", "most"), [(0.0, 0.6, 1.0), (0.8, 0.06, 0.25), (0.95, 0.01, 0.08)])
def test_effective_size_follows_the_autocorrelation(phi, least, most):
    rng = np.random.default_rng(5)
    shares = [effective_size(ar1(rng, 4000, phi)) / 4000 for _ in range(40)]
    assert least <= float(np.median(shares)) <= most  # theory: (1 - phi) / (1 + phi) = 1, 0.11, 0.026


@settings(deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=300))
def test_effective_size_is_between_one_and_n(values):
    assert 1 <= effective_size(np.array(values)) <= len(values)


def test_mser_cuts_a_ramp_and_leaves_steady_data_alone():
    rng = np.random.default_rng(6)
    steady = rng.normal(100, 5, 90)
    ramp = np.linspace(0, 90, 20)
    assert 15 <= mser(np.concatenate([ramp, steady])) <= 30
    assert mser(np.full(100, 7.0)) == 0
    assert mser(7 + 1e-12 * rng.normal(size=100)) == 0
    kept = [1 - mser(100 + 10 * ar1(rng, 100, 0.8)) / 100 for _ in range(100)]
    assert float(np.median(kept)) >= 0.9


@settings(deadline=None)
@given(st.lists(FINITE, min_size=0, max_size=120))
def test_mser_never_cuts_more_than_half(values):
    assert 0 <= mser(np.array(values)) <= len(values) / 2
