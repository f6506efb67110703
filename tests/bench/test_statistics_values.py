"""Statistics by hand: small inputs whose right answer is arithmetic, beside the simulations of the other files."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from bench.metrics import METRICS
from bench.metrics.intervals import SECTIONS, error_within, intervals
from bench.metrics.ratio import block_interval, ratio, relative_error
from bench.metrics.statistics import effective_size, mser, order_interval
from bench.metrics.view import View
from tests.support.synthetic import closed_loop, open_loop

# --- order statistics -----------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "q"), [(11, 0.5), (30, 0.5), (100, 0.9), (200, 0.95), (700, 0.99), (64, 0.9)])
def test_the_ranks_are_the_narrowest_that_leave_a_fortieth_on_either_side(n: int, q: float) -> None:
    """Both tails of the binomial hold at most 2.5%, and a rank further in would hold more."""
    values = np.arange(1.0, n + 1)
    found = order_interval(values, q)
    assert found is not None
    low, high = int(found.low), int(found.high)
    assert stats.binom.cdf(low - 1, n, q) <= 0.025
    assert stats.binom.cdf(low, n, q) > 0.025
    assert stats.binom.sf(high - 1, n, q) <= 0.025
    assert stats.binom.sf(high - 2, n, q) > 0.025


def test_the_first_and_the_last_value_may_be_bounds() -> None:
    """Six values: each end is beyond the median one time in 64, 1.6%; of five one in 32, which is too often."""
    six = order_interval(np.arange(6.0), 0.5)
    assert six is not None
    assert (six.low, six.high, six.confidence) == (0.0, 5.0, 0.95)
    assert order_interval(np.arange(5.0), 0.5) is None


def test_an_effective_size_spreads_its_ranks_over_all_values() -> None:
    """Ten independent values bound the median by the 2nd and the 9th; of 100 such values: by the 20th and the 90th."""
    ten, all_of = (
        order_interval(np.arange(1.0, 11), 0.5),
        order_interval(np.arange(1.0, 101), 0.5, effective=10.9),
    )
    assert ten is not None
    assert all_of is not None
    assert (ten.low, ten.high) == (2, 9)
    assert (all_of.low, all_of.high) == (20, 90)
    more = order_interval(np.arange(1.0, 11), 0.5, effective=500)
    assert more == ten, "never more than there are"
    assert order_interval(np.arange(1.0, 11), 0.5, effective=0.2) is None


# --- dependence -----------------------------------------------------------------------------------


def test_the_effective_size_by_hand() -> None:
    """A square wave of four: autocovariances 16, 5, -12 (of 16 values, not divided); the first pair alone counts."""
    values = np.tile([1.0, 1.0, -1.0, -1.0], 4)
    lagged = [float(values[: 16 - k] @ values[k:]) for k in (0, 1, 2, 3)]
    assert lagged[0] + lagged[1] > 0 > lagged[2] + lagged[3]
    inflation = 1 + 2 * lagged[1] / lagged[0]
    assert effective_size(values) == pytest.approx(16 / inflation)


def test_fewer_than_sixteen_values_or_equal_ones_count_whole() -> None:
    assert effective_size(np.tile([1.0, 1.0, -1.0, -1.0], 4)[:15]) == 15
    assert effective_size(np.full(40, 3.0)) == 40
    assert effective_size(np.r_[np.linspace(0, 1, 39), np.inf]) == 40


def test_alternating_values_are_worth_no_more_than_their_number() -> None:
    assert effective_size(np.tile([1.0, -1.0], 20)) == 40


def test_a_trend_is_worth_one_value_at_the_least() -> None:
    rising = np.linspace(0.0, 1.0, 64)
    lags = [float((rising - 0.5)[: 64 - k] @ (rising - 0.5)[k:]) for k in range(64)]
    pairs = [a + b for a, b in zip(lags[0::2], lags[1::2], strict=True)]
    known = sum(pairs[: next(i for i, pair in enumerate(pairs) if pair <= 0)])
    assert effective_size(rising) == pytest.approx(64 / (2 * known / lags[0] - 1))
    assert effective_size(rising) >= 1


# --- truncation -----------------------------------------------------------------------------------


def squared_error(values: np.ndarray) -> float:
    return float(values.var() / values.size)


@pytest.mark.parametrize("ramp", [0, 3, 10, 19])
def test_mser_takes_the_first_cut_near_the_least_error(ramp: int) -> None:
    rng = np.random.default_rng(ramp)
    values = 10 + rng.normal(0, 1, 80)
    values[:ramp] -= np.linspace(9, 3, ramp)
    errors = [squared_error(values[cut:]) for cut in range(41)]
    by_hand = next(cut for cut in range(41) if errors[cut] <= 1.5 * min(errors))
    assert mser(values) == by_hand
    assert mser(values, slack=1.0) == int(np.argmin(errors))


def test_mser_may_cut_just_half_and_needs_four_values() -> None:
    assert mser(np.array([9.0, 9.0, 0.0, 0.0])) == 2
    assert mser(np.array([9.0, 9.0, 9.0, 0.0, 0.0, 0.0])) == 3
    assert mser(np.array([9.0, 0.0, 0.0])) == 0


def test_a_standard_error_below_a_thousandth_needs_no_cut() -> None:
    """The first of 100 values is off: by 0.9 of 10 the error of the mean is 0.09%, by 1.1 it is 0.11%."""
    for off, cut in ((0.9, 0), (1.1, 1)):
        values = np.full(100, 10.0)
        values[0] += off
        assert mser(values) == cut


# --- ratios ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(2, 2), (5, 3), (2, 6)])
def test_launches_are_compared_by_welch(counts: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(counts))
    a, b = (rng.lognormal(3, spread, n) for n, spread in zip(counts, (0.05, 0.02), strict=True))
    found = ratio([[v] for v in a], [[v] for v in b])
    welch = stats.ttest_ind(np.log(b), np.log(a), equal_var=False).confidence_interval(0.95)
    assert math.log(found.interval.low) == pytest.approx(welch.low)
    assert math.log(found.interval.high) == pytest.approx(welch.high)
    assert math.log(found.ratio) == pytest.approx(np.log(b).mean() - np.log(a).mean())
    pooled = math.sqrt((np.log(a).var(ddof=1) / counts[0] + np.log(b).var(ddof=1) / counts[1])
                       / (1 / counts[0] + 1 / counts[1]))  # fmt: skip
    assert found.between == pytest.approx(pooled)
    assert found.launches == counts
    assert found.note == ""


@pytest.mark.parametrize("swapped", [False, True])
def test_one_launch_beside_three_has_their_spread(swapped: bool) -> None:
    three, one = [[10.0], [11.0], [12.0]], [[20.0]]
    found = ratio(one, three) if swapped else ratio(three, one)
    spread = float(np.std(np.log([10.0, 11.0, 12.0]), ddof=1))
    half = stats.t.ppf(0.975, 2) * spread * math.sqrt(1 + 1 / 3)
    assert math.log(found.interval.high / found.ratio) == pytest.approx(half)
    assert math.log(found.ratio / found.interval.low) == pytest.approx(half)
    assert found.between == pytest.approx(spread)


def test_equal_launches_have_no_interval_but_a_point() -> None:
    found = ratio([[4.0], [4.0], [4.0]], [[8.0], [8.0]])
    assert (found.ratio, found.interval.low, found.interval.high) == pytest.approx((2.0, 2.0, 2.0))
    assert found.different
    assert not ratio([[4.0], [4.0]], [[4.0], [4.0]]).different


def test_one_launch_a_side_takes_three_percent_for_restarts() -> None:
    """Standard error sqrt(0.02^2 + 0.01^2 + 2 x 0.03^2), 20 degrees of freedom."""
    found = ratio([[100.0]], [[110.0]], (0.02, 0.01))
    half = stats.t.ppf(0.975, 20) * math.sqrt(0.02**2 + 0.01**2 + 2 * 0.03**2)
    assert math.log(found.interval.high / found.ratio) == pytest.approx(half)
    assert (found.between, found.within) == (None, pytest.approx(math.sqrt((0.02**2 + 0.01**2) / 2)))
    assert "3% is assumed" in found.note
    unknown = ratio([[100.0]], [[110.0]])
    assert math.log(unknown.interval.high / unknown.ratio) == pytest.approx(
        stats.t.ppf(0.975, 20) * math.sqrt(2) * 0.03
    )
    assert unknown.within is None


def test_repeats_on_one_launch_show_the_spread_within() -> None:
    found = ratio([[10.0, 11.0], [10.0]], [[12.0, 12.0, 13.0]])
    spreads = [np.log([10.0, 11.0]).var(ddof=1), np.log([12.0, 12.0, 13.0]).var(ddof=1)]
    assert found.within == pytest.approx(math.sqrt(float(np.mean(spreads))))


@pytest.mark.parametrize(
    ("low", "high", "different"), [(0.9, 1.0, False), (1.0, 1.1, False), (1.01, 1.1, True), (0.8, 0.99, True)]
)
def test_an_interval_that_touches_one_tells_no_difference(low: float, high: float, different: bool) -> None:
    from bench.metrics.ratio import Ratio
    from bench.metrics.statistics import Interval

    assert Ratio(1.0, Interval(low, high), (1, 1), None, None).different == different


# --- block bootstrap ------------------------------------------------------------------------------


def test_the_bootstrap_of_a_mean_is_its_standard_error() -> None:
    """Independent values: spread / sqrt(n) of the mean, to what 400 draws can tell."""
    rng = np.random.default_rng(3)
    values = rng.normal(10, 2, 6400)
    assert relative_error(values, lambda x: float(x.mean())) == pytest.approx(2 / 80 / 10, rel=0.15)
    assert relative_error(-values, lambda x: float(x.mean())) == pytest.approx(2 / 80 / 10, rel=0.15)


def test_blocks_of_eight_are_drawn_from_64_values_on() -> None:
    """Eight blocks of equal values: what is drawn are whole blocks, so the error is that of eight values."""
    values = np.repeat(np.arange(1.0, 9.0), 8)
    blocks = np.arange(1.0, 9.0)
    assert relative_error(values, lambda x: float(x.mean()), draws=4000) == pytest.approx(
        blocks.std(ddof=1) / math.sqrt(8) / 4.5, rel=0.05
    )
    assert relative_error(values[:63], lambda x: float(x.mean())) is None
    assert relative_error(values, lambda _: 0.0) is None
    assert relative_error(values, lambda x: math.inf if x.mean() > 4.5 else 1.0) is None


def test_a_block_interval_is_the_estimate_times_what_the_error_allows() -> None:
    values = np.random.default_rng(4).normal(10, 2, 100)
    found = block_interval(values, lambda x: float(x.mean()))
    error = relative_error(values, lambda x: float(x.mean()))
    assert found is not None
    assert error is not None
    half = stats.t.ppf(0.975, 9) * error
    assert found.low == pytest.approx(values.mean() * math.exp(-half))
    assert found.high == pytest.approx(values.mean() * math.exp(half))
    assert block_interval(-values, lambda x: float(x.mean())) is None
    assert block_interval(values[:60], lambda x: float(x.mean())) is None


def test_the_interval_of_a_rate_is_that_of_its_sixteen_sections() -> None:
    run = open_loop(requests=2000)
    view = View(run)
    w = view.window
    name = "request_throughput_per_s"
    ends = view.requests.end
    edges = np.linspace(w.start_s, w.end_s, 17)
    rates = np.array([((ends >= a) & (ends <= b)).sum() / (b - a) for a, b in pairwise(edges)])
    error = rates.std(ddof=1) / rates.mean() / 4
    assert SECTIONS == 16
    assert error_within(view, name) == pytest.approx(error, rel=0.01)
    found = intervals(run)[name]
    assert math.log(found.high / found.low) / 2 == pytest.approx(stats.t.ppf(0.975, 15) * error, rel=0.01)


def test_no_error_is_told_without_a_steady_window() -> None:
    assert error_within(View(open_loop(requests=9)), "request_throughput_per_s") is None
    assert error_within(View(closed_loop()), "request_throughput_per_s") is not None


def test_a_rate_needs_half_of_its_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(open_loop(requests=2000))
    name = "request_throughput_per_s"
    for known, told in ((7, False), (8, True)):
        values = iter([1.0, 2.0] * 4 if known == 8 else [1.0, 2.0] * 3 + [1.0])
        fake = replace(METRICS[name], of=lambda _, values=values: next(values, None))
        monkeypatch.setitem(METRICS, name, fake)
        found = error_within(view, name)
        assert (found is not None) == told
    assert found == pytest.approx(stats.sem([1.0, 2.0] * 4) / 1.5)
    monkeypatch.setitem(METRICS, name, replace(METRICS[name], of=lambda _: 0.0))
    assert error_within(view, name) is None
