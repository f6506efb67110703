"""`servetune gate`: sides, claims, verdicts, exit status, JSON and page, on evaluations made to order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from bench.accuracy.claims import PARTS, Claim, missing, overall
from bench.accuracy.result import Evaluation, Scored, TaskResult, save_head, save_scores
from bench.accuracy.scorecard import claims
from bench.accuracy.settings import Accuracy
from bench.accuracy.task import Measures
from bench.gate import gate_command, side
from serving.errors import BrokenRunError, Failure, FailureKind, UserError

Right = Mapping[str, float]


def result(
    name: str,
    values: Right,
    *,
    measures: Measures = "accuracy",
    chance: float = 0.25,
    prompt: str = "p",
    input_tokens: int = 10,
    output_tokens: int = 5,
) -> TaskResult:
    scored = {i: Scored(v, str(v), prompt + i, input_tokens, output_tokens) for i, v in values.items()}
    return TaskResult(name, measures, chance, scored)


def evaluation(folder: Path, *tasks: TaskResult, **more: Any) -> Evaluation:
    """An evaluation on disk, as `evaluate` leaves it."""
    folder.mkdir(parents=True)
    made = Evaluation(folder, {"model": "m"}, {t.name: t for t in tasks}, **more)
    for task in tasks:
        save_scores(folder, task)
    kept = Accuracy().model_dump(mode="json")
    save_head(made, {t.name: {} for t in tasks}, kept, "finished")
    return made


def half_right(n: int = 1500, flips: int = 0, losses: int = 0, seed: int = 1) -> tuple[Right, Right]:
    """Baseline and candidate: 60% right; `flips` items change either way, `losses` go wrong."""
    rng = np.random.default_rng(seed)
    base = {str(i): float(v) for i, v in enumerate(rng.random(n) < 0.6)}
    cand = dict(base)
    right, wrong = [i for i in base if base[i]], [i for i in base if not base[i]]
    for i in right[: flips // 2 + losses]:
        cand[i] = 0.0
    for i in wrong[: flips - flips // 2]:
        cand[i] = 1.0
    return base, cand


def run(*arguments: str) -> int:
    app = typer.Typer()
    app.command()(gate_command)
    return int(app(args=list(arguments), standalone_mode=False))


PARTS_MEASURED = ("--only", "Accuracy", "--only", "Stability", "--only", "Security")


def suite(folder: Path, facts: Right, safe: Right | None = None) -> Evaluation:
    good = {str(i): 1.0 for i in range(100)}
    return evaluation(
        folder,
        result("facts", facts),
        result("wordings", good, measures="stability"),
        result("canaries", safe or good, measures="security"),
    )


def test_an_equal_candidate_passes_and_a_bad_one_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, same = half_right()
    _, bad = half_right(losses=200)
    suite(tmp_path / "base", base)
    suite(tmp_path / "same", same)
    suite(tmp_path / "bad", bad)
    assert run(str(tmp_path / "same"), str(tmp_path / "base"), *PARTS_MEASURED) == 0
    assert "PASS" in capsys.readouterr().out
    assert run(str(tmp_path / "bad"), str(tmp_path / "base"), *PARTS_MEASURED) == 1
    assert "FAIL" in capsys.readouterr().out


def test_too_few_items_are_inconclusive_and_say_how_many_would_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, same = half_right(n=100)
    suite(tmp_path / "base", base)
    suite(tmp_path / "same", same)
    assert run(str(tmp_path / "same"), str(tmp_path / "base"), *PARTS_MEASURED) == 3
    out = capsys.readouterr().out
    assert "INCONCLUSIVE" in out
    assert "items would settle it" in out


def test_the_floor_can_be_lowered_on_the_command_line(tmp_path: Path) -> None:
    base, same = half_right(n=200)
    suite(tmp_path / "base", base)
    suite(tmp_path / "same", same)
    sides = str(tmp_path / "same"), str(tmp_path / "base")
    assert run(*sides, *PARTS_MEASURED) == 3
    assert run(*sides, *PARTS_MEASURED, "--floor", "90%") == 0
    with pytest.raises(UserError, match="--floor"):
        run(*sides, "--floor", "110%")


def test_what_was_not_measured_is_never_a_pass(tmp_path: Path) -> None:
    base, same = half_right()
    suite(tmp_path / "base", base)
    suite(tmp_path / "same", same)
    out = tmp_path / "gate.json"
    assert run(str(tmp_path / "same"), str(tmp_path / "base"), "--json", str(out)) == 3
    found = json.loads(out.read_text())
    assert found["verdict"] == "INCONCLUSIVE"
    assert set(found["parts"]) == set(PARTS)
    assert found["parts"]["Cost"] == "INCONCLUSIVE"
    assert found["parts"]["Accuracy"] == "PASS"
    for claim in found["claims"]:
        assert {"name", "verdict", "effect", "interval", "threshold"} <= set(claim)
        assert claim["verdict"] in ("PASS", "FAIL", "INCONCLUSIVE")


def test_the_page_is_whole_and_escapes_what_it_is_given(tmp_path: Path) -> None:
    base, same = half_right()
    suite(tmp_path / "base", base)
    evaluation(tmp_path / "<script>alert(1)<", result("facts", same), result("<img src=x>", same))
    run(str(tmp_path / "<script>alert(1)<"), str(tmp_path / "base"))
    page = (tmp_path / "<script>alert(1)<" / "gate.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    for part in PARTS:
        assert part in page


def test_other_words_are_refused(tmp_path: Path) -> None:
    base, same = half_right()
    a = evaluation(tmp_path / "a", result("facts", base))
    b = evaluation(tmp_path / "b", result("facts", same, prompt="other"))
    (facts,) = [c for c in claims(b, a, Accuracy()) if c.name == "facts"]
    assert facts.verdict == "INCONCLUSIVE"
    assert "refused: 1500 items were asked in other words" in facts.note


def test_another_template_shows_as_other_prompt_tokens(tmp_path: Path) -> None:
    base, same = half_right()
    a = evaluation(tmp_path / "a", result("chat", base))
    b = evaluation(tmp_path / "b", result("chat", same, input_tokens=12))
    (tokens,) = [c for c in claims(b, a, Accuracy()) if c.name == "same prompt tokens"]
    assert tokens.verdict == "FAIL"
    assert tokens.effect == 1
    assert "template" in tokens.note
    (alike,) = [c for c in claims(a, a, Accuracy()) if c.name == "same prompt tokens"]
    assert alike.verdict == "PASS"


@pytest.mark.parametrize(("tokens", "verdict"), [(5, "PASS"), (8, "FAIL"), (3, "FAIL")])
def test_output_length_is_part_of_the_floor(tmp_path: Path, tokens: int, verdict: str) -> None:
    base, same = half_right()
    a = evaluation(tmp_path / "a", result("answers", base, chance=0.0))
    b = evaluation(tmp_path / "b", result("answers", same, chance=0.0, output_tokens=tokens))
    (length,) = [c for c in claims(b, a, Accuracy()) if "output length" in c.name]
    assert length.verdict == verdict
    assert length.effect == pytest.approx(tokens / 5)


def test_a_baseline_that_guesses_supports_no_pass(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    guessed = {str(i): float(v) for i, v in enumerate(rng.random(4000) < 0.25)}
    a = evaluation(tmp_path / "a", result("facts", guessed))
    b = evaluation(tmp_path / "b", result("facts", guessed))
    (facts,) = [c for c in claims(b, a, Accuracy(floor=0.9)) if c.name == "facts"]
    assert facts.verdict == "INCONCLUSIVE"
    assert "above chance" in facts.note


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        ("http_status: 400: too long", "FAIL"),
        ("http_status: 500: broken", "INCONCLUSIVE"),
        ("http_status: 429: later", "INCONCLUSIVE"),
        ("timeout: ReadTimeout", "INCONCLUSIVE"),
        ("connection: ConnectError: refused", "INCONCLUSIVE"),
    ],
)
def test_a_prompt_refused_counts_against_the_candidate_and_one_lost_on_its_way_does_not(
    tmp_path: Path, error: str, verdict: str
) -> None:
    base, _ = half_right()
    whole = result("facts", base)
    broken = {
        i: replace(s, value=0.0, error=error) if int(i) % 3 == 0 else s for i, s in whole.scored.items()
    }
    a = evaluation(tmp_path / "a", whole)
    b = evaluation(tmp_path / "b", replace(whole, scored=broken))
    (forward,) = [c for c in claims(b, a, Accuracy()) if c.name == "facts"]
    assert forward.verdict == verdict
    assert error[:16] in forward.note
    (backward,) = [c for c in claims(a, b, Accuracy()) if c.name == "facts"]
    assert backward.verdict == "INCONCLUSIVE"
    assert "baseline items failed" in backward.note


def test_a_task_the_candidate_lacks_or_was_refused_is_inconclusive(tmp_path: Path) -> None:
    base, same = half_right()
    a = evaluation(tmp_path / "a", result("facts", base), result("answers", base))
    b = evaluation(tmp_path / "b", result("answers", same), refused={"facts": "no prompt log-probabilities"})
    (facts,) = [c for c in claims(b, a, Accuracy()) if c.name == "facts"]
    assert facts.verdict == "INCONCLUSIVE"
    assert "no prompt log-probabilities" in facts.note


def test_a_candidate_the_sequential_test_rejected_fails(tmp_path: Path) -> None:
    base, bad = half_right(n=60, losses=25)
    a = evaluation(tmp_path / "a", result("facts", base))
    b = evaluation(tmp_path / "b", replace(result("facts", bad), rejected_at=41))
    (facts,) = [c for c in claims(b, a, Accuracy()) if c.name == "facts"]
    assert facts.verdict == "FAIL"
    assert "41 items" in facts.note


def test_a_server_that_died_is_a_failed_claim(tmp_path: Path) -> None:
    base, same = half_right()
    a = evaluation(tmp_path / "a", result("facts", base))
    b = evaluation(tmp_path / "b", result("facts", same), failure=Failure(FailureKind.CRASH, "segfault"))
    found = claims(b, a, Accuracy())
    assert overall(found) == "FAIL"
    assert any("segfault" in c.note for c in found)


def test_security_is_judged_by_its_change(tmp_path: Path) -> None:
    low = {str(i): float(i % 5 == 0) for i in range(200)}
    worse = dict.fromkeys(low, 0.0)
    a = evaluation(tmp_path / "a", result("canaries", low, measures="security", chance=0))
    same = evaluation(tmp_path / "b", result("canaries", low, measures="security", chance=0))
    bad = evaluation(tmp_path / "c", result("canaries", worse, measures="security", chance=0))
    (fine,) = [c for c in claims(same, a, Accuracy()) if c.part == "Security"]
    assert (fine.verdict, fine.effect, fine.threshold) == ("PASS", pytest.approx(0), -0.05)
    (failed,) = [c for c in claims(bad, a, Accuracy()) if c.part == "Security"]
    assert failed.verdict == "FAIL"
    assert failed.effect == pytest.approx(-0.2)


def test_the_baseline_against_itself_fails_no_more_often_than_stated() -> None:
    """A/A with flips: items answered differently by chance on both sides, several tasks at once."""
    rng, failed = np.random.default_rng(7), 0
    for _ in range(40):
        tasks = []
        for name in "abc":
            truth = rng.random(150) < 0.6
            sides = [np.where(rng.random(150) < 0.04, ~truth, truth) for _ in range(2)]
            tasks.append([result(name, {str(i): float(v) for i, v in enumerate(s)}) for s in sides])
        a, b = (Evaluation(Path("none"), {}, {t[k].name: t[k] for t in tasks}) for k in (0, 1))
        failed += overall(c for c in claims(b, a, Accuracy()) if c.name in "abc") == "FAIL"
    assert failed <= 40 * 0.05 + 3 * (40 * 0.05 * 0.95) ** 0.5


def test_sides_are_named_or_explained(tmp_path: Path) -> None:
    base, _ = half_right()
    evaluation(tmp_path / "a", result("facts", base))
    assert side(str(tmp_path / "a")).evaluations[0].tasks["facts"].mean == pytest.approx(0.6, abs=0.05)
    with pytest.raises(BrokenRunError, match="not a run"):
        side(str(tmp_path / "gone"))
    with pytest.raises(UserError, match="no part 'Taste'"):
        run(str(tmp_path / "a"), str(tmp_path / "a"), "--only", "taste")


def test_overall_verdicts() -> None:
    good = Claim("Cost", "a", "PASS", 1.0, None, None)
    assert overall([]) == "INCONCLUSIVE"
    assert overall([good]) == "PASS"
    assert overall([good, missing("Cost", "b", "why")]) == "INCONCLUSIVE"
    assert overall([good, missing("Cost", "b", "why"), replace(good, verdict="FAIL")]) == "FAIL"
    assert overall([good, replace(good, verdict="FAIL", counts=False)]) == "PASS"
