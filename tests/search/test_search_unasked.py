"""Engines and tasks that cannot be asked: known before anything starts, or one trial's failure; never the search's end."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from bench.accuracy.evaluate import leaf
from bench.accuracy.fact_tasks import Facts
from bench.accuracy.task import Ask, Item, Reply, Score
from bench.evaluation import store
from bench.gate.scorecards import scorecards
from search.resume import StudyLog
from servetune.cli.main import main
from tests.support.accuracy_campaign import campaign
from tests.support.accuracy_campaign import scenario as campaign_file

SCENARIO = """
schema: 1
name: two
question: Does a search with an engine that cannot be asked go on?
device: cpu
model: {name: smollm2-135m, path: smollm2-135m, shape: smollm2-135m, tokenizer: none}
engines:
ENGINES
workloads:
  - {name: chat, input_tokens: 32, output_tokens: 4, concurrency: 4, requests: 40, warmup_requests: 0}
search: {goal: maximize output_token_throughput_per_s, trials: 2, finalists: 1, robust: false, sampler: random}
slos: ["ttft:p50<=5s"]
accuracy: {floor: 0.9, tasks: TASKS, items: 6}
seed: 3
"""
SIM = """  - engine: sim
    settings: {max_model_len: 1024, sim: {gpu: h200, shape: smollm2-135m, seed: 1, time_scale: 0.05}}
    space: {max_num_seqs: [4, 8]}
"""
DEAF = """  - engine: transformers
    space: {quantization: [none, bnb-8bit]}
"""


def scenario(tmp_path: Path, engines: str, tasks: str = "[facts]") -> Path:
    file = tmp_path / "two.yaml"
    file.write_text(SCENARIO.replace("ENGINES\n", engines).replace("TASKS", tasks))
    return file


@pytest.mark.parametrize("tasks", ["[facts]", "[facts, answers]"])
def test_an_engine_that_cannot_be_asked_is_not_launched_and_the_search_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tasks: str
) -> None:
    out = tmp_path / "study"
    assert main(["search", str(scenario(tmp_path, SIM + DEAF, tasks)), "--out", str(out)]) in (
        0,
        1,
        3,
    )
    told = capsys.readouterr().err
    assert "transformers cannot be asked what the accuracy is judged by" in told
    assert "none of its configurations is launched" in told
    history = StudyLog(out).history()
    looks = {o.config["engine"]: o for o in history}
    assert looks["transformers"].failure == "refused"
    assert "422" in looks["transformers"].detail
    assert len([o for o in history if o.config["engine"] == "sim" and o.launched]) > 1, "it went on"
    assert json.loads((out / "study.json").read_text())["failures"]["refused"] >= 1


@pytest.mark.parametrize("tasks", ["[facts]", "[answers, text]"])
def test_a_baseline_that_cannot_be_asked_is_an_error_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tasks: str
) -> None:
    out = tmp_path / "study"
    assert main(["search", str(scenario(tmp_path, DEAF + SIM, tasks)), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert "the baseline transformers cannot be asked" in told
    assert "put sim first" in told
    assert not out.exists()


class Broken(Facts):
    """A task of somebody's own whose scorer raises, or whose items cannot be read."""

    name = "broken"

    def score(self, item: Item, answers: Mapping[str, Sequence[Reply]]) -> Score:
        raise KeyError("label")


class Unreadable(Broken):
    def items(self) -> Sequence[Item]:
        raise FileNotFoundError(errno.ENOENT, "No such file", "mine.jsonl")


class Sometimes(Broken):
    """Its requests cannot be made for some of its items."""

    name = "sometimes"

    def asks(self, item: Item) -> tuple[Ask, ...]:
        if item.id == next(one.id for one in self.items()):
            return super().asks(item)
        raise ValueError("no such template")


def test_a_task_that_raises_costs_its_own_claim(tmp_path: Path) -> None:
    plan, run = campaign(
        tmp_path, campaign_file(tmp_path, f"{{tasks: [facts, '{__name__}:Broken'], items: 6}}")
    )
    for launch in plan.launches:
        (found, *_) = store.evaluations(run, launch.config.key)
        assert found.tasks["facts"].scored
        assert "KeyError: 'label'" in found.refused["broken"]
        assert any("test_search_unasked.py" in note for note in found.notes), "and where"
    cards = scorecards(run, plan.scenario)
    other = [c for c in cards if c.floor and c.config.quantization != plan.launches[0].config.quantization]
    assert {card.floor.verdict for card in other if card.floor} == {"INCONCLUSIVE"}


def test_a_baseline_that_a_task_cannot_score_ends_a_search_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, tasks = tmp_path / "study", f"[facts, '{__name__}:Broken']"
    assert main(["search", str(scenario(tmp_path, SIM, tasks)), "--out", str(out)]) == 3
    told = " ".join(capsys.readouterr().err.split())
    assert "the accuracy of the default cannot be told" in told
    assert "KeyError: 'label'" in told
    assert main(["search", str(tmp_path / "two.yaml"), "--out", str(out), "--resume"]) == 3


@pytest.mark.parametrize("verb", ["search", "bench"])
@pytest.mark.parametrize(("task", "said"), [("Unreadable", "mine.jsonl"), ("Sometimes", "no such template")])
def test_a_task_that_cannot_be_asked_is_an_error_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, task: str, said: str
) -> None:
    file, out = scenario(tmp_path, SIM, f"['{__name__}:{task}']"), tmp_path / "study"
    assert main([verb, str(file), "--out", str(out)]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_an_evaluation_that_breaks_off_is_an_infeasible_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.evaluation import run as launched

    whole, asked = launched.evaluate, []

    def evaluate(*args, **kwargs):  # type: ignore[no-untyped-def]
        asked.append(args)
        if len(asked) > 2:
            raise RuntimeError("its folder holds something else")
        return whole(*args, **kwargs)

    monkeypatch.setattr(launched, "evaluate", evaluate)
    engines = SIM.replace("max_num_seqs: [4, 8]", "quantization: [fp8, int8]")
    out = tmp_path / "study"
    assert main(["search", str(scenario(tmp_path, engines)), "--out", str(out)]) in (0, 1, 3)
    told = " ".join(capsys.readouterr().err.split())
    assert "undetermined: accuracy: evaluation_failed: RuntimeError: its folder holds something else" in told
    broken = [o for o in StudyLog(out).history() if "accuracy" in o.undetermined]
    assert broken
    assert not any(o.feasible for o in broken)


def test_a_full_disk_is_no_tasks_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.evaluation import run as launched

    def evaluate(*args, **kwargs):  # type: ignore[no-untyped-def]
        raise OSError(errno.ENOSPC, "No space left on device", "x")

    monkeypatch.setattr(launched, "evaluate", evaluate)
    with pytest.raises(OSError, match="No space left"):
        campaign(tmp_path, campaign_file(tmp_path, "{tasks: [facts], items: 6}"))


def test_the_first_of_many_is_told() -> None:
    one = KeyError("a")
    assert leaf(ExceptionGroup("several", [ExceptionGroup("more", [one]), ValueError("b")])) is one
