"""What `accuracy:` of a scenario comes to, by hand: who is asked what, how many items, for how long."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.accuracy.lmeval import LmEvalTask
from bench.accuracy.settings import Accuracy
from bench.accuracy.task import Ask, Item, Pass
from bench.plan import evaluations
from bench.plan.estimate import POINT_S, point_s, ready_s
from bench.plan.evaluations import _cost, _harness, _size, concurrency_of, second
from bench.plan.target import Target
from bench.point import Load, Point
from serving.config import ServingConfig
from serving.errors import ScenarioError

NOWHERE = Target("cpu", None, None)
"""Nothing is known of it: a token takes a twentieth of a second."""
BASE = ServingConfig(engine="sim", model="m", max_num_seqs=8)
OTHER = ServingConfig(engine="sim", model="m", max_num_seqs=8, quantization="int8")


QUESTION = Ask("generate", "x" * 400, options={"max_tokens": 8})


@dataclass
class Plain:
    """A task of `count` items: a question of 400 characters, 8 tokens to answer it."""

    name: str = "plain"
    measures: str = "accuracy"
    count: int = 10
    needs: frozenset[Any] = frozenset()
    chance: float = 0.0
    passes: tuple[Pass, ...] = (Pass(),)
    ask: Ask = QUESTION

    def items(self) -> list[Item]:
        return [Item(str(n), {}) for n in range(self.count)]

    def asks(self, item: Item) -> tuple[Ask, ...]:
        return (self.ask,)


@dataclass
class Launch:
    name: str
    config: ServingConfig
    points: tuple[Point, ...] = ()


def point(config: ServingConfig, users: int | None) -> Point:
    load = {"concurrency": users} if users else {"arrivals": "poisson", "rate_per_s": 1.0}
    return Point(config, Load("w", 10, 2, requests=4, **load))  # type: ignore[arg-type]


def seconds(count: int, size: tuple[int, int], users: int) -> float:
    """A point of so many requests on a device that nothing is known of, without what surrounds it."""
    return point_s(Point(BASE, Load("accuracy", *size, concurrency=users, requests=count)), NOWHERE) - POINT_S


# --- sizes and costs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "size"),
    [
        (Ask("generate", "x" * 400, options={"max_tokens": 8}), (100, 8)),
        (Ask("rank", "x" * 400, choices=("y" * 40, "z" * 20, "w" * 20)), (320, 1)),
        (Ask("chat", messages=({"role": "user", "content": "x" * 80}, {"role": "system", "content": "x" * 40})), (30, 1)),
        (Ask("score", ""), (1, 1)),
    ],
)  # fmt: skip
def test_the_size_of_an_item_is_its_text_once_a_choice_and_its_limit(ask: Ask, size: tuple[int, int]) -> None:
    """Four characters a token: 3 x 400 + 80 of the choices are 320."""
    task = Plain(ask=ask)
    assert _size(task, task.items()) == size  # type: ignore[arg-type]


def test_forty_items_stand_for_all() -> None:
    class Growing(Plain):
        def asks(self, item: Item) -> tuple[Ask, ...]:
            return (Ask("generate", "x" * (400 if int(item.id) < 40 else 40_000)),)

    task = Growing(count=60)
    assert _size(task, task.items()) == (100, 1)  # type: ignore[arg-type]
    assert _size(task, []) == (1, 1)  # type: ignore[arg-type]


def test_a_cost_is_the_sum_of_tasks_and_passes() -> None:
    twice = Plain("twice", passes=(Pass(), Pass("alone", alone=True)), count=6)
    items, took = _cost([Plain(), twice], Accuracy(), BASE, 4, NOWHERE)  # type: ignore[list-item]
    assert items == 16
    size = (100, 8)
    assert took == pytest.approx(seconds(10, size, 4) + seconds(6, size, 4) + seconds(6, size, 1))
    limited, _ = _cost([Plain()], Accuracy(items=3), BASE, 4, NOWHERE)  # type: ignore[list-item]
    assert limited == 3
    assert _cost([Plain(count=0)], Accuracy(), BASE, 4, NOWHERE) == (0, 0.0)  # type: ignore[list-item]


def test_a_task_of_the_harness_is_guessed_from_its_items_or_a_thousand() -> None:
    """Twenty seconds to start, and 128 tokens in and 16 out an item."""
    task = LmEvalTask("lm-eval:arc")
    assert _cost([task], Accuracy(), BASE, 4, NOWHERE) == (
        1000,
        pytest.approx(20 + seconds(1000, (128, 16), 4)),
    )
    assert _cost([task, Plain()], Accuracy(items=30), BASE, 4, NOWHERE) == (  # type: ignore[list-item]
        40, pytest.approx(20 + seconds(30, (128, 16), 4) + seconds(10, (100, 8), 4)),
    )  # fmt: skip


def test_as_many_are_asked_at_a_time_as_the_load_has_users() -> None:
    loads = [point(BASE, 3), point(BASE, 7), point(BASE, None)]
    assert concurrency_of(loads, Accuracy()) == 7
    assert concurrency_of(loads[2:], Accuracy()) == 8
    assert concurrency_of(loads, Accuracy(concurrency=2)) == 2


def test_the_baseline_is_asked_twice_what_tells_of_its_noise() -> None:
    tasks = [
        Plain(name, measures)
        for name, measures in zip("abcd", ("accuracy", "tripwire", "stability", "security"), strict=True)
    ]
    assert [task.name for task in second(tasks)] == ["a", "b"]  # type: ignore[arg-type]


# --- who is asked ---------------------------------------------------------------------------------


def planned(
    launches: list[Launch],
    monkeypatch: pytest.MonkeyPatch,
    refused: dict[str, str] | None = None,
    **settings: Any,
) -> Any:
    monkeypatch.setattr(evaluations, "tasks_of", lambda _: [Plain(), Plain("stable", "stability", 4)])
    monkeypatch.setattr(evaluations, "refusal", lambda engine, task: (refused or {}).get(task.name))
    scenario: Any = SimpleNamespace(accuracy=Accuracy(**settings))
    return evaluations.evaluations(scenario, launches, BASE, NOWHERE)  # type: ignore[arg-type]


def test_each_configuration_is_asked_once_and_the_baseline_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    launches = [Launch("1", BASE), Launch("2", OTHER), Launch("3", OTHER)]
    made, lacks = planned(launches, monkeypatch)
    assert [(one.launch, one.repeat, one.tasks, one.items) for one in made] == [
        ("1", 0, ("plain", "stable"), 14), ("1", 1, ("plain",), 10), ("2", 0, ("plain", "stable"), 14),
    ]  # fmt: skip
    assert lacks == []
    size = (100, 8)
    assert made[0].estimated_s == pytest.approx(seconds(10, size, 8) + seconds(4, size, 8))
    assert planned(launches, monkeypatch, aa=False)[0][1].launch == "2"


def test_a_restarted_baseline_is_asked_again_on_its_second_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    launches = [Launch("1", BASE), Launch("2", OTHER), Launch("3", BASE), Launch("4", BASE)]
    made, _ = planned(launches, monkeypatch)
    assert [(one.launch, one.repeat) for one in made] == [("1", 0), ("2", 0), ("3", 1)]


def test_configurations_that_must_answer_alike_cost_once(monkeypatch: pytest.MonkeyPatch) -> None:
    alike = ServingConfig(engine="sim", model="m", max_num_seqs=4)
    made, _ = planned([Launch("1", BASE), Launch("2", alike)], monkeypatch, aa=False)
    assert [(one.launch, one.items, one.estimated_s > 0) for one in made] == [
        ("1", 14, True),
        ("2", 0, False),
    ]


def test_no_more_time_is_planned_than_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate of a screening may add 15% of its launch and load, the baseline takes what it takes."""
    launches = [Launch("1", BASE, (point(BASE, 2),)), Launch("2", OTHER, (point(OTHER, 2),))]
    made, _ = planned(launches, monkeypatch, split="screen", aa=False)
    trial_s = ready_s(OTHER, NOWHERE) + point_s(point(OTHER, 2), NOWHERE)
    assert made[1].estimated_s == pytest.approx(0.15 * trial_s)
    assert made[0].estimated_s > 0.15 * trial_s
    timed, _ = planned(launches, monkeypatch, within_s=0.5, aa=False)
    assert [one.estimated_s for one in timed] == [0.5, 0.5]


