"""What `accuracy:` of a scenario comes to: which tasks, on which launches, refused where, for how long."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bench.accuracy import cache
from bench.accuracy.lmeval import LmEvalTask, environment
from bench.accuracy.preflight import known_lack
from bench.accuracy.settings import Accuracy
from bench.accuracy.task import Task, drawn
from bench.accuracy.tasks import tasks as tasks_named
from bench.plan.estimate import POINT_S, point_s, ready_s
from bench.plan.target import Target
from bench.point import Load, Point
from bench.scenario import yamlfile
from bench.scenario.model import Scenario
from serving import masking
from serving.config import ServingConfig
from serving.errors import ScenarioError, UserError

OPEN_LOOP = 8
"""Items asked at a time where the load does not say (an open loop)."""
CHARACTERS_PER_TOKEN = 4.0
HARNESS_START_S = 20.0
HARNESS_ITEMS = 1000
"""Assumed of a harness task without a limit: its length is known only to the harness."""
LOOKED_AT = 40
"""Items whose size is taken for all of a task."""


class LaunchToScore(Protocol):
    """What is needed of a `bench.plan.planning.Launch`."""

    @property
    def name(self) -> str: ...
    @property
    def config(self) -> ServingConfig: ...
    @property
    def points(self) -> Sequence[Point]: ...


@dataclass(frozen=True)
class Evaluating:
    """One evaluation of a plan: on this launch, these tasks. `repeat` 1 is the baseline's second, its A/A."""

    launch: str
    config: str
    repeat: int
    tasks: tuple[str, ...]
    items: int
    estimated_s: float


@dataclass(frozen=True)
class NotAsked:
    """A task that this engine cannot give what it needs; its claim stays INCONCLUSIVE there."""

    engine: str
    task: str
    why: str


def tasks_of(scenario: Scenario) -> list[Task]:
    """The tasks of the scenario. ScenarioError, with the line, for one that is not there or cannot run."""
    settings = scenario.accuracy
    if settings is None:
        return []
    for index, name in enumerate(settings.tasks):
        try:
            found = tasks_named([name], scenario.file.parent)
        except UserError as error:
            raise at(scenario, ("tasks", index), f"{name!r}: {error.message}", error.hint) from error
        if any(isinstance(task, LmEvalTask) for task in found):
            _harness(scenario, index, settings)
    tasks = tasks_named(settings.tasks, scenario.file.parent)
    if isinstance(settings.items, dict):
        known = [task.name for task in tasks]
        for name in settings.items.keys() - known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            raise at(scenario, ("items", name), "a task that is not asked", hint, ", ".join(known))
    return tasks


