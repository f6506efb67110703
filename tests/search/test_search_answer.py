"""What may be said at the end: intervals, ties, the default as an answer, the budget and its ledger."""

from __future__ import annotations

import random
from pathlib import Path

from search.budget import QUIET, Budget, ledger, nothing_left
from search.finals.answer import judge
from search.result import Settings, TrialResult, key_of
from search.trial import promoted
from tests.support.search_fixture import GOAL, SPACE, finals, loop

BASE = SPACE.default("one")
FP8: Settings = {"engine": "one", "quantization": "fp8"}
BOTH: Settings = {"engine": "one", "quantization": "fp8", "enforce_eager": True}


def confirmed(settings: Settings, values: list[float], missed: float = -1.0) -> list[TrialResult]:
    return [TrialResult(settings, "confirm", v, violations={"ttft": missed}) for v in values]


def test_the_simpler_of_two_that_tie_wins(tmp_path: Path) -> None:
    held = {
        key_of(BASE): confirmed(BASE, [10.0, 10.1, 9.9]),
        key_of(FP8): confirmed(FP8, [8.0, 8.12, 7.94]),
        key_of(BOTH): confirmed(BOTH, [7.9, 8.2, 7.85]),
    }
    answer = judge(finals(loop(tmp_path, 1)), [BASE, FP8, BOTH], held)
    assert answer.verdict == "winner"
    assert answer.winner is not None
    assert answer.winner.settings == FP8


def test_a_gain_that_is_not_sure_is_no_answer_and_says_what_could_be_missed(tmp_path: Path) -> None:
    held = {key_of(BASE): confirmed(BASE, [10.0, 9.0, 11.0]), key_of(FP8): confirmed(FP8, [9.0, 9.5, 10.0])}
    answer = judge(finals(loop(tmp_path, 1)), [BASE, FP8], held)
    assert (answer.verdict, answer.winner) == ("not_settled", None)
    assert answer.missed is not None
    assert answer.missed > 0
    assert answer.unsettled is not None
    assert answer.unsettled.more.low is not None


def test_what_was_missed_is_told_by_the_rounds_that_both_were_measured_in(tmp_path: Path) -> None:
    held = {
        key_of(BASE): confirmed(BASE, [10.0, 12.0, 8.0, 10.0]),
        key_of(FP8): confirmed(FP8, [8.0, 9.6, 6.4, 8.0]),
        key_of(BOTH): confirmed(BOTH, [7.9, 9.5, 6.35, 7.9]),
    }
    answer = judge(finals(loop(tmp_path, 1)), [BASE, FP8, BOTH], held)
    assert answer.winner is not None
    other = next(s for s in answer.standings[1:] if s is not answer.winner)
    assert answer.missed is not None
    assert answer.missed < 0.02, "the days differ by a fifth, the two do not"
    assert (answer.missed > 0) == (other.settings == BOTH)


def test_the_default_is_best_where_nothing_can_be_better(tmp_path: Path) -> None:
    held = {key_of(BASE): confirmed(BASE, [10.0, 9.9, 10.1]), key_of(FP8): confirmed(FP8, [14.0, 13.8, 14.2])}
    assert judge(finals(loop(tmp_path, 1)), [BASE, FP8], held).verdict == "default_is_best"


def test_a_promise_that_is_broken_once_is_not_told_and_one_that_is_broken_always_is_out(
    tmp_path: Path,
) -> None:
    base = confirmed(BASE, [10.0, 10.0, 10.1])
    once = [*confirmed(FP8, [5.0, 5.0]), *confirmed(FP8, [5.01], 0.2)]
    answer = judge(finals(loop(tmp_path, 1)), [BASE, FP8], {key_of(BASE): base, key_of(FP8): once})
    assert answer.verdict == "not_settled"
    assert answer.unsettled is not None
    assert answer.unsettled.on == FP8
    assert "missed in 1 of 3 launches" in answer.unsettled.why
    always = [
        *confirmed(FP8, [5.0], 0.2),
        *confirmed(FP8, [5.0], 0.22),
        *confirmed(FP8, [5.01], 0.18),
    ]
    held = {key_of(BASE): base, key_of(FP8): always}
    assert judge(finals(loop(tmp_path, 1)), [BASE, FP8], held).verdict == "default_is_best"


