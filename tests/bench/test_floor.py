"""The floor's statistics against what is known exactly, and against simulations of known truths."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from bench.accuracy.floor import (
    Paired,
    against_floor,
    against_margin,
    exact_share,
    items_needed,
    judge,
    paired,
)
from bench.accuracy.mean_test import ScoreSample, lower_bound, p_above, sample, upper_bound
from bench.accuracy.sequential_test import EProcess


def equal(n: int, right: int) -> Paired:
    """Candidate and baseline answer alike: `right` of n right."""
    scores = np.array([1.0] * right + [0.0] * (n - right))
    return Paired(scores, scores)


def counted(losses: int, gains: int, both: int, neither: int, floor: float) -> ScoreSample:
    base = np.array([1.0] * losses + [0.0] * gains + [1.0] * both + [0.0] * neither)
    cand = np.array([0.0] * losses + [1.0] * gains + [1.0] * both + [0.0] * neither)
    return against_floor(Paired(cand, base), floor)


@pytest.mark.parametrize(("floor", "least"), [(0.99, 299), (0.98, 149), (0.95, 59)])
def test_with_nothing_lost_the_pass_needs_the_exact_binomial_number_of_items(
    floor: float, least: int
) -> None:
    assert judge(against_floor(equal(least, least), floor)).outcome == "PASS"
    assert judge(against_floor(equal(least - 1, least - 1), floor)).outcome == "INCONCLUSIVE"


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_a_few_lucky_items_are_never_a_pass(n: int) -> None:
    assert judge(against_floor(equal(n, n), 0.9)).outcome == "INCONCLUSIVE"
    better = Paired(np.ones(n), np.zeros(n))
    assert judge(against_floor(better, 0.99)).outcome == ("INCONCLUSIVE" if n < 3 else "PASS")


def test_a_candidate_that_is_always_wrong_fails_and_needs_no_many_items() -> None:
    found = judge(against_floor(Paired(np.zeros(12), np.ones(12)), 0.99))
    assert found.outcome == "FAIL"
    assert found.high < 0


def test_one_share_against_the_exact_binomial() -> None:
    """For values 0 and 1 the test of mean <= m is the binomial test."""
    for n, k, m in [(20, 15, 0.5), (60, 59, 0.9), (9, 9, 0.7), (200, 31, 0.1)]:
        data = sample(np.array([1.0] * k + [0.0] * (n - k)), 0.0, 1.0)
        assert p_above(data, m) == pytest.approx(binom.sf(k - 1, n, m), rel=1e-6)


def test_bounds_of_a_share_are_clopper_pearson() -> None:
    data = sample(np.array([1.0] * 45 + [0.0] * 15), 0.0, 1.0)
    low, high = exact_share(45, 60, 0.9)
    assert lower_bound(data, 0.05) == pytest.approx(low, abs=2e-3)
    assert upper_bound(data, 0.05) == pytest.approx(high, abs=2e-3)


scores = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=60
)


@settings(max_examples=40, deadline=None)
@given(scores, st.sampled_from([0.9, 0.95, 0.99, 1.0]))
def test_the_interval_holds_the_effect_and_agrees_with_the_verdict(
    pairs: list[tuple[float, float]], floor: float
) -> None:
    data = against_floor(Paired(*(np.array(side) for side in zip(*pairs, strict=True))), floor)
    found = judge(data)
    assert found.low - 1e-6 <= found.effect <= found.high + 1e-6
    if found.outcome == "PASS":
        assert found.low >= -2e-3
    if found.outcome == "FAIL":
        assert found.high <= 2e-3
    assert found.on_these_items == (found.effect >= 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 60), st.integers(1, 60))
def test_one_more_loss_never_helps(losses: int, gains: int, both: int, neither: int) -> None:
    before = p_above(counted(losses, gains, both + 1, neither, 0.95), 0.0)
    after = p_above(counted(losses + 1, gains, both, neither, 0.95), 0.0)
    assert after >= before - 1e-6


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=40))
def test_mirrored_values_have_mirrored_bounds(values: list[float]) -> None:
    grid = np.round(np.array(values), 2)
    data, turned = sample(grid, 0.0, 1.0), sample(1 - grid, 0.0, 1.0)
    assert lower_bound(data, 0.05) == pytest.approx(1 - upper_bound(turned, 0.05), abs=6e-3)


def test_fractional_scores_are_rounded_against_the_candidate() -> None:
    values = np.array([1 / 3, 2 / 7, 0.123456, 1.0])
    data = sample(values, 0.0, 1.0)
    assert data.mean <= values.mean()
    assert data.mean == pytest.approx(values.mean(), abs=1e-3)


def test_values_outside_the_range_are_an_error() -> None:
    with pytest.raises(ValueError, match="outside"):
        sample(np.array([1.2]), 0.0, 1.0)
    with pytest.raises(ValueError, match="no values"):
        sample(np.array([]), 0.0, 1.0)


def rates(
    n: int, right: float, flips: float, floor: float, effect: float, draws: int, seed: int
) -> tuple[float, float]:
    """How often a candidate with true mean d = `effect` is passed and failed, by simulation."""
    losses = max((flips + (1 - floor) * right - effect) / 2, 0.0)
    gains = losses - (1 - floor) * right + effect
    shares = [losses, gains, right - losses, 1 - right - gains]
    assert min(shares) >= 0
    per_unit = 100
    f = round(floor * per_unit)

    @lru_cache(None)
    def verdict(*counts: int) -> tuple[bool, bool]:
        data = ScoreSample(
            np.array([-f, 0, per_unit - f, per_unit]), np.array([counts[0], counts[3], counts[2], counts[1]]),
            1 / per_unit, -f, per_unit,
        )  # fmt: skip
        return p_above(data, 0.0) <= 0.05, p_above(data.mirrored(), 0.0) <= 0.05

    drawn = np.random.default_rng(seed).multinomial(n, shares, size=draws)
    found = np.array([verdict(*(int(c) for c in row)) for row in drawn])
    return float(found[:, 0].mean()), float(found[:, 1].mean())


def allowed(level: float, draws: int) -> float:
    """Three standard errors of the simulation above the level."""
    return level + 3 * math.sqrt(level * (1 - level) / draws)


@pytest.mark.parametrize(
    ("n", "right", "flips", "floor"),
    [
        (300, 0.5, 0.05, 0.95),
        (600, 0.55, 0.02, 0.99),
        (1000, 0.7, 0.05, 0.99),
        (100, 0.5, 0.1, 0.9),
        (545, 0.55, 0.0056, 0.99),
    ],
)
def test_a_candidate_exactly_at_the_floor_passes_at_most_one_time_in_twenty(
    n: int, right: float, flips: float, floor: float
) -> None:
    passed, failed = rates(n, right, flips, floor, 0.0, 1200, seed=n)
    assert passed <= allowed(0.05, 1200)
    assert failed <= allowed(0.05, 1200)


def test_an_equal_candidate_is_passed_with_the_stated_power_and_not_rejected() -> None:
    """(z_alpha + z_power)^2 x flips / margin^2 = 6.18 x 0.01 / 0.009^2 = 763 items for 80%."""
    passed, failed = rates(763, 0.9, 0.01, 0.99, 0.009, 1000, seed=1)
    # Eight flips are few: the skew of rare losses costs ten points of the normal formula's power.
    assert passed > 0.65
    assert failed <= allowed(0.005, 1000)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    truth = 0.99 * 0.0 + 0.02 * 0.55 + 0.01 - 0.02  # 0.02 floor slack x 0.55 right, 1% gains, 2% losses
    missed_low = missed_high = 0
    for _ in range(300):
        losses, gains, both, neither = rng.multinomial(400, [0.02, 0.01, 0.53, 0.44])
        data = counted(int(losses), int(gains), int(both), int(neither), 0.98)
        missed_low += p_above(data, truth) <= 0.05
        missed_high += p_above(data.mirrored(), -truth) <= 0.05
    assert missed_low <= 300 * allowed(0.05, 300)
    assert missed_high <= 300 * allowed(0.05, 300)


def test_items_needed_are_enough_most_of_the_time() -> None:
    data = counted(6, 4, 160, 130, 0.95)
    needed = items_needed(data)
    assert needed is not None
    assert needed > data.n
    passed, _ = rates(needed, 166 / 300, 10 / 300, 0.95, data.mean, 300, seed=2)
    assert passed > 0.7


def test_no_number_of_items_settles_a_difference_of_nothing() -> None:
    assert items_needed(against_floor(Paired(np.array([0.0, 0.0]), np.array([0.0, 0.0])), 0.99)) is None


def test_wordings_of_one_question_count_once() -> None:
    base = {f"{q}-{w}": 1.0 for q in range(10) for w in range(8)}
    clusters = {item: item.split("-")[0] for item in base}
    assert paired(base, base, clusters).n == 10
    assert paired(base, base, {}).n == 80
    alone = judge(against_floor(paired(base, base, {}), 0.95))
    together = judge(against_floor(paired(base, base, clusters), 0.95))
    assert alone.outcome == "PASS"
    assert together.outcome == "INCONCLUSIVE"


def test_pairs_are_on_the_items_both_have() -> None:
    both = paired({"a": 1.0, "b": 0.0}, {"b": 1.0, "c": 1.0}, {})
    assert both.n == 1
    assert (both.candidate[0], both.baseline[0]) == (0.0, 1.0)


def test_a_margin_passes_a_small_change_and_fails_a_large_one() -> None:
    same = equal(80, 40)
    assert judge(against_margin(same, 0.05)).outcome == "PASS"
    worse = Paired(np.array([0.0] * 60 + [1.0] * 20), np.array([1.0] * 60 + [1.0] * 20))
    assert judge(against_margin(worse, 0.05)).outcome == "FAIL"


def drops(rng: np.random.Generator, loss: float, gain: float, n: int) -> np.ndarray:
    """d for a floor of 0.99 and a baseline right half of the time."""
    return rng.choice([-0.99, 1.0, 0.01, 0.0], size=n, p=[loss, gain, 0.5 - loss, 0.5 - gain])


def fails_at(differences: Iterable[float]) -> int | None:
    """After how many items the candidate is rejected, or None."""
    process = EProcess()
    return next((process.n for d in differences if process.add(d)), None)


def test_the_sequential_test_rarely_rejects_a_candidate_at_the_floor_however_often_one_looks() -> None:
    rng = np.random.default_rng(3)
    wrong = sum(fails_at(drops(rng, 0.03, 0.025, 1500)) is not None for _ in range(200))
    assert wrong <= 200 * allowed(0.05, 200)


def test_the_sequential_test_never_rejects_the_baseline_itself() -> None:
    assert fails_at([0.01, 0.0] * 5000) is None


def test_the_sequential_test_rejects_a_drop_of_twenty_points_after_a_few_dozen_items() -> None:
    rng = np.random.default_rng(4)
    found = sorted(fails_at(drops(rng, 0.25, 0.05, 1000)) or 10_000 for _ in range(100))
    assert found[50] <= 80
    assert found[90] <= 200


def test_evidence_of_overwhelming_loss_stays_a_number() -> None:
    process = EProcess()
    for _ in range(5000):
        process.add(-0.99)
    assert process.evidence == math.inf
    assert process.failed_at is not None
    assert process.failed_at < 10
