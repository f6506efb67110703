"""One's own questions in one file: read, and refused with the line that is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from bench.accuracy.evaluate import evaluate
from bench.accuracy.settings import Accuracy
from bench.accuracy.task import Need, Reply
from bench.accuracy.tasks import tasks
from serving.errors import UserError
from tests.support.fake_llm import Llm, served


def written(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_multiple_choice(tmp_path: Path) -> None:
    file = written(
        tmp_path / "mine.jsonl",
        {"id": 1, "prompt": "Two and two make", "choices": [" four", " five"], "gold": 0},
    )
    task = tasks(["mine.jsonl"], tmp_path)[0]
    assert file.stem == task.name == "mine"
    assert task.needs == {Need.PROMPT_LOGPROBS}
    assert task.chance == 0.5
    (item,) = task.items()
    assert task.score(item, {"loaded": [Reply(5, logliks=(-1.0, -2.0), sizes=(1, 1))]}).value == 1


def test_generation_and_chat(tmp_path: Path) -> None:
    written(
        tmp_path / "g.jsonl",
        {"id": "a", "prompt": "Q: capital of Peru? A:", "answers": ["Lima"], "max_tokens": 8},
    )
    written(tmp_path / "c.jsonl", {"id": "a", "question": "Capital of Peru?", "answers": ["Lima"]})
    generated, chatted = tasks(["g.jsonl", "c.jsonl"], tmp_path)
    assert generated.needs == {Need.COMPLETIONS}
    assert chatted.needs == {Need.CHAT}
    (item,) = generated.items()
    assert generated.asks(item)[0].options["max_tokens"] == 8
    assert generated.score(item, {"loaded": [Reply(5, 2, "It is LIMA.")]}).value == 1
    assert generated.score(item, {"loaded": [Reply(5, 2, "Limassol")]}).value == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x", "answers": ["y"]}, "not an item"),
        ({"id": 1, "prompt": "x"}, "no answers"),
        ({"id": 1, "prompt": "x", "choices": [" a"], "gold": 0}, "choices must be"),
        ({"id": 1, "prompt": "x", "choices": [" a", " b"], "gold": 2}, "choices must be"),
        ({"id": 1, "prompt": "x", "choices": [" a", 3], "gold": 0}, "choices must be"),
        ([1], "not an item"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, row: object, message: str) -> None:
    written(tmp_path / "bad.jsonl", {"id": 0, "prompt": "x", "answers": ["y"]}, row)
    with pytest.raises(UserError, match=message) as caught:
        tasks(["bad.jsonl"], tmp_path)
    assert "bad.jsonl:2" in caught.value.message


def test_other_faults_of_a_file(tmp_path: Path) -> None:
    item = {"id": 1, "prompt": "x", "answers": ["y"]}
    written(tmp_path / "twice.jsonl", item, item)
    written(tmp_path / "mixed.jsonl", item, {"id": 2, "prompt": "x", "choices": [" a", " b"], "gold": 0})
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "torn.jsonl").write_text('{"id": 1,\n')
    for name, message in [
        ("twice", "same id"),
        ("mixed", "mixed"),
        ("empty", "no items"),
        ("torn", "not JSON"),
        ("gone", "gone.jsonl"),
    ]:
        with pytest.raises(UserError, match=message):
            tasks([f"{name}.jsonl"], tmp_path)


DOCS = Path(__file__).parents[2] / "docs" / "accuracy.md"


def block(kind: str, holding: str) -> str:
    found = re.findall(rf"```{kind}\n(.*?)```", DOCS.read_text(), re.S)
    return next(text for text in found if holding in text)


def test_the_examples_of_the_docs_are_tasks(tmp_path: Path) -> None:
    for number, line in enumerate(block("json", "tax-1").splitlines()):
        (tmp_path / f"e{number}.jsonl").write_text(line + "\n")
        (item,) = tasks([f"e{number}.jsonl"], tmp_path)[0].items()
        assert item.id == json.loads(line)["id"]


def test_the_worked_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ours_units.py").write_text(block("python", "class Units"))
    monkeypatch.syspath_prepend(str(tmp_path))
    llm = Llm(knows=lambda prompt, tokens: " 80 inches" if "door" in prompt else " 75 cm")
    with served(llm) as endpoint:
        made = evaluate(endpoint, tasks(["ours_units:Units"]), Accuracy(), tmp_path / "e", 2)
    assert {i: s.value for i, s in made.tasks["units"].scored.items()} == {
        "a door": 0,
        "a desk": 1,
        "a bicycle": 1,
    }


def test_the_scenario_of_the_docs_is_read() -> None:
    section = yaml.safe_load(block("yaml", "accuracy:"))["accuracy"]
    assert Accuracy.model_validate(section).floor == 0.99
