"""Budget, ledger, early stop and promotion by hand, each at its edge."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.budget import Budget, expected_gain, hopeless, ledger, nothing_left
from search.objective import Goal
from search.result import TrialResult
from search.trial import promoted, rank
from tests.support.search_fixture import loop

GOAL = Goal((("cost_per_million_good_tokens", True),))
MOST = Goal((("output_token_throughput_per_s", False),))


def one(seqs: int, value: float | None = 1.0, **more: object) -> TrialResult:
    given = {"fidelity": "screen", **more}
    return TrialResult({"engine": "one", "max_num_seqs": seqs}, value=value, **given)  # type: ignore[arg-type]


# --- what may be spent ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "spent_s", "trials", "next_s", "why"),
    [
        (Budget(trials=5), 1e9, 4, 0.0, None),
        (Budget(trials=5), 0.0, 5, 0.0, "all 5 trials are spent"),
        (Budget(seconds=100), 60, 99, 40, None),
        (Budget(seconds=100), 60, 0, 40.1, "the budget of 100 s is spent"),
        (Budget(usd=2.0, usd_per_hour=4.0), 900, 0, 900, None),
        (Budget(usd=2.0, usd_per_hour=4.0), 900, 0, 901, "the budget of 2.00 USD is spent"),
        (Budget(usd=2.0), 1e9, 0, 0.0, None),
        (Budget(usd_per_hour=4.0), 1e9, 0, 0.0, None),
        (Budget(), 1e9, 10**6, 0.0, None),
    ],
)
def test_a_budget_ends_just_beyond_its_limit(
    budget: Budget, spent_s: float, trials: int, next_s: float, why: str | None
) -> None:
    assert budget.exhausted(spent_s, trials, next_s) == why


def test_money_is_by_the_hour() -> None:
    assert Budget(usd_per_hour=4.0).cost(900) == 1.0
    assert Budget(usd=4.0).cost(900) is None


def test_what_time_and_money_allow() -> None:
    assert Budget().whole_s() == 0
    assert Budget(seconds=500).whole_s() == 500
    assert Budget(usd=2.0, usd_per_hour=4.0).whole_s() == 1800
    assert Budget(seconds=500, usd=2.0, usd_per_hour=4.0).whole_s() == 500
    assert Budget(seconds=5000, usd=2.0, usd_per_hour=4.0).whole_s() == 1800
    assert Budget(seconds=5000, usd=2.0).whole_s() == 5000
    assert Budget(usd_per_hour=4.0).whole_s() == 0


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(), "no limit"),
        (Budget(trials=10), "7 trials"),
        (Budget(seconds=390), "5.0 min"),
        (Budget(seconds=30), "0.0 min"),
        (Budget(usd_per_hour=40.0), "1.000 USD spent"),
        (Budget(usd=3.5, usd_per_hour=40.0), "1.000 USD spent, 2.50 left"),
        (Budget(usd=0.5, usd_per_hour=40.0), "1.000 USD spent, 0.00 left"),
        (
            Budget(seconds=390, trials=10, usd=3.5, usd_per_hour=40.0),
            "7 trials, 5.0 min, 1.000 USD spent, 2.50 left",
        ),
    ],
)
def test_what_is_left_after_90_seconds_and_three_trials(budget: Budget, said: str) -> None:
    assert budget.left(90.0, 3) == said


def test_failed_launches_are_waste_and_refusals_are_not() -> None:
    seconds = {"launch": 2.0, "measure": 8.0}
    history = [
        one(1, seconds=seconds),
        one(2, None, failure="oom_at_launch", seconds=seconds),
        one(4, None, failure="does_not_fit", seconds={"accuracy": 1.0}),
    ]
    found = ledger(history)
    assert found == {"launch": 2.0, "warmup": 0.0, "measure": 8.0, "accuracy": 1.0, "waste": 10.0}


# --- when more is in vain -------------------------------------------------------------------------


def test_six_configurations_that_end_alike_are_enough() -> None:
    alike = [one(n, None, failure="driver", detail="too old") for n in range(6)]
    assert hopeless(alike[:5]) is None
    found = hopeless(alike)
    assert found is not None
    assert found.startswith("6 configurations all ended alike, none ran: driver: too old; ")
    assert hopeless([*alike[:5], alike[0]]) is None, "the same configuration twice is one"
    assert hopeless([*alike, one(9)]) is None
    assert hopeless([*alike, one(9, None, failure="driver", detail="another")]) is None
    assert hopeless([*alike, one(9, None, failure="does_not_fit")]) == found, "nothing was launched"
    assert hopeless([one(n) for n in range(9)]) is None


def test_the_expected_gain_is_the_mean_excess_of_the_upper_half_over_n() -> None:
    """Of 0, 1 .. 11 per cent the upper half is 6 to 11: 2.5 above its lowest, one chance in 12."""
    gains = [n / 100 for n in (3, 9, 1, 11, 5, 7, 0, 2, 10, 4, 6, 8)]
    assert expected_gain(gains) == pytest.approx(0.025 / 12)
    assert expected_gain(gains[:11]) is None
    odd = [n / 100 for n in range(13)]
    assert expected_gain(odd) == pytest.approx(0.03 / 13), "6 to 12: 3 above its lowest"


def test_a_search_ends_after_twelve_looks_in_a_row_that_win_nothing() -> None:
    """The best first, then twelve: each is expected to win 0.3% / 13, the next ten 2.3 in a thousand."""
    gains = [0.12, *(n / 100 for n in range(12))]
    each = expected_gain(gains)
    assert each == pytest.approx(0.03 / 13)
    assert nothing_left(gains, 10, 0.03) == (
        "12 looks without a better one; the 10 left are expected to win 2.31%, less than the 3% that is worth it"
    )
    assert nothing_left(gains, 10, 10 * 0.03 / 13) is None, "just worth it"
    assert nothing_left(gains, 10, 0.0) is None
    assert nothing_left(gains[1:] + gains[:1], 10, 0.5) is None, "the last look was the best"
    assert nothing_left([0.01, *gains[:1], *gains[1:12]], 10, 0.5) is None, "eleven since the best"
    assert nothing_left([], 10, 0.5) is None


def test_more_looks_than_there_were_are_not_reckoned_with() -> None:
    gains = [0.12, *(n / 100 for n in range(12))]
    assert nothing_left(gains, 1e9, 0.031) is not None, "13 x 0.3% / 13 = 3%"
    assert nothing_left(gains, 1e9, 0.029) is None


# --- promotion ------------------------------------------------------------------------------------


def test_broken_promises_rank_behind_every_kept_one() -> None:
    kept, broken = (
        one(1, 9.0, violations={"a": -0.5, "b": 0.0}),
        one(2, 1.0, violations={"a": 0.25, "b": 0.5, "c": -1.0}),
    )
    assert rank(GOAL, kept) == (0.0, 9.0)
    assert rank(GOAL, broken) == (0.75, 1.0)
    assert rank(MOST, kept) == (0.0, -9.0)
    assert rank(GOAL, one(3, None)) == (0.0, float("inf"))


def test_the_first_three_looks_are_promoted_whatever_they_show() -> None:
    history = [one(n, 1.0) for n in range(2)]
    assert promoted(GOAL, history, one(9, 50.0))
    assert not promoted(GOAL, [*history, one(2, 1.0)], one(9, 50.0))
    assert not promoted(GOAL, [], one(9, None, failure="oom_at_launch"))


@pytest.mark.parametrize(("others", "better"), [(3, 1), (5, 1), (6, 2), (8, 2), (9, 3)])
def test_a_third_of_all_short_looks_is_promoted(others: int, better: int) -> None:
    """Among `others` + 1 looks, rounded up: the one with `better` ahead of it is the first that is not."""
    history = [one(n, float(n)) for n in range(others)]
    assert promoted(GOAL, history, one(99, better - 0.5))
    assert promoted(GOAL, history, one(99, better - 1.0)), "as good as the one ahead"
    allowed = -(-(others + 1) // 3)
    assert promoted(GOAL, history, one(99, allowed - 1.5))
    assert not promoted(GOAL, history, one(99, allowed - 0.5))


def test_full_looks_failures_and_repeats_do_not_count_among_short_looks() -> None:
    history = [one(n, 1.0) for n in range(2)]
    others = [one(5, 1.0, fidelity="full"), one(6, None, failure="oom_at_launch"), one(0, 1.0)]
    assert promoted(GOAL, [*history, *others], one(9, 50.0)), (
        "two short looks: there is nothing to rank against"
    )


# --- what is kept back for the finals -------------------------------------------------------------


@pytest.mark.parametrize(
    ("looks", "seconds", "kept"), [(20, 300, None), (20, 299, 100), (4, 110, None), (4, 109, 70)]
)
def test_a_search_keeps_back_what_its_finals_take(
    tmp_path: Path, looks: int, seconds: int, kept: int | None
) -> None:
    """Ten seconds a launch, three rounds: of the default and two finalists 90 s, of one 60 s where that is more than
    0.6 of the budget; and ten for one more look."""
    found = loop(tmp_path, 100)
    found.budget = Budget(seconds=seconds)
    took = {"launch": 2.0, "measure": 8.0}
    history = [one(n, 1.0, fidelity="full", seconds=took) for n in range(looks)]
    refused = [
        one(99, None, failure="does_not_fit"),
        one(98, None, failure="refused", seconds={"accuracy": 0.0}),
    ]
    said = (
        kept and f"the budget of {seconds} s is spent, {kept} s of it kept for the finals and one more look"
    )
    assert found.ended([], [*history, *refused]) == said
