"""The search above its oracle: what is asked first, what failures teach, what a kill costs, what ends it."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from bench.scenario.model import GridRule
from search.budget import hopeless
from search.result import Fidelity, Settings, TrialResult, best, key_of
from search.resume import StudyLog
from search.space import Axis, Space
from tests.support.search_fixture import CONSTRAINTS, SPACE, Known, loop

ROOT = Path(__file__).parents[2]


def test_every_default_comes_first_and_in_full(tmp_path: Path) -> None:
    made = loop(tmp_path, 4)
    made.run()
    trials = made.log.trials()
    assert [t.settings for t in trials[:2]] == [SPACE.default("one"), SPACE.default("two")]
    assert all(t.outcomes[-1].fidelity == "full" for t in trials[:2])


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2", "brute"])
def test_samplers_look_at_each_configuration_once(tmp_path: Path, sampler: str) -> None:
    made = loop(tmp_path, 20, sampler=sampler)
    made.run()
    assert len({key_of(t.settings) for t in made.log.trials()}) == 20


def test_a_space_is_exhausted(tmp_path: Path) -> None:
    small = Space(
        {"two": (Axis("max_num_batched_tokens", choices=(512, 2048)), Axis("enforce_eager", choices=(True,)))}
    )
    made = loop(tmp_path, 100, sampler="grid", space=small)
    assert "every configuration" in made.run()
    assert len(made.log.trials()) == small.size == 6


def test_failures_and_broken_promises_are_infeasible_trials(tmp_path: Path) -> None:
    made = loop(tmp_path, 30, sampler="random")
    made.run()
    told = [t for t in made.study.optuna.get_trials() if t.user_attrs.get("trial") is not None]
    failed = [t for t in told if t.user_attrs.get("failure") == "oom_at_launch"]
    assert failed
    for trial in failed:
        assert trial.state == TrialState.PRUNED
        assert trial.system_attrs["constraints:runs"] == 1.0
    for trial in told:
        assert sum(any(name in k for k in trial.system_attrs) for name in CONSTRAINTS) == len(CONSTRAINTS)
    history = made.log.history()
    assert all(o.value is None for o in history if o.failure)
    winner = best(history, minimize=True)
    assert winner is not None
    assert winner.violations["ttft:p50<=200ms"] <= 0
    assert winner.fidelity == "full"


def test_a_short_look_is_never_the_best_trial(tmp_path: Path) -> None:
    made = loop(tmp_path, 25, sampler="random")
    made.run()
    screens = [t for t in made.study.optuna.get_trials() if t.user_attrs.get("fidelity") == "screen"]
    assert screens
    assert all(t.state == TrialState.PRUNED for t in screens)
    assert made.study.optuna.best_trial.user_attrs["fidelity"] == "full"


def test_equal_seeds_ask_equal_questions_across_a_resume(tmp_path: Path) -> None:
    whole, parts = loop(tmp_path / "whole", 16), loop(tmp_path / "parts", 9)
    whole.run()
    parts.run()
    again = loop(tmp_path / "parts", 16)
    again.run()
    assert [t.settings for t in whole.log.trials()] == [t.settings for t in again.log.trials()]


def test_tpe_finds_the_optimum_that_is_known(tmp_path: Path) -> None:
    made = loop(tmp_path, 40)
    made.run()
    found = best(made.log.history(), minimize=True)
    assert found is not None
    assert found.value is not None
    assert found.value <= 10 - 8 - 2 + 1  # 128 sequences with fp8 are the optimum, one doubling off is near


def test_a_lost_storage_is_made_again_from_the_log(tmp_path: Path) -> None:
    loop(tmp_path, 8).run()
    (tmp_path / "study.db").unlink()
    made = loop(tmp_path, 10)
    made.run()
    told = [t for t in made.study.optuna.get_trials() if t.user_attrs.get("trial") is not None]
    assert sorted(t.user_attrs["trial"] for t in told) == list(range(10))


def test_the_storage_may_be_a_journal(tmp_path: Path) -> None:
    url = f"journal:{tmp_path / 'study.journal'}"
    loop(tmp_path, 4, storage=url).run()
    made = loop(tmp_path, 6, storage=url)
    made.run()
    assert [t.trial for t in made.log.trials()] == list(range(6))


def test_an_interrupted_trial_is_tried_once_more_then_lost(tmp_path: Path) -> None:
    class Dies(Known):
        def measure(self, settings, fidelity):  # type: ignore[no-untyped-def]
            if len(made.log.trials()) == 4:
                raise KeyboardInterrupt
            return super().measure(settings, fidelity)

    for _ in range(2):
        made = loop(tmp_path, 6)
        made.evaluator = Dies(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            made.run()
    made = loop(tmp_path, 6)
    made.run()
    trials = made.log.trials()
    assert trials[3].attempts == 2
    assert trials[3].outcomes[-1].failure == "lost"
    assert [t.ended for t in trials] == [True] * 6


@pytest.mark.slow
def test_kill_9_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    draw, total = random.Random(5), 14
    kept: list[str] = []
    command = [
        sys.executable,
        str(ROOT / "tests" / "support" / "search_fixture.py"),
        str(tmp_path),
        str(total),
        "0.05",
    ]
    (tmp_path / "study.jsonl").touch()
    for _ in range(8):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                 cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"})  # fmt: skip
        time.sleep(draw.uniform(0.8, 2.5))
        child.kill()
        child.wait()
        lines = (tmp_path / "study.jsonl").read_text().split("\n")[:-1]
        assert lines[: len(kept)] == kept  # append-only: nothing that was there is gone
        kept = lines
    assert (
        subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"}).returncode == 0
    )
    trials = StudyLog(tmp_path).trials()
    assert [t.trial for t in trials] == list(range(total))
    assert all(t.ended and t.attempts <= 2 for t in trials)
    seen = Counter((tmp_path / "looked.txt").read_text().split("\n"))
    done = {key_of(t.settings) for t in trials if t.attempts == 1}
    assert all(count == 1 for line, count in seen.items() if line and line.split(" ", 1)[1] in done)
    study = optuna.load_study(study_name="known", storage=f"sqlite:///{tmp_path / 'study.db'}")
    ended = [t for t in study.trials if t.user_attrs.get("trial") is not None and t.state.is_finished()]
    assert {t.user_attrs["trial"] for t in ended} == set(range(total))


class Broken(Known):
    """The machine's fault: whatever is asked, the engine ends in the same words."""

    def measure(self, settings: Settings, fidelity: Fidelity) -> TrialResult:
        return TrialResult(
            settings, fidelity, None, failure="crash", detail="driver", seconds={"launch": 2.0}
        )


