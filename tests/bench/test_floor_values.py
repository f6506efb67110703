"""The floor's arithmetic by hand: grids, p-values, bounds, the items needed and the bets of the sequential test."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binom

from bench.accuracy.floor import Paired, against_floor, against_margin, exact_share, items_needed, judge
from bench.accuracy.mean_test import ScoreSample, lower_bound, p_above, sample, upper_bound
from bench.accuracy.sequential_test import BETS, EProcess


def shares(right: int, n: int) -> ScoreSample:
    return sample(np.array([1.0] * right + [0.0] * (n - right)), 0.0, 1.0)


def lost(losses: int, kept: int) -> Paired:
    """A baseline that is always right, and a candidate that lost some of it."""
    return Paired(np.array([0.0] * losses + [1.0] * kept), np.ones(losses + kept))


# --- the grid -------------------------------------------------------------------------------------


def test_the_grid_is_the_coarsest_that_holds_every_value() -> None:
    data = against_floor(Paired(np.array([0.0, 1.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0, 0.0])), 0.99)
    assert data.h == 0.01
    assert list(zip(data.steps, data.counts, strict=True)) == [(-99, 1), (0, 1), (1, 1), (100, 1)]
    assert (data.low, data.high, data.n) == (-99, 100, 4)
    assert data.mean == pytest.approx(0.02 / 4)


def test_a_margin_shifts_the_difference_and_its_range() -> None:
    data = against_margin(Paired(np.array([0.0, 1.0]), np.array([1.0, 1.0])), 0.05)
    assert (data.h, data.low, data.high) == (0.05, -19, 21)
    assert list(data.steps) == [-19, 1]


@pytest.mark.parametrize(
    ("value", "h", "step"), [(1 / 3, 1 / 3, 1), (0.25, 0.25, 1), (0.123456, 1 / 2000, 246)]
)
def test_what_no_grid_holds_is_rounded_down_to_a_two_thousandth(value: float, h: float, step: int) -> None:
    data = sample(np.array([value]), 0.0, 1.0)
    assert data.h == pytest.approx(h)
    assert list(data.steps) == [step]
    assert (data.low, data.high) == (0, round(1 / h))


def test_too_fine_a_common_grid_becomes_a_two_thousandth() -> None:
    """1/47 and 1/53 share a grid of 1/2491 only; 1/40 and 1/50 one of 1/200."""
    assert sample(np.array([1 / 47, 1 / 53]), 0.0, 1.0).h == 1 / 2000
    assert sample(np.array([1 / 40, 1 / 50]), 0.0, 1.0).h == 1 / 200


def test_a_range_between_two_steps_is_widened_to_them() -> None:
    data = sample(np.array([0.123456, 0.9]), 0.00013, 0.99987)
    assert (data.low, data.high) == (0, 2000)


def test_values_a_rounding_error_outside_the_range_are_inside() -> None:
    assert list(sample(np.array([-5e-10, 1 + 5e-10]), 0.0, 1.0).steps) == [0, 1]
    for beyond in (-2e-9, 1 + 2e-9):
        with pytest.raises(ValueError, match="outside"):
            sample(np.array([beyond, 0.5]), 0.0, 1.0)


def test_the_mirror_turns_values_and_range() -> None:
    turned = sample(np.array([0.2, 0.2, 0.6]), -1.0, 2.0).mirrored()
    assert (turned.h, list(turned.steps), list(turned.counts)) == (0.2, [-3, -1], [1, 2])
    assert (turned.low, turned.high) == (-10, 5)
    assert turned.mean == pytest.approx(-1.0 / 3)


# --- p-values and bounds --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "right", "mean"), [(20, 15, 0.5), (60, 59, 0.9), (7, 3, 0.2), (400, 380, 0.93)]
)
def test_a_share_is_tested_by_the_binomial(n: int, right: int, mean: float) -> None:
    assert p_above(shares(right, n), mean) == pytest.approx(binom.sf(right - 1, n, mean), rel=1e-9)


def test_no_mean_below_what_can_be_is_believed_and_none_above_what_was_seen_is_excluded() -> None:
    assert p_above(shares(5, 10), 0.5) == 1.0
    assert p_above(shares(5, 10), 0.6) == 1.0
    assert p_above(shares(5, 10), 0.0) == 0.0
    assert p_above(shares(5, 10), 0.4999) < 1.0


@pytest.mark.parametrize(("right", "n"), [(45, 60), (1, 30), (30, 30), (200, 400)])
def test_bounds_of_a_share_are_those_of_clopper_and_pearson(right: int, n: int) -> None:
    """To the step of 5e-5 that the search for a bound ends at; the lower one is never too high."""
    low, high = exact_share(right, n, 0.9)
    assert low - 5e-5 <= lower_bound(shares(right, n), 0.05) <= low + 1e-9
    if right < n:
        assert high - 1e-9 <= upper_bound(shares(right, n), 0.05) <= high + 5e-5


def test_a_value_lower_than_any_seen_is_always_possible() -> None:
    """Ten scores of 1 in [0, 1]: the mean may be m as long as m^10 > 5%."""
    ten = shares(10, 10)
    assert p_above(ten, 0.8) == pytest.approx(0.8**10)
    assert lower_bound(ten, 0.05) == pytest.approx(0.05**0.1, abs=5e-5)


def test_the_tail_of_three_values_is_that_of_their_multinomial() -> None:
    """Values -1, 0, 1 with mean 0 under the hypothesis: the tilted distribution, all sums counted out."""
    data = ScoreSample(np.array([-1, 0, 1]), np.array([1, 2, 5]), 1.0, -1, 1)
    share = np.array([1, 2, 5]) / 8
    tilt = 2 / 3  # sum share x (v - 0) / (1 + tilt x v) = 0  <=>  (1/8) / (1 - t) = (5/8) / (1 + t)
    weights = share / (1 + tilt * np.array([-1, 0, 1]))
    assert weights.sum() == pytest.approx(1)
    ways = np.array([1.0])
    for _ in range(8):
        ways = np.convolve(ways, weights)
    assert p_above(data, 0.0) == pytest.approx(float(ways[8 + 4 :].sum()), rel=1e-6)


# --- verdicts -------------------------------------------------------------------------------------


def test_a_verdict_carries_effect_bounds_and_number() -> None:
    data = against_floor(lost(2, 98), 0.9)
    found = judge(data, 0.9)
    assert (found.outcome, found.n, found.on_these_items, found.needed) == ("PASS", 100, True, None)
    assert found.effect == pytest.approx(0.08)
    assert found.low == lower_bound(data, 1 - 0.9)
    assert found.high == upper_bound(data, 1 - 0.9)


def test_the_level_of_a_fail_is_shared_among_the_claims_and_that_of_a_pass_is_not() -> None:
    """Sixteen of 100 lost at a floor of 0.9: too many for one claim at 5%, not for one of five."""
    data = against_floor(lost(16, 84), 0.9)
    p_fail = p_above(data.mirrored(), 0.0)
    assert 0.01 < p_fail < 0.05
    alone, of_five = judge(data), judge(data, family=5)
    assert (alone.outcome, of_five.outcome) == ("FAIL", "INCONCLUSIVE")
    assert of_five.high == upper_bound(data, (1 - 0.95) / 5)
    assert of_five.high > 0 > alone.high
    assert not alone.on_these_items
    good = against_floor(lost(3, 97), 0.9)
    assert judge(good).outcome == judge(good, family=50).outcome == "PASS"


def test_exactly_at_the_floor_counts_as_at_the_floor_on_these_items() -> None:
    found = judge(sample(np.array([-0.5, 0.5]), -1.0, 1.0))
    assert (found.outcome, found.on_these_items, found.effect) == ("INCONCLUSIVE", True, 0.0)
    assert found.needed is None


# --- items needed ---------------------------------------------------------------------------------


def test_the_items_needed_are_those_of_the_normal_formula() -> None:
    data = against_floor(lost(8, 92), 0.9)
    z = NormalDist().inv_cdf(0.95) + NormalDist().inv_cdf(0.8)
    values = np.array([-0.9] * 8 + [0.1] * 92)
    assert items_needed(data) == math.ceil(z**2 * values.var() / values.mean() ** 2)
    z = NormalDist().inv_cdf(0.9) + NormalDist().inv_cdf(0.5)
    assert items_needed(data, 0.9, 0.5) == max(101, math.ceil(z**2 * values.var() / values.mean() ** 2))


def test_with_nothing_lost_one_loss_more_is_reckoned_with() -> None:
    """Twenty items, all right, floor 0.95: variance 0.95^2 / 21 instead of 0, mean 0.05."""
    data = against_floor(lost(0, 20), 0.95)
    z = NormalDist().inv_cdf(0.95) + NormalDist().inv_cdf(0.8)
    assert items_needed(data) == math.ceil(z**2 * 0.95**2 / 21 / 0.05**2)


def test_the_zero_loss_rule_is_a_least_number() -> None:
    """ln(0.05) / ln(1 - 0.05) = 58.4; for 50 items the normal formula asks for 44. Never fewer than one more."""
    assert items_needed(against_floor(lost(0, 50), 0.95)) == 59
    assert items_needed(against_floor(lost(0, 200), 0.95)) == 201


def test_a_candidate_below_the_floor_needs_items_as_one_above_it() -> None:
    below = against_floor(lost(12, 88), 0.9)
    z = NormalDist().inv_cdf(0.95) + NormalDist().inv_cdf(0.8)
    values = np.array([-0.9] * 12 + [0.1] * 88)
    assert items_needed(below) == math.ceil(z**2 * values.var() / values.mean() ** 2)


# --- shares ---------------------------------------------------------------------------------------


def test_an_exact_share_by_its_tails() -> None:
    low, high = exact_share(45, 60)
    assert binom.sf(44, 60, low) == pytest.approx(0.025)
    assert binom.cdf(45, 60, high) == pytest.approx(0.025)
    assert exact_share(0, 10) == (0.0, pytest.approx(1 - 0.025**0.1))
    assert exact_share(10, 10) == (pytest.approx(0.025**0.1), 1.0)
    assert exact_share(1, 10)[0] == pytest.approx(1 - 0.975**0.1)
    assert exact_share(0, 0) == (0.0, 1.0)


# --- the sequential test --------------------------------------------------------------------------


def test_the_evidence_is_the_mean_wealth_of_eight_bets() -> None:
    assert pytest.approx([0.9, 0.45, 0.225, 0.1125, 0.05625, 0.028125, 0.0140625, 0.00703125]) == BETS
    process = EProcess(high=2.0)
    assert process.evidence == 1.0
    for d in (-1.0, 0.5):
        process.add(d)
    assert process.n == 2
    assert process.evidence == pytest.approx(np.mean([(1 + b / 2) * (1 - b / 4) for b in BETS]))


def test_it_rejects_at_one_over_alpha_and_stays_rejected() -> None:
    wealth = [float(np.mean([(1 + b) ** n for b in BETS])) for n in range(1, 12)]
    first = next(n for n, value in enumerate(wealth, 1) if value >= 20)
    process = EProcess()
    assert [process.add(-1.0) for _ in range(first + 1)] == [False] * (first - 1) + [True] * 2
    assert process.failed_at == first
    assert process.add(1.0)
    assert process.failed_at == first
    for alpha, rejected in ((1.0001 / wealth[2], True), (0.9999 / wealth[2], False)):
        just = EProcess(alpha=alpha)
        assert [just.add(-1.0) for _ in range(3)] == [False, False, rejected]