def test_a_winner_without_a_gain_only_where_the_default_surely_breaks_a_promise(tmp_path: Path) -> None:
    equal = confirmed(FP8, [9.9, 10.1, 9.95])
    once = [*confirmed(BASE, [10.0, 10.1], -0.05), *confirmed(BASE, [9.9], 0.03)]
    answer = judge(finals(loop(tmp_path, 1)), [BASE, FP8], {key_of(BASE): once, key_of(FP8): equal})
    assert answer.verdict == "not_settled"
    surely = [TrialResult(BASE, "confirm", 10.0 + by, violations={"ttft": by}) for by in (0.3, 0.33, 0.28)]
    answer = judge(finals(loop(tmp_path, 1)), [BASE, FP8], {key_of(BASE): surely, key_of(FP8): equal})
    assert answer.verdict == "winner"
    assert answer.broken == ("ttft",)


def test_a_default_that_crashed_once_is_no_licence(tmp_path: Path) -> None:
    died = TrialResult(BASE, "confirm", None, failure="crash")
    equal = confirmed(FP8, [9.9, 10.1, 9.95])
    held = {key_of(BASE): [*confirmed(BASE, [10.0, 10.1]), died], key_of(FP8): equal}
    assert judge(finals(loop(tmp_path, 1)), [BASE, FP8], held).verdict == "not_settled"
    held = {key_of(BASE): [died] * 3, key_of(FP8): equal}
    answer = judge(finals(loop(tmp_path, 1)), [BASE, FP8], held)
    assert (answer.verdict, answer.broken) == ("winner", ("runs",))


def test_two_rounds_settle_nothing(tmp_path: Path) -> None:
    held = {key_of(BASE): confirmed(BASE, [10.0, 10.0]), key_of(FP8): confirmed(FP8, [5.0, 5.0])}
    answer = judge(finals(loop(tmp_path, 1)), [BASE, FP8], held)
    assert answer.verdict == "not_settled"
    assert answer.unsettled is not None
    assert "only 2 of 3 rounds" in answer.unsettled.why


def test_no_winner_when_nothing_keeps_every_promise(tmp_path: Path) -> None:
    held = {key_of(BASE): confirmed(BASE, [10.0] * 3, 0.5), key_of(FP8): confirmed(FP8, [9.0] * 3, 0.5)}
    assert judge(finals(loop(tmp_path, 1)), [BASE, FP8], held).verdict == "none_feasible"


def test_equal_configurations_are_rarely_told_apart(tmp_path: Path) -> None:
    draw, false, made = random.Random(3), 0, loop(tmp_path, 1)
    for _ in range(200):
        held = {key_of(s): confirmed(s, [draw.gauss(10, 0.5) for _ in range(3)]) for s in (BASE, FP8, BOTH)}
        false += judge(finals(made), [BASE, FP8, BOTH], held).verdict == "winner"
    assert false <= 16  # 2.5% a side are 5 of 200; beyond 16 lies one in 10,000


def test_budgets_end_a_search_whichever_comes_first() -> None:
    budget = Budget(seconds=100, trials=10, usd=1.0, usd_per_hour=36.0)
    assert budget.exhausted(50, 3) is None
    assert "trials" in (budget.exhausted(50, 10) or "")
    assert "100 s" in (budget.exhausted(90, 3, next_s=20) or "")
    assert "USD" in (Budget(usd=1.0, usd_per_hour=36.0).exhausted(101, 3) or "")


def test_failed_launches_are_waste_in_the_ledger() -> None:
    fine = TrialResult(BASE, "full", 1.0, seconds={"launch": 2.0, "measure": 8.0})
    died = TrialResult(FP8, "full", None, failure="crash", seconds={"launch": 3.0})
    assert ledger([fine, died]) == {
        "launch": 2.0,
        "warmup": 0.0,
        "measure": 8.0,
        "accuracy": 0.0,
        "waste": 3.0,
    }


def test_a_search_stops_when_nothing_more_can_be_expected_and_not_before() -> None:
    flat = [0.30, *[0.0] * (QUIET + 20)]
    assert nothing_left(flat, 5, 0.01) is not None
    assert nothing_left(flat[:QUIET], 5, 0.01) is None
    climbing = [n / 100 for n in range(40)]
    assert nothing_left(climbing, 5, 0.01) is None


def test_the_best_third_of_short_looks_is_promoted() -> None:
    def short(n: int, value: float, missed: float = -1.0) -> TrialResult:
        config: Settings = {"engine": "one", "max_num_seqs": n}
        return TrialResult(config, "screen", value, violations={"ttft": missed})

    seen = [short(n, float(n)) for n in range(1, 10)]
    assert promoted(GOAL, seen, short(20, 2.5))
    assert not promoted(GOAL, seen, short(20, 6.5))
    assert not promoted(GOAL, seen, short(20, 0.5, missed=0.1))
    assert promoted(GOAL, seen[:2], short(20, 99.0))