def baseline_of(scenario: Scenario, configs: Iterable[ServingConfig]) -> ServingConfig:
    """What the others are held against: as `baseline:` says, else the first. ScenarioError: there is none."""
    found, wanted = list(configs), (scenario.accuracy.baseline if scenario.accuracy else None) or {}
    for name in wanted:
        if name not in ServingConfig.model_fields:
            near = difflib.get_close_matches(name, ServingConfig.model_fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            raise at(
                scenario, ("baseline", name), "an unknown key", hint, ", ".join(ServingConfig.model_fields)
            )
    for config in found:
        if all(getattr(config, name) == value for name, value in wanted.items()):
            return config
    labels = "; ".join(dict.fromkeys(config.label for config in found))
    raise at(
        scenario,
        ("baseline",),
        f"{masking.shown('baseline', wanted)}, which is no configuration of the plan",
        "",
        labels,
    )


def evaluations(
    scenario: Scenario, launches: Sequence[LaunchToScore], baseline: ServingConfig, target: Target
) -> tuple[list[Evaluating], list[NotAsked]]:
    """Which launch evaluates what: outputs that must be equal once, the baseline twice (`aa`).

    With `repeats.restart` the baseline's second evaluation is on its second launch, so that a restart is
    part of the noise that tripwires are held against.
    """
    settings = scenario.accuracy
    if settings is None:
        return [], []
    tasks = tasks_of(scenario)
    for task in tasks:
        readable(scenario, task)
    made: list[Evaluating] = []
    refused: dict[tuple[str, str], NotAsked] = {}
    seen: set[str] = set()
    asked: set[str] = set()
    again = [launch.name for launch in launches if launch.config.key == baseline.key][1:2]
    for launch in launches:
        config = launch.config
        lacks = {task.name: why for task in tasks if (why := refusal(config.engine, task))}
        for name, why in lacks.items():
            refused.setdefault((config.engine, name), NotAsked(config.engine, name, why))
        able = [task for task in tasks if task.name not in lacks]
        if not able:
            continue
        users = concurrency_of(launch.points, settings)
        repeats = []
        if config.key not in asked:
            asked.add(config.key)
            repeats.append(0)
        if config.key == baseline.key and settings.aa and launch.name == (again or [launch.name])[0]:
            repeats.append(1)
        for repeat in repeats:
            here = able if repeat == 0 else second(able)
            output = cache.key({**cache.planned(config), "repeat": repeat}, settings, users)
            items, seconds = 0, 0.0
            if output not in seen:
                seen.add(output)
                limit_s = settings.within_s
                if config.key != baseline.key:
                    limit_s = settings.budget_s(ready_s(config, target) + _load_s(launch, target))
                items, seconds = _cost(here, settings, config, users, target)
                seconds = seconds if limit_s is None else min(seconds, limit_s)
            made.append(
                Evaluating(launch.name, config.key, repeat, tuple(t.name for t in here), items, seconds)
            )
    if not made:
        what = "; ".join(f"{n.engine}: {n.task}: {n.why}" for n in refused.values())
        raise at(scenario, ("tasks",), f"nothing that an engine here can answer ({what})", "answers, chat")
    return made, list(refused.values())


def readable(scenario: Scenario, task: Task) -> None:
    """UserError when the items of a task, or what it would send for one of them, cannot be had."""
    if isinstance(task, LmEvalTask):
        return
    try:
        for item in task.items():
            task.asks(item)
    except Exception as error:
        if isinstance(error, UserError):
            raise
        what = f"task {task.name!r} cannot be asked: {type(error).__name__}: {error}"
        raise UserError(f"{scenario.file}: accuracy: {what}", "mend its items() and asks()") from error


def second(tasks: Sequence[Task]) -> list[Task]:
    """What the baseline is asked twice: tasks whose answers tell how it disagrees with itself."""
    return [task for task in tasks if task.measures in ("accuracy", "tripwire")]


def concurrency_of(points: Sequence[Point], settings: Accuracy) -> int:
    """Items asked at a time: the scenario's own number, else the most that a load of the launch has."""
    loads = [point.load.concurrency for point in points if point.load.concurrency]
    return settings.concurrency or max(loads, default=OPEN_LOOP)


def refusal(engine: str, task: Task) -> str | None:
    """Why this engine is known not to give what the task needs; None: it may, and is tried when it runs."""
    return "; ".join(why for need in sorted(task.needs) if (why := known_lack(engine, need))) or None


def at(
    scenario: Scenario, where: tuple[str | int, ...], found: str, hint: str = "", allowed: str = ""
) -> ScenarioError:
    """An error at a key below `accuracy`, with its line."""
    path = ("accuracy", *where)
    _, lines = yamlfile.read(scenario.file)
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
    allowed = allowed or "a task, a suite, a .jsonl or .yaml file, module:Class, lm-eval:NAME"
    return ScenarioError(scenario.file, yamlfile.line_of(path, lines), key, found, allowed, hint)


def _harness(scenario: Scenario, index: int, settings: Accuracy) -> None:

    where = environment()
    if where is None or not where.installed:
        raise at(
            scenario, ("tasks", index), "lm-evaluation-harness, which is not installed",
            "python -m serving.install.environments install lm-eval",
            "the built-in tasks, which need nothing",
        )  # fmt: skip
    if settings.within_s is not None or settings.split == "screen":
        limit = "within_s" if settings.within_s is not None else "split: screen"
        raise at(
            scenario, ("tasks", index), f"a harness task together with {limit}, which it cannot keep",
            "bound it with items: {NAME: N}", "built-in tasks, or no time limit",
        )  # fmt: skip


def _cost(
    tasks: Sequence[Task], settings: Accuracy, config: ServingConfig, users: int, target: Target
) -> tuple[int, float]:
    """Items and seconds at a guess, from the sizes of the first items and the roofline of the device."""
    items, seconds = 0, 0.0
    for task in tasks:
        if isinstance(task, LmEvalTask):
            count = settings.limit(task.name) or HARNESS_ITEMS
            seconds += HARNESS_START_S + _seconds(config, users, count, (128, 16), target)
            items += count
            continue
        chosen = drawn(task.items(), settings.split, settings.limit(task.name))
        for part in task.passes:
            seconds += _seconds(config, 1 if part.alone else users, len(chosen), _size(task, chosen), target)
        items += len(chosen)
    return items, seconds


def _load_s(launch: LaunchToScore, target: Target) -> float:
    return sum(point_s(point, target) for point in launch.points)


def _size(task: Task, items: Sequence[Any]) -> tuple[int, int]:
    """Mean tokens in and out of one item, the limits of generations taken as their lengths."""
    read = wrote = 0.0
    for item in items[:LOOKED_AT]:
        for ask in task.asks(item):
            text = len(ask.text) + sum(len(m["content"]) for m in ask.messages)
            read += (text * max(1, len(ask.choices)) + sum(map(len, ask.choices))) / CHARACTERS_PER_TOKEN
            wrote += float(ask.options.get("max_tokens", 1))
    count = max(1, len(items[:LOOKED_AT]))
    return max(1, round(read / count)), max(1, round(wrote / count))


def _seconds(config: ServingConfig, users: int, count: int, size: tuple[int, int], target: Target) -> float:
    if not count:
        return 0.0
    load = Load("accuracy", *size, concurrency=users, requests=count)
    return point_s(Point(config, load), target) - POINT_S
