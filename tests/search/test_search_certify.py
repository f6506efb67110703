"""A winner must hold a certificate: held-out items, paid for by how many finalists there are, spot-checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bench.accuracy.evaluation import Evaluation, Scored, TaskResult
from bench.accuracy.settings import Accuracy
from bench.evaluation import store
from bench.plan.evaluations import Evaluating
from bench.records.folder import RunFolder
from search.evaluator import Certificate
from search.finals import certify
from search.finals.rounds import conclude
from search.loop import Loop
from search.result import Settings, key_of
from serving.config import ServingConfig
from serving.errors import Failure, FailureKind
from tests.support.search_fixture import Known, finals, loop


@dataclass
class Examined(Known):
    """The known optimum, and what the certificate says of each quantization."""

    verdicts: dict[str, str] = field(default_factory=dict)

    def certificates(self, finalists: Sequence[Settings]) -> dict[str, Certificate]:
        asked = {
            key_of(s): self.verdicts.get(str(s.get("quantization", "none")), "PASS") for s in finalists[1:]
        }
        return {key: Certificate(v, "" if v == "PASS" else "it lost") for key, v in asked.items()}

    def answers_like(self, one: Settings, other: Settings) -> bool:
        return one.get("quantization", "none") == other.get("quantization", "none")


def searched(folder: Path, **verdicts: str) -> tuple[Loop, list[str]]:
    said: list[str] = []
    made = loop(folder, 14, say=said.append, sampler="random", seed=3)
    made.evaluator = Examined(folder, verdicts=verdicts)
    made.run()
    return made, said


def test_a_winner_holds_a_certificate(tmp_path: Path) -> None:
    made, _ = searched(tmp_path)
    answer = conclude(finals(made))
    assert answer.winner is not None
    assert answer.winner.settings.get("quantization") == "fp8", "the cheapest, and certified"
    assert answer.winner.certificate == Certificate("PASS", "")


@pytest.mark.parametrize("verdict", ["FAIL", "INCONCLUSIVE"])
def test_without_one_the_next_best_is_tried_and_nothing_that_answers_alike(
    tmp_path: Path, verdict: str
) -> None:
    made, said = searched(tmp_path, fp8=verdict)
    answer = conclude(finals(made))
    assert answer.winner is not None
    assert answer.winner.settings.get("quantization") != "fp8"
    tried = [s for s in answer.standings if s.settings.get("quantization") == "fp8"]
    assert len(tried) == 1, "the others would answer alike"
    assert len(tried[0].outcomes) == 1, "it is not measured again once it is out"
    assert not tried[0].feasible
    assert [line for line in said if "not certified" in line and verdict in line]
    assert answer.standings[1].settings.get("quantization") == "fp8", "it was the first in line"


def test_the_default_wins_when_nothing_is_certified_and_a_resume_asks_nothing_again(tmp_path: Path) -> None:
    made, _ = searched(tmp_path, fp8="FAIL", none="FAIL")
    answer = conclude(finals(made))
    assert answer.verdict == "default_is_best"
    assert len(answer.baseline.outcomes) == 1, "alone it is not measured again"
    looks = (tmp_path / "looked.txt").read_text()
    assert conclude(finals(made)) == answer
    assert (tmp_path / "looked.txt").read_text() == looks


BASE = ServingConfig(engine="sim", model="m")
FP8 = ServingConfig(engine="sim", model="m", quantization="fp8")
WIDE = ServingConfig(engine="sim", model="m", max_num_seqs=8)
RULES = Accuracy(floor=0.95, tasks=("facts",))


def evaluated(
    run: RunFolder, config: ServingConfig, repeat: int, right: int, items: int = 900, flipped: int = 0
) -> Evaluation:
    """`right` of `items` answered rightly, `flipped` of the answers another choice."""
    settings = RULES.model_copy(update={"split": "certify" if repeat >= store.CERTIFICATE else "screen"})
    folder = store.folder_of(run, certify.alike(config.settings), settings, 8, repeat, config.key)
    scored = {
        str(i): Scored(float(i < right), "x" if i < flipped else "y", f"p{i}", 10, 1, str(i))
        for i in range(items)
    }
    task = TaskResult("facts", "accuracy", 0.25, scored)
    made = Evaluation(folder, {}, {"facts": task}, concurrency=8, settings=settings.model_dump(mode="json"))
    from bench.accuracy.evaluation import save_head, save_scores

    folder.mkdir(parents=True, exist_ok=True)
    save_head(made, {"facts": {"measures": "accuracy", "chance": 0.25}}, made.settings, "finished")
    save_scores(folder, task)
    store.record(run, config, folder, repeat)
    return made


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path / "run", {"scenario": "s"}, b"")
    evaluated(made, BASE, 0, 600)
    evaluated(made, BASE, 1, 600)
    evaluated(made, BASE, store.CERTIFICATE, 600)
    return made


@dataclass(frozen=True)
class Asking:
    accuracy: Accuracy = RULES


def judged(run: RunFolder, *configs: ServingConfig) -> list[Certificate]:
    keys = [config.key for config in configs]
    found = certify.certificates(run, Asking(), keys, BASE.key)  # type: ignore[arg-type]
    return [found[key] for key in keys]


def test_held_out_answers_pass_or_fail_a_finalist(run: RunFolder) -> None:
    evaluated(run, FP8, 0, 600)
    evaluated(run, FP8, store.CERTIFICATE, 598)
    (passed,) = judged(run, FP8)
    assert passed.passed
    assert passed.as_json()["items"] == 900
    assert passed.as_json()["held_out"]
    evaluated(run, FP8, store.CERTIFICATE, 500)
    (failed,) = judged(run, FP8)
    assert failed.verdict == "FAIL"
    assert "facts" in failed.why


def test_what_was_not_asked_or_died_is_no_pass(run: RunFolder, tmp_path: Path) -> None:
    evaluated(run, FP8, 0, 600)
    (never,) = judged(run, FP8)
    assert never.verdict == "INCONCLUSIVE"
    assert "not asked" in never.why
    died = evaluated(run, FP8, store.CERTIFICATE, 600)
    broken = replace(died, failure=Failure(FailureKind.CRASH, "gone", ""))
    from bench.accuracy.evaluation import save_head

    save_head(broken, {"facts": {"measures": "accuracy", "chance": 0.25}}, broken.settings, "failed")
    (dead,) = judged(run, FP8)
    assert dead.verdict == "INCONCLUSIVE"
    assert "gone" in dead.why
    bare = RunFolder.create(tmp_path / "bare", {"scenario": "s"}, b"")
    evaluated(bare, FP8, store.CERTIFICATE, 600)
    assert "baseline" in judged(bare, FP8)[0].why


def test_a_shared_evaluation_is_put_to_a_spot_check(run: RunFolder) -> None:
    evaluated(run, WIDE, 0, 600)
    evaluated(run, WIDE, store.CERTIFICATE, 600)
    assert store.shares(run, WIDE.key)
    assert judged(run, WIDE)[0].verdict == "INCONCLUSIVE", "shared, and not checked"
    evaluated(run, WIDE, store.SPOT, 40, items=60)
    assert judged(run, WIDE)[0].passed
    evaluated(run, WIDE, store.SPOT, 40, items=60, flipped=20)
    (changed,) = judged(run, WIDE)
    assert changed.verdict == "FAIL"
    assert "33" in changed.why


def test_finalists_that_share_answers_pay_for_one_test(run: RunFolder) -> None:
    both = [FP8, FP8.model_copy(update={"max_num_seqs": 8})]
    for config in both:
        evaluated(run, config, 0, 600)
        evaluated(run, config, store.CERTIFICATE, 598)
    evaluated(run, both[1], store.SPOT, 40, items=60)
    alone, together = judged(run, FP8)[0], judged(run, *both)
    assert alone.floor is not None
    assert [c.floor and c.floor.confidence for c in together] == [alone.floor.confidence] * 2


def test_a_confirming_launch_is_asked_the_certificate_and_where_answers_are_shared_the_spot_check() -> None:
    whole = [Evaluating("l", "c", repeat, ("facts",), 900, 1.0) for repeat in (0, 1)]
    assert [one.repeat for one in certify.asked(whole, shares=False)] == [store.CERTIFICATE]
    assert [one.repeat for one in certify.asked(whole, shares=True)] == [store.CERTIFICATE, store.SPOT]


def test_what_is_compared_of_two_configs_of_a_study_is_what_no_trial_has_seen(run: RunFolder) -> None:
    screened = evaluated(run, FP8, 0, 600)
    mine, theirs = store.pair(run, FP8.key, BASE.key)
    assert [mine[0].folder, len(theirs)] == [screened.folder, 2], "screening and the baseline's A/A"
    held = evaluated(run, FP8, store.CERTIFICATE, 598)
    mine, theirs = store.pair(run, FP8.key, BASE.key)
    assert [one.folder for one in mine] == [held.folder]
    assert theirs[0].settings["split"] == "certify"