def test_failures_that_are_all_alike_end_the_search(tmp_path: Path) -> None:
    """A driver that is too old fails every configuration: a night must not be spent on it."""
    study = loop(tmp_path, 30)
    study.evaluator = Broken(tmp_path)
    assert study.run().startswith("6 configurations all ended alike, none ran: crash: driver; mend that")
    assert len(study.log.trials()) == 6
    again = loop(tmp_path, 30)  # the machine is mended: what failed before does not end it
    assert again.ended(again.log.trials(), again.log.history()) is None


def test_one_that_runs_or_ends_otherwise_lets_the_search_go_on() -> None:
    bad = [TrialResult({"max_num_seqs": n}, "full", None, failure="crash", detail="driver") for n in range(6)]
    assert hopeless(bad) is not None
    assert hopeless([*bad[:5], bad[0]]) is None, "five configurations, one of them twice"
    assert hopeless([*bad, TrialResult({}, "full", 1.0)]) is None
    assert hopeless([*bad, replace(bad[0], detail="disk")]) is None
    assert hopeless([replace(one, failure="does_not_fit") for one in bad]) is None, "nothing was launched"


def test_a_proposal_that_is_not_looked_at_says_why(tmp_path: Path) -> None:
    """Repeats and what a rule drops stay in Optuna's study, with the reason, and count as no trial."""
    dropping = Space(SPACE.axes, (GridRule(drop={"quantization": "fp8"}, because="no kernel for it"),))
    made = loop(tmp_path, 12, sampler="random", space=dropping)
    made.run()
    trials = made.study.optuna.get_trials()
    reasons = [t.user_attrs["discarded"] for t in trials if "discarded" in t.user_attrs]
    assert set(reasons) == {"seen before", "no kernel for it"}
    assert all(t.user_attrs["trial"] is None for t in trials if "discarded" in t.user_attrs)
