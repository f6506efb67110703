"""An evaluation inside a run: on real launches of the simulated engine, shared, repeated, found by the gate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.accuracy.settings import Accuracy
from bench.evaluation import store
from bench.evaluation.run import owed
from bench.gate.scorecards import floors, scorecards
from bench.measure import measure
from bench.plan import evaluations, planning
from bench.scenario import scenariofile
from servetune.cli import report
from servetune.report.progress import LineWatch
from serving.errors import ScenarioError
from tests.support.accuracy_campaign import campaign, scenario


def test_a_campaign_evaluates_each_output_once_and_the_baseline_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, run = campaign(tmp_path, scenario(tmp_path))
    keys = [launch.config.key for launch in plan.launches]
    base, shared, other, other_shared = (store.evaluations(run, key) for key in keys)
    assert plan.baseline == keys[0]
    assert [set(e.tasks) for e in base] == [{"facts", "text", "repeats"}, {"facts", "text"}]
    assert [e.folder for e in shared] == [base[0].folder]
    assert other[0].folder == other_shared[0].folder != base[0].folder
    assert all(e.simulated and not e.failure and e.concurrency == 3 for e in (*base, *other))
    assert not [one for launch in plan.launches for one in owed(plan, run, launch)]
    assert "scored" in (tmp_path / "said").read_text()
    cards = scorecards(run, plan.scenario)
    verdicts = {card.config.key: card.floor.verdict if card.floor else None for card in cards}
    assert verdicts == {keys[0]: None, keys[1]: "PASS", keys[2]: "INCONCLUSIVE", keys[3]: "INCONCLUSIVE"}
    assert report.show_folder(run, "-") == 0
    data = json.loads(capsys.readouterr().out)
    assert [card["config"] for card in data["accuracy"]] == keys
    assert set(data["accuracy"][2]["parts"]) == {"Cost", "Latency", "Accuracy", "Security", "Stability"}
    assert (run.path / "accuracy" / f"{keys[2]}.html").exists()
    assert f'href="accuracy/{keys[2]}.html"' in (run.path / "report.html").read_text()
    summary = (run.path / "summary.csv").read_text()
    assert "score_facts" in summary.splitlines()[0]
    assert "INCONCLUSIVE" in summary


def test_an_interrupted_campaign_scores_only_what_is_owed(tmp_path: Path) -> None:
    file = scenario(tmp_path)
    plan, run = campaign(tmp_path, file)
    lines = (run.path / "events.jsonl").read_text().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if '"evaluation"' in line)
    (run.path / "events.jsonl").write_text("".join(lines[:last]))
    launch = plan.launches[-1]
    assert [one.config for one in owed(plan, run, launch)] == [launch.config.key]
    with (tmp_path / "said").open("w") as said:
        measure(plan, run, LineWatch(plan, run.done(), said))
    again = (tmp_path / "said").read_text()
    assert "scored" in again
    assert "point" not in again.split("finished")[0]
    assert not owed(plan, run, launch)


def test_a_server_that_dies_while_it_is_scored_is_a_classified_failure(tmp_path: Path) -> None:
    """It lives through 6 requests of the load and dies under the questions."""
    plan, run = campaign(tmp_path, scenario(tmp_path, fault="crash_after:9"))
    found = store.evaluations(run, plan.launches[0].config.key)[0]
    assert found.failure is not None
    assert found.failure.kind == "crash"
    assert all(r.failure is None for r in run.runs()), "its points were measured before"
    cards = scorecards(run, plan.scenario)
    assert {f.verdict for f in floors(cards).values()} <= {"FAIL", "INCONCLUSIVE", "PASS"}
    assert store.held(run) >= {(launch.config.key, 0) for launch in plan.launches}


def test_a_server_that_does_not_start_is_no_pass(tmp_path: Path) -> None:
    plan, run = campaign(tmp_path, scenario(tmp_path, fault="oom_at_launch"))
    assert store.missing(run, plan.launches[0].config.key or "") is not None
    found = floors(scorecards(run, plan.scenario))
    assert {f.verdict for f in found.values()} == {"INCONCLUSIVE"}
    assert all("oom_at_launch" in f.reasons[0] for f in found.values())


def test_the_baseline_is_served_first_and_its_second_look_is_after_a_restart(tmp_path: Path) -> None:
    text = "{tasks: [facts], items: 4, baseline: {quantization: int8}}"
    file = scenario(tmp_path, text, repeats="{count: 2, restart: true}")
    plan = planning.plan(scenariofile.load(file))
    assert plan.launches[0].config.quantization == "int8"
    assert plan.baseline == plan.launches[0].config.key
    of_base = [(one.launch, one.repeat) for one in plan.evaluations if one.config == plan.baseline]
    names = [launch.name for launch in plan.launches if launch.config.key == plan.baseline]
    assert of_base == [(names[0], 0), (names[1], 1)]
    assert len({(one.config, one.repeat) for one in plan.evaluations}) == len(plan.evaluations) == 5
    assert sum(bool(one.items) for one in plan.evaluations) == 3, "two outputs and one A/A"


def test_the_plan_counts_the_time_and_says_what_cannot_be_asked(tmp_path: Path) -> None:
    file = scenario(tmp_path, "{tasks: [facts], items: 400}")
    data = planning.as_json(planning.plan(scenariofile.load(file)))
    without = file.read_text().replace("accuracy: {tasks: [facts], items: 400}\n", "")
    file.write_text(without)
    plain = planning.as_json(planning.plan(scenariofile.load(file)))
    assert data["accuracy"]["estimated_s"] > 0
    assert data["estimated_s"] == pytest.approx(plain["estimated_s"] + data["accuracy"]["estimated_s"])
    assert "accuracy" not in plain


@pytest.mark.parametrize(
    ("accuracy", "key", "said"),
    [
        ("{tasks: [facst]}", "accuracy.tasks[0]", "did you mean 'facts'"),
        ("{tasks: [facts, ./none.jsonl]}", "accuracy.tasks[1]", "none.jsonl"),
        ("{tasks: [facts], items: {fact: 3}}", "accuracy.items.fact", "did you mean 'facts'"),
        (
            "{tasks: [facts], baseline: {quantisation: none}}",
            "accuracy.baseline.quantisation",
            "quantization",
        ),
        ("{tasks: [facts], baseline: {quantization: fp8}}", "accuracy.baseline", "no configuration"),
    ],
)
def test_what_cannot_be_planned_is_said_with_its_line(
    tmp_path: Path, accuracy: str, key: str, said: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        planning.plan(scenariofile.load(scenario(tmp_path, accuracy)))
    assert caught.value.key == key
    assert caught.value.line == 15
    assert said in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(("text", "key"), [("{flor: 1}", "accuracy.flor"), ("{floor: 2}", "accuracy.floor")])
def test_what_cannot_be_read_is_said_with_its_line(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenariofile.load(scenario(tmp_path, text))
    assert (caught.value.key, caught.value.line) == (key, 15)


def test_an_engine_that_cannot_give_what_a_task_needs_is_refused_before_it_starts(tmp_path: Path) -> None:
    loaded = scenariofile.load(scenario(tmp_path, "{tasks: [facts, answers]}"))
    launches = planning.plan(loaded).launches
    serve = launches[0].config.model_copy(update={"engine": "transformers"})
    one = replace(launches[0], config=serve)
    from bench.plan.target import target_of

    target = target_of("cpu", loaded.model)
    asked, refused = evaluations.evaluations(loaded, [one], serve, target)
    assert {name for e in asked for name in e.tasks} == {"answers"}
    assert [(n.engine, n.task) for n in refused] == [("transformers", "facts")]
    only = scenariofile.load(scenario(tmp_path, "{tasks: [facts]}"))
    with pytest.raises(ScenarioError, match="nothing that an engine here can answer") as caught:
        evaluations.evaluations(only, [one], serve, target)
    assert caught.value.line == 15


def test_screening_takes_a_share_of_the_trial_and_never_more_than_a_minute() -> None:
    screen = Accuracy(split="screen")
    assert screen.budget_s(100) == pytest.approx(15)
    assert screen.budget_s(10_000) == 60
    assert Accuracy(split="screen", within_s="5s").budget_s(100) == 5
    assert Accuracy().budget_s(100) is None