def test_what_an_engine_cannot_give_is_not_asked_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    launches = [Launch("1", BASE), Launch("2", OTHER)]
    made, lacks = planned(launches, monkeypatch, {"stable": "no seeds"}, aa=False)
    assert [one.tasks for one in made] == [("plain",), ("plain",)]
    assert [(one.engine, one.task, one.why) for one in lacks] == [("sim", "stable", "no seeds")]


# --- the harness ----------------------------------------------------------------------------------

TEXT = "accuracy:\n  tasks: [lm-eval:x]\n"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, None),
        ({"within_s": 60}, "within_s"),
        ({"split": "screen"}, "split: screen"),
        ({"split": "certify"}, None),
    ],
)
def test_a_harness_task_keeps_no_time_limit_and_no_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], said: str | None
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(TEXT)
    scenario: Any = SimpleNamespace(file=file)
    monkeypatch.setattr("bench.plan.evaluations.environment", lambda: SimpleNamespace(installed=True))
    if said is None:
        assert _harness(scenario, 0, Accuracy(**settings)) is None
    else:
        with pytest.raises(ScenarioError, match=f"together with {said},"):
            _harness(scenario, 0, Accuracy(**settings))
    for where in (None, SimpleNamespace(installed=False)):
        monkeypatch.setattr("bench.plan.evaluations.environment", lambda where=where: where)
        with pytest.raises(ScenarioError, match="not installed"):
            _harness(scenario, 0, Accuracy(**settings))
