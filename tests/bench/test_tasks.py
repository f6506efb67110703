"""Conformance of every row of TASKS, and of the data they ship with."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import pytest

from bench.accuracy.client import body
from bench.accuracy.task import DATA, Ask, Need, Reply, Score, Task, drawn, prompt_hash
from bench.accuracy.tasks import SUITES, TASKS, tasks
from serving.errors import UserError

KIND_NEEDS = {
    "rank": Need.PROMPT_LOGPROBS, "score": Need.PROMPT_LOGPROBS, "generate": Need.COMPLETIONS, "chat": Need.CHAT,
}  # fmt: skip


@pytest.fixture(params=sorted(TASKS))
def task(request: pytest.FixtureRequest) -> Task:
    return tasks([request.param])[0]


def answer(ask: Ask, text: str = "Oslo", likely: int = 0) -> Reply:
    """Something a server could say to `ask`."""
    if ask.kind == "rank":
        logliks = tuple(-1.0 if i == likely else -5.0 for i in range(len(ask.choices)))
        return Reply(9, logliks=logliks, sizes=(1,) * len(ask.choices))
    if ask.kind == "score":
        return Reply(
            3, tokens=("a", " b", " c"), logprobs=(None, -1.0, -2.0), tops=(None, {" b": -1.0}, {" c": -2.0})
        )
    return Reply(9, 3, text, "stop")


def scored(task: Task, item: object, text: str = "Oslo", likely: int = 0) -> Score:
    asks = task.asks(item)  # type: ignore[arg-type]
    given = {part.name: [answer(ask, text, likely) for ask in asks] for part in task.passes}
    return task.score(item, given)  # type: ignore[arg-type]


def test_row_is_what_it_says(task: Task) -> None:
    assert task.name in TASKS
    assert task.measures in ("accuracy", "stability", "security", "tripwire")
    assert 0 <= task.chance < 1
    assert task.needs
    assert len({part.name for part in task.passes}) == len(task.passes) >= 1


def test_items_are_many_distinct_and_always_the_same(task: Task) -> None:
    items = task.items()
    assert len(items) >= 24
    assert len({item.id for item in items}) == len(items)
    assert [i.id for i in items] == [i.id for i in tasks([task.name])[0].items()]


def test_asks_are_repeatable_and_within_the_declared_needs(task: Task) -> None:
    for item in task.items()[:20]:
        asks = task.asks(item)
        assert asks
        assert prompt_hash(asks) == prompt_hash(task.asks(item))
        assert {KIND_NEEDS[ask.kind] for ask in asks} <= task.needs
        for ask in asks:
            json.dumps(body(ask))
            assert body(ask).get("model") is None


def test_different_items_ask_different_things(task: Task) -> None:
    hashes = Counter(prompt_hash(task.asks(item)) for item in task.items())
    assert max(hashes.values()) == 1


def test_scores_are_shares_that_depend_on_the_answer(task: Task) -> None:
    values = set()
    for item in task.items()[:60]:
        one = [
            scored(task, item, text, likely)
            for text in ("I cannot help with that.", '{"a": 1}', "a b c d e f")
            for likely in (0, 1, 2)
        ]
        gold = item.data.get("answers", item.data.get("canary"))
        one.append(scored(task, item, gold[0] if isinstance(gold, list) else str(gold)))
        valid = '{"name": "a", "topic": "b", "count": 1, "confirmed": false}'
        one.append(scored(task, item, valid))
        assert all(0 <= score.value <= 1 and score.choice == score.choice for score in one)
        values |= {score.value for score in one}
    single = task.name in ("text", "repeats", "wordings", "perturbed", "temperature")
    assert len(values) >= (1 if single else 2), "no answer makes a difference"


def test_a_third_is_for_screening_and_the_rest_is_held_out(task: Task) -> None:
    items = task.items()
    screen, certify = drawn(items, "screen", None), drawn(items, "certify", None)
    assert not {i.id for i in screen} & {i.id for i in certify}
    assert len(screen) + len(certify) == len(items)
    if len(items) > 200:
        assert 0.25 < len(screen) / len(items) < 0.42


def test_fewer_items_are_the_first_of_more(task: Task) -> None:
    items = task.items()
    assert [i.id for i in drawn(items, "all", 10)] == [i.id for i in drawn(items, "all", 20)][:10]


def test_right_choices_score_and_wrong_ones_do_not() -> None:
    facts = tasks(["facts"])[0]
    for item in facts.items()[:50]:
        assert scored(facts, item, likely=item.data["gold"]).value == 1
        assert scored(facts, item, likely=(item.data["gold"] + 1) % 4).value == 0


def test_the_suite_has_a_thousand_labelled_items_and_sound_choices() -> None:
    items = tasks(["facts"])[0].items()
    assert len(items) >= 1000
    places = Counter(item.data["gold"] for item in items)
    assert max(places.values()) < 1.2 * min(places.values()), "the right choice stands too often at one place"
    for item in items:
        choices = item.data["choices"]
        assert len(set(choices)) == 4
        assert all(choice.startswith(" ") and choice.strip() for choice in choices)
        assert not item.data["prompt"].endswith(" ")
        assert choices[item.data["gold"]].strip().lower() not in item.data["prompt"].lower().split(), item.id


def test_facts_are_made_of_the_smaller_tasks() -> None:
    parts = tasks(["places", "currencies", "languages", "elements"])
    assert sum(len(part.items()) for part in parts) == len(tasks(["facts"])[0].items())


def test_no_canary_is_named_by_the_attack_itself() -> None:
    for item in tasks(["canaries"])[0].items():
        assert item.data["canary"] in item.data["system"]
        assert item.data["canary"].lower() not in item.data["user"].lower()


def test_every_shipped_file_is_the_one_its_provenance_describes() -> None:
    said = json.loads((DATA / "PROVENANCE.json").read_text())["files"]
    assert set(said) == {path.name for path in DATA.glob("*.jsonl")}
    for name, about in said.items():
        data = (DATA / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == about["sha256"], name
        assert data.count(b"\n") == about["items"]


def test_suites_name_tasks() -> None:
    assert {name for suite in SUITES.values() for name in suite} <= set(TASKS)
    names = [task.name for task in tasks(["full", "facts"])]
    assert len(names) == len(set(names)) >= 10


def test_an_unknown_task_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown task 'fact'") as caught:
        tasks(["fact"])
    assert "facts" in caught.value.hint


def test_a_class_of_ones_own_can_be_named() -> None:
    assert tasks(["bench.accuracy.fact_tasks:Elements"])[0].name == "elements"
    with pytest.raises(UserError, match="module:Class"):
        try:
            tasks(["no.such.module:Thing"])
        except UserError as error:
            raise UserError(f"{error.message} {error.hint}") from error
