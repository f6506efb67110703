"""The floor as one question: sides by any name, screening, and finalists certified together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.accuracy.evaluation import Evaluation, load, save_head, save_scores
from bench.accuracy.settings import Accuracy
from bench.accuracy.verdict import certified, certifying, floor_of, screening
from serving.errors import UserError
from tests.support.gate_fixture import half_right, result

RULES = Accuracy(floor=0.95)


def kept(folder: Path, values: dict[str, float], settings: Accuracy = RULES) -> Evaluation:
    """An evaluation of `facts` on disk."""
    folder.mkdir(parents=True)
    task = result("facts", values, output_tokens=0)
    made = Evaluation(folder, {}, {"facts": task}, settings=settings.model_dump(mode="json"))
    save_scores(folder, task)
    save_head(made, {"facts": {}}, made.settings, "finished")
    return made


def test_one_candidate_by_folder_and_by_value(tmp_path: Path) -> None:
    base, same = half_right()
    _, bad = half_right(losses=300)
    b, s, w = (kept(tmp_path / n, dict(v)) for n, v in (("b", base), ("s", same), ("w", bad)))
    good = floor_of(s, b)
    assert (good.verdict, good.reasons, good.certified) == ("PASS", (), False)
    assert good.violation is not None
    assert good.violation < 0
    assert good == floor_of(s, b, RULES) == floor_of(load(tmp_path / "s"), load(tmp_path / "b"))
    worse = floor_of(w, b)
    assert worse.verdict == "FAIL"
    assert worse.worst is not None
    assert worse.worst.interval is not None
    assert worse.violation == pytest.approx(-(worse.worst.effect or 0) / 0.95)
    assert worse.violation > 0.1
    assert worse.as_json()["worst"]["name"] == "facts"
    shared = floor_of(b, replace(b))
    assert shared.verdict == "PASS"
    assert "share one evaluation" in shared.claims[0].note


def test_too_few_items_leave_it_open_and_say_how_many_would_do(tmp_path: Path) -> None:
    base, same = half_right(n=40)
    found = floor_of(kept(tmp_path / "s", dict(same)), kept(tmp_path / "b", dict(base)), RULES)
    assert found.verdict == "INCONCLUSIVE"
    assert found.needed is not None
    assert found.needed > 40
    assert found.reasons[0].startswith("facts INCONCLUSIVE")


def test_finalists_must_be_held_out_and_asked_to_the_end(tmp_path: Path) -> None:
    base, same = half_right()
    b = kept(tmp_path / "b", dict(base))
    for settings in (RULES, screening(RULES), RULES.model_copy(update={"split": "certify", "within_s": 9.0})):
        side = kept(tmp_path / f"x{settings.split}{settings.within_s}", dict(same), settings)
        with pytest.raises(UserError, match="cannot be certified"):
            certified({"x": side}, b)
    fine = kept(tmp_path / "fine", dict(same), certifying(RULES))
    found = certified({"x": fine}, b)["x"]
    assert (found.verdict, found.certified, found.confidence) == ("PASS", True, 0.95)


def test_more_finalists_ask_for_more_evidence_step_by_step(tmp_path: Path) -> None:
    """A p-value between 0.05/3 and 0.05: certified alone, not beside two that are open."""
    base = {str(i): 1.0 for i in range(300)}
    lost = dict.fromkeys(map(str, range(8)), 0.0)
    b = kept(tmp_path / "b", base)
    near = kept(tmp_path / "near", {**base, **lost}, certifying(RULES))
    opens = {
        n: kept(tmp_path / n, {**base, **{str(i): 0.0 for i in range(15)}}, certifying(RULES)) for n in "pq"
    }
    assert certified({"near": near}, b)["near"].certified
    together = certified({"near": near, **opens}, b)
    assert {f.verdict for f in together.values()} == {"INCONCLUSIVE"}
    good = kept(tmp_path / "good", base, certifying(RULES))
    # Holm: once the clear ones are certified, the near one is judged at the full level again.
    assert all(f.certified for f in certified({"good": good, "near": near}, b).values())


def test_of_several_finalists_at_the_floor_one_in_twenty_is_certified_at_most(tmp_path: Path) -> None:
    """100 families of three candidates exactly at a floor of 0.8: any false certificate in at most 5%."""
    rng, rules, wrong = np.random.default_rng(5), Accuracy(floor=0.8), 0
    n, families = 200, 100
    for family in range(families):
        base = {str(i): 1.0 for i in range(n)}
        sides = {}
        for k in range(3):
            values = {str(i): float(v) for i, v in enumerate(rng.random(n) < 0.8)}
            made = Evaluation(tmp_path / f"{family}-{k}", {}, {"facts": result("facts", values, output_tokens=0)},
                              settings=certifying(rules).model_dump(mode="json"))  # fmt: skip
            sides[str(k)] = made
        theirs = Evaluation(tmp_path / "b", {}, {"facts": result("facts", base, output_tokens=0)})
        wrong += any(f.certified for f in certified(sides, theirs, rules).values())
    assert wrong <= 11, "a rate of 5% gives more than 11 of 100 in less than one of 200 runs"
