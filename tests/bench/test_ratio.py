"""The ratio test: equals are called different at most 5 times in 100, whatever makes them noisy."""

from __future__ import annotations

import secrets

import numpy as np
import pytest

from bench.metrics.ratio import block_interval, ratio, relative_error
from bench.metrics.statistics import percentile
from tests.support.synthetic import ar1

TRIALS = 2000
MOST = 0.05 + 3 * (0.05 * 0.95 / TRIALS) ** 0.5


def launches(rng, count, spread, effect=1.0, repeats=1):
    return [list(effect * np.exp(rng.normal(0, spread) + rng.normal(0, 0.01, repeats))) for _ in range(count)]


@pytest.mark.parametrize("count", [(2, 2), (3, 3), (5, 5), (1, 4)])
@pytest.mark.parametrize("spread", [0.01, 0.05])
def test_equals_with_restart_spread_are_rarely_different(count, spread):
    rng = np.random.default_rng(10)
    wrong = sum(
        ratio(launches(rng, count[0], spread), launches(rng, count[1], spread)).different
        for _ in range(TRIALS)
    )
    assert wrong / TRIALS <= MOST


def test_repeats_on_one_launch_do_not_pass_for_launches():
    """Ten repeats on each of two launches are two pieces of evidence, not twenty."""
    rng = np.random.default_rng(11)
    wrong = sum(
        ratio(launches(rng, 2, 0.05, repeats=10), launches(rng, 2, 0.05, repeats=10)).different
        for _ in range(TRIALS)
    )
    assert wrong / TRIALS <= MOST


def test_five_launches_find_five_percent_when_restarts_spread_by_one():
    rng = np.random.default_rng(12)
    found = sum(
        ratio(launches(rng, 5, 0.01), launches(rng, 5, 0.01, effect=1.05)).different for _ in range(500)
    )
    assert found / 500 >= 0.95


def test_one_launch_a_side_allows_for_restarts_it_has_not_seen():
    rng = np.random.default_rng(13)
    wrong = 0
    for _ in range(TRIALS):
        a, b = launches(rng, 1, 0.02), launches(rng, 1, 0.02)
        found = ratio(a, b, (0.01, 0.01))
        wrong += found.different
        assert found.between is None
        assert "one launch a side" in found.note
    assert wrong / TRIALS <= MOST


def test_spreads_between_and_within_are_told_apart():
    rng = np.random.default_rng(14)
    found = ratio(launches(rng, 200, 0.05, repeats=5), launches(rng, 200, 0.05, repeats=5))
    assert found.between == pytest.approx(0.05, rel=0.15)
    assert found.within == pytest.approx(0.01, rel=0.15)


def test_equal_values_give_a_point():
    found = ratio([[2.0], [2.0]], [[3.0], [3.0]])
    assert (found.ratio, found.interval.low) == (pytest.approx(1.5), pytest.approx(1.5))
    assert found.different


@pytest.mark.parametrize("phi", [0.0, 0.8])
@pytest.mark.parametrize("q", [None, 0.5, 0.9])
def test_block_interval_covers_autocorrelated_values(phi, q):
    """Log-normal values whose logarithms follow AR(1): truth is known."""
    rng = np.random.default_rng(15)
    normal = {None: None, 0.5: 0.0, 0.9: 1.2815515655446004}[q]
    truth = np.exp(0.02) if normal is None else np.exp(0.2 * normal)
    hits = 0
    for seed in range(150):
        values = np.exp(0.2 * ar1(rng, 900, phi))
        interval = block_interval(
            values, lambda x: float(x.mean()) if q is None else percentile(x, q), seed=seed
        )
        assert interval is not None
        hits += interval.low <= truth <= interval.high
    assert hits / 150 >= 0.88


def test_relative_error_is_refused_below_64_values():
    assert relative_error(np.ones(63), lambda x: float(x.mean())) is None
    assert relative_error(np.ones(64), lambda x: float(x.mean())) == 0.0


@pytest.mark.parametrize(("pairs", "least_found"), [(2, 0.15), (3, 0.5), (5, 0.9)])
def test_pairs_keep_their_word_and_find_what_single_launches_cannot(pairs: int, least_found: float) -> None:
    """Fresh seed: draws move both sides by 30%, launches by 1%, runs by 1%. 1,000 comparisons a cell."""
    seed = secrets.randbits(31)
    rng = np.random.default_rng(seed)

    def different(effect: float, *, paired: bool) -> float:
        found = 0
        for _ in range(1000):
            draws, own = rng.normal(0, 0.3, pairs), np.hypot(0.01, 0.01)
            a, b = (draws + rng.normal(0, own, pairs) for _ in range(2))
            sides = ([[float(x)] for x in np.exp(a)], [[float(x)] for x in (1 + effect) * np.exp(b)])
            found += ratio(*sides, paired=paired).different
        return found / 1000

    assert 0.025 <= different(0.0, paired=True) <= 0.08, seed
    assert different(0.05, paired=True) >= least_found, seed
    assert different(0.05, paired=False) <= 0.05, seed
