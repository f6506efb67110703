"""A winner is tried on other loads: a cliff loses to a plateau, and what was tried is not tried again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.plan.expand import loads_of
from bench.point import Load
from bench.scenario import scenariofile
from search.finals import stress
from search.finals.answer import SearchResult
from search.finals.robust import settle
from search.finals.rounds import conclude
from search.loop import Loop
from search.result import Settings, TrialResult, key_of
from serving.config import ServingConfig
from tests.support.search_fixture import Known, finals, loop

SLO = "ttft:p50<=200ms"


@dataclass
class Tried(Known):
    """The known optimum; `cliffs`: settings of the fastest that break the promise, or die, at 20% more load."""

    cliffs: dict[str, str] = field(default_factory=dict)
    noise: int = 0

    def measure(self, settings: Settings, fidelity: str) -> TrialResult:  # type: ignore[override]
        found = super().measure(settings, fidelity)  # type: ignore[arg-type]
        self.noise += 1
        if fidelity != "confirm" or found.value is None:
            return found
        return TrialResult(**{**vars(found), "value": found.value * (1 + 0.001 * (self.noise % 3))})

    def stress(self, settings: Settings, like: TrialResult) -> dict[str, TrialResult]:
        calm = super().measure(settings, "stress")
        how = self.cliffs.get(str(settings.get("quantization", "none")))
        broken = {
            None: calm,
            "promise": TrialResult(settings, "stress", calm.value, violations={SLO: 0.3}),
            "crash": TrialResult(settings, "stress", None, failure="crash", detail="gone"),
            "unsettled": TrialResult(**{**vars(calm), "detail": "not settled: soak memory"}),
            "slow": TrialResult(settings, "stress", 60.0, violations=calm.violations),
        }
        return {"20% more load": broken[how], "other prompts": calm}


def answered(folder: Path, **cliffs: str) -> tuple[Loop, SearchResult, list[str]]:
    said: list[str] = []
    made = loop(folder, 16, say=said.append, sampler="random", seed=3)
    made.evaluator = Tried(folder, cliffs=cliffs)
    made.run()
    return made, settle(finals(made), conclude(finals(made))), said


def test_a_plateau_wins_and_says_what_it_stood(tmp_path: Path) -> None:
    _, answer, _ = answered(tmp_path)
    assert answer.winner is not None
    assert answer.winner.settings.get("quantization") == "fp8"
    checks = answer.robust[key_of(answer.winner.settings)]
    assert [(c.condition, c.verdict) for c in checks] == [
        ("20% more load", "PASS"),
        ("other prompts", "PASS"),
    ]
    assert all(c.gain and c.gain[1] < c.gain[0] < c.gain[2] for c in checks)


@pytest.mark.parametrize(
    ("how", "why"), [("promise", SLO), ("crash", "gone"), ("slow", "worse than the default")]
)
def test_a_cliff_loses_to_the_next_best(tmp_path: Path, how: str, why: str) -> None:
    _, answer, said = answered(tmp_path, fp8=how)
    assert answer.winner is not None
    assert answer.winner.settings.get("quantization") != "fp8"
    lost = [c for checks in answer.robust.values() for c in checks if c.verdict == "FAIL"]
    assert lost
    assert why in lost[0].why
    assert [line for line in said if line.startswith("a cliff")]


def test_what_was_missed_is_over_those_that_stand(tmp_path: Path) -> None:
    _, answer, _ = answered(tmp_path, fp8="promise")
    fallen = {key for key, found in answer.robust.items() if any(c.verdict == "FAIL" for c in found)}
    standing = [s for s in answer.standings[1:] if s.feasible and key_of(s.settings) not in fallen]
    assert fallen
    assert answer.winner is not None
    assert [s for s in standing if s is not answer.winner] == []
    assert answer.missed is None, "nobody stands beside it, and the one that fell does not count"


def test_what_is_not_settled_is_no_pass(tmp_path: Path) -> None:
    _, answer, _ = answered(tmp_path, fp8="unsettled")
    assert answer.winner is not None
    first = answer.robust[key_of(answer.winner.settings)][0]
    assert (first.verdict, first.why) == ("INCONCLUSIVE", "not settled: soak memory")


def test_when_the_default_breaks_the_same_promise_nobody_is_a_cliff(tmp_path: Path) -> None:
    _, answer, _ = answered(tmp_path, fp8="promise", none="promise")
    assert answer.winner is not None
    assert answer.winner.settings.get("quantization") == "fp8"
    checks = answer.robust[key_of(answer.winner.settings)]
    assert "as the default does" in checks[0].why
    assert checks[0].verdict == "INCONCLUSIVE"


def test_what_was_tried_before_a_kill_is_not_tried_again(tmp_path: Path) -> None:
    made, answer, _ = answered(tmp_path, fp8="promise")
    looks = (tmp_path / "looked.txt").read_text()
    assert settle(finals(made), conclude(finals(made))) == answer
    assert (tmp_path / "looked.txt").read_text() == looks


def test_stress_never_counts_as_a_confirmation(tmp_path: Path) -> None:
    made, answer, _ = answered(tmp_path)
    assert all(len(s.outcomes) <= 6 for s in answer.standings)
    assert {o.fidelity for s in answer.standings for o in s.outcomes} == {"confirm"}
    assert any(o.fidelity == "stress" for o in made.log.history())


CONFIG = ServingConfig(engine="sim", model="m", max_model_len=110)
LOAD = Load("chat", 64, 16, concurrency=2, requests=10)
TEXT = """\
schema: 1
name: demo
question: q
model: {name: m, path: p}
engines: [{engine: sim}]
workloads: [{name: chat, input_tokens: 64, output_tokens: 16, concurrency: 2, requests: 10}]
search:
  soak_s: 1h
  holdout: [{name: night, input_tokens: 8, output_tokens: 8, rate_per_s: 2, requests: 5}]
"""


def test_conditions_move_load_and_lengths_and_bring_what_no_trial_has_seen(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(TEXT)
    scenario = scenariofile.load(tmp_path / "s.yaml")
    loads = [load for work in scenario.workloads for load in loads_of(work)]
    found = stress.points(scenario, CONFIG, loads, 110)
    assert {name: points[0].load.concurrency for name, points in found.items()} == {
        "20% less load": 1, "20% more load": 3, "20% shorter requests": 2, "20% longer requests": 2,
        "other prompts": 2, "held out: night": None, "soak": 2,
    }  # fmt: skip
    assert found["20% longer requests"][0].load.input_tokens == 77
    assert found["other prompts"][0].seed != scenario.seed
    assert (found["soak"][0].load.duration_s, found["soak"][0].load.requests) == (3600, None)
    assert len({p.key for points in found.values() for p in points}) == 7, "no two are the same experiment"


def test_a_condition_that_does_not_fit_or_changes_nothing_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(TEXT)
    scenario = scenariofile.load(tmp_path / "s.yaml")
    assert "20% longer requests" not in stress.points(scenario, CONFIG, [LOAD], 90)
    one = Load("chat", 64, 16, concurrency=1, requests=10)
    assert "20% less load" not in stress.points(scenario, CONFIG, [one], None)
    trace = Load("t", 64, 16, arrivals="trace", trace="a.csv")
    assert [n for n in stress.points(scenario, CONFIG, [trace], None) if n.startswith("20%")] == []
