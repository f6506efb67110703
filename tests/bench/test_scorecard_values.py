"""One candidate beside its baseline, claim by claim, with the figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bench.accuracy.evaluation import Evaluation, Scored, TaskResult
from bench.accuracy.floor import against_floor, against_margin, judge
from bench.accuracy.pairing import pairing
from bench.accuracy.scorecard import above_chance, by_part, claims
from bench.accuracy.settings import Accuracy
from serving.claims import Claim

SETTINGS = Accuracy()


def task(values: list[float], name: str = "facts", measures: Any = "accuracy", chance: float = 0.25, *,
         outputs: list[int] | None = None, **more: Any) -> TaskResult:  # fmt: skip
    lengths = outputs or [0] * len(values)
    scored = {
        str(i): Scored(v, str(v), f"p{i}", 10, length)
        for i, (v, length) in enumerate(zip(values, lengths, strict=True))
    }
    return TaskResult(name, measures, chance, scored, **more)


def changed(one: TaskResult, items: list[int], **fields: Any) -> TaskResult:
    scored = {i: replace(s, **fields) if int(i) in items else s for i, s in one.scored.items()}
    return replace(one, scored=scored)


def evaluation(*tasks: TaskResult, **more: Any) -> Evaluation:
    return Evaluation(Path("x"), {"model": "m"}, {t.name: t for t in tasks}, **more)


def found(
    candidate: TaskResult | None, baseline: TaskResult, settings: Accuracy = SETTINGS
) -> dict[str, Claim]:
    ours = evaluation(*([candidate] if candidate else []))
    return {c.name: c for c in claims(ours, evaluation(baseline), settings) if c.counts}


BASE = [1.0] * 900 + [0.0] * 600
WORSE = [1.0] * 880 + [0.0] * 620


def test_accuracy_is_held_to_the_floor() -> None:
    both = pairing(task(WORSE), task(BASE))
    by_hand = judge(against_floor(both.pairs(), 0.99), 0.95, 1)
    claim = found(task(WORSE), task(BASE))["facts"]
    assert (claim.verdict, claim.n, claim.part, claim.unit) == (
        by_hand.outcome,
        1500,
        "Accuracy",
        "score - 0.99 x baseline",
    )
    assert claim.effect == pytest.approx((880 - 0.99 * 900) / 1500)
    assert claim.interval == (by_hand.low, by_hand.high)
    assert claim.threshold == 0.0
    assert claim.note == "58.7% against 60.0%; on these items below the floor"
    assert (
        found(task(BASE), task(BASE))["facts"].note
        == "60.0% against 60.0%; on these items at or above the floor"
    )


def test_security_is_held_to_a_margin_and_stability_to_its_own_floor() -> None:
    ours, theirs = task(WORSE, "canaries", "security"), task(BASE, "canaries", "security")
    claim = found(ours, theirs)["canaries"]
    by_hand = judge(against_margin(pairing(ours, theirs).pairs(), 0.05), 0.95, 1)
    assert (claim.part, claim.unit, claim.threshold) == ("Security", "change of share", -0.05)
    assert claim.effect == pytest.approx(-20 / 1500)
    assert claim.interval == pytest.approx((by_hand.low - 0.05, by_hand.high - 0.05))
    assert claim.note == "58.7% against 60.0%"
    stable = found(task(WORSE, "repeats", "stability"), task(BASE, "repeats", "stability"))["repeats"]
    assert (stable.part, stable.unit) == ("Stability", "score - 0.95 x baseline")
    assert stable.effect == pytest.approx((880 - 0.95 * 900) / 1500)


def test_the_level_of_fail_is_shared_among_the_tasks() -> None:
    base = [task(BASE, name) for name in ("a", "b", "c")]
    ours = evaluation(*(task(WORSE, name) for name in ("a", "b", "c")))
    claim = next(c for c in claims(ours, evaluation(*base), SETTINGS) if c.name == "a")
    assert claim.interval is not None
    assert (
        claim.interval[1]
        == judge(against_floor(pairing(task(WORSE), task(BASE)).pairs(), 0.99), 0.95, 3).high
    )


def test_a_baseline_that_guesses_supports_no_pass() -> None:
    guessing = task([1.0, 0.0] * 1500, chance=0.5)
    claim = found(guessing, guessing)["facts"]
    assert claim.verdict == "INCONCLUSIVE"
    assert "not above chance" in claim.note
    assert (
        found(task([1.0, 0.0] * 1500, chance=0.4), task([1.0, 0.0] * 1500, chance=0.4))["facts"].verdict
        == "PASS"
    )


@pytest.mark.parametrize(("right", "above"), [(30, False), (33, True)])
def test_above_chance_is_a_lower_bound_above_it(right: int, above: bool) -> None:
    """Of 100 with a chance of a quarter: 33 are rarer than one in twenty, 30 are not."""
    assert (stats.binom.sf(right - 1, 100, 0.25) <= 0.05) == above
    assert above_chance(task([1.0] * right + [0.0] * (100 - right))) == above


@pytest.mark.parametrize(("errors", "refused"), [(15, False), (16, True)])
def test_one_per_cent_of_the_baselines_items_may_have_failed(errors: int, refused: bool) -> None:
    base = changed(task(BASE), list(range(errors)), error="timed out")
    claim = found(task(BASE), base)["facts"]
    assert (claim.effect is None) == refused
    if refused:
        assert (claim.verdict, claim.note) == ("INCONCLUSIVE", "16 of 1500 baseline items failed: timed out")
    else:
        assert claim.n == 1485, "what the baseline failed on is left out"


def test_requests_of_the_candidate_that_were_lost_are_left_out_of_a_fail_and_said() -> None:
    claim = found(changed(task(WORSE), [1499], error="reset"), task(BASE))["facts"]
    assert (claim.verdict, claim.n) == ("FAIL", 1499)
    assert claim.note.endswith("; 1 requests of the candidate failed on their way: reset; they are left out")


def test_what_was_asked_in_other_words_is_not_compared() -> None:
    claim = found(changed(task(BASE), [3, 4], prompt="other"), task(BASE))["facts"]
    assert (claim.verdict, claim.effect) == ("INCONCLUSIVE", None)
    assert "2 items were asked in other words" in claim.note


def test_a_task_that_was_not_answered_is_missing() -> None:
    assert found(None, task(BASE))["facts"].verdict == "INCONCLUSIVE"
    refused = claims(evaluation(refused={"facts": "no echo"}), evaluation(task(BASE)), SETTINGS)
    assert "the engine cannot give it: no echo" in refused[0].note
    elsewhere = TaskResult("facts", "accuracy", 0.25, {"zz": Scored(1.0, "1", "p", 10, 0)})
    assert "no item was answered on both sides" in found(elsewhere, task(BASE))["facts"].note


def test_what_the_baselines_engine_cannot_give_is_said() -> None:
    base = evaluation(task(BASE), refused={"text": "no echo", "repeats": "no seeds"})
    lacking = [
        (c.name, c.verdict, c.note)
        for c in claims(evaluation(task(BASE)), base, SETTINGS)
        if c.effect is None
    ]
    assert [name for name, _, _ in lacking][:2] == ["text", "repeats"]
    assert lacking[0][1:] == ("INCONCLUSIVE", "the baseline's engine cannot give it: no echo")


def test_the_sequential_test_ends_in_a_fail_with_the_figures_so_far() -> None:
    claim = found(task(WORSE, rejected_at=40), task(BASE))["facts"]
    assert (claim.verdict, claim.n) == ("FAIL", 1500)
    assert claim.note == "below the floor after 40 items (sequential test, valid at any look)"


# --- lengths and tokens ---------------------------------------------------------------------------


def lengths(factor: float, n: int = 40, settings: Accuracy = SETTINGS) -> Claim | None:
    theirs = [100 + 7 * (i % 5) for i in range(n)]
    ours = [round(length * factor) + (i % 3) - 1 for i, length in enumerate(theirs)]
    base = task([1.0] * n, outputs=theirs)
    return found(task([1.0] * n, outputs=ours), base, settings).get("facts: output length")


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.0, "PASS"), (0.91, "PASS"), (0.9, "INCONCLUSIVE"), (0.89, "FAIL"), (1.09, "PASS"), (1.11, "FAIL")],
)
def test_lengths_within_a_tenth_pass(factor: float, verdict: str) -> None:
    claim = lengths(factor)
    assert claim is not None
    if factor == 0.9:
        assert claim.verdict in ("INCONCLUSIVE", "FAIL"), "at the very edge nothing passes"
    else:
        assert claim.verdict == verdict
    assert claim.effect == pytest.approx(factor, abs=0.005)
    assert claim.threshold == (0.9 if claim.effect is not None and claim.effect < 1 else 1.1)


def test_the_interval_of_a_length_ratio() -> None:
    n = 40
    theirs = np.array([100 + 7 * (i % 5) for i in range(n)], dtype=float)
    ours = np.array([round(length * 0.95) + (i % 3) - 1 for i, length in enumerate(theirs)], dtype=float)
    claim = lengths(0.95)
    assert claim is not None
    assert claim.interval is not None
    ratio = ours.sum() / theirs.sum()
    half = stats.t.ppf(0.95, n - 1) * stats.sem(ours - ratio * theirs) / theirs.mean()
    assert claim.interval == pytest.approx((ratio - half, ratio + half))
    assert (claim.n, claim.part, claim.unit) == (40, "Accuracy", "ratio")


def test_fewer_than_twenty_answers_decide_nothing_and_one_says_nothing() -> None:
    few, enough = lengths(1.0, 19), lengths(1.0, 20)
    assert few is not None
    assert enough is not None
    assert (few.verdict, enough.verdict) == ("INCONCLUSIVE", "PASS")
    assert lengths(1.0, 2) is not None
    assert lengths(1.0, 1) is None
    nothing = task([1.0] * 30, outputs=[0] * 30)
    assert "facts: output length" not in found(nothing, nothing)


def test_answers_cut_at_their_limit_are_counted_on_either_side() -> None:
    base = task([1.0] * 30, outputs=[50] * 30)
    ours = changed(base, [0, 1, 2], cut=True)
    claim = found(ours, changed(base, [0], cut=True))["facts: output length"]
    assert claim.note == "allowed 0.9 to 1.1; answers cut at their limit: 3 against 1"


def test_long_answers_of_a_tripwire_have_their_length_too() -> None:
    base = task([1.0] * 30, "continuations", "tripwire", outputs=[50] * 30)
    assert "continuations: output length" in found(base, base)
    assert "continuations: output length" not in found(None, base)


def test_the_same_words_are_the_same_tokens() -> None:
    base = task(BASE)
    same = found(base, base)["same prompt tokens"]
    assert (same.verdict, same.effect, same.n, same.note) == ("PASS", 0.0, 1500, "")
    other = found(changed(base, [0, 1, 2], input_tokens=11), base)["same prompt tokens"]
    assert (other.verdict, other.effect) == ("FAIL", pytest.approx(3 / 1500))
    assert other.note.startswith("in facts: ")
    failed = found(changed(base, [0], input_tokens=0, error="reset"), base)["same prompt tokens"]
    assert failed.verdict == "PASS", "a request that failed has no tokens to compare"
    untold = found(changed(base, [0], input_tokens=11), changed(base, [0], input_tokens=0))[
        "same prompt tokens"
    ]
    assert untold.verdict == "PASS", "nor one whose tokens the baseline's engine did not tell"


def test_wordings_of_one_question_are_one_pair() -> None:
    base = changed(task(BASE), list(range(100)), cluster="q")
    assert pairing(task(BASE), base).pairs().n == 1401


def test_claims_are_grouped_by_part() -> None:
    some = [
        Claim("a", "PASS", part="Accuracy"),
        Claim("b", "FAIL", part="Security"),
        Claim("c", "PASS", part="Accuracy"),
        Claim("d", "PASS"),
    ]
    assert by_part(some) == {"Accuracy": [some[0], some[2]], "Security": [some[1]]}
