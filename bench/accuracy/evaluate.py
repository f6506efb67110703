"""Scores a served endpoint: preflight, every task at the load's concurrency, answers kept as they come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from bench.accuracy import journal
from bench.accuracy.asking import Halt, Round, ask_all
from bench.accuracy.client import Client
from bench.accuracy.eprocess import EProcess
from bench.accuracy.journal import Entry, Journal
from bench.accuracy.lmeval import LmEvalTask
from bench.accuracy.preflight import preflight
from bench.accuracy.result import Evaluation, Scored, TaskResult, save_head, save_scores
from bench.accuracy.settings import Accuracy
from bench.accuracy.task import Answer, Item, Task, drawn, prompt_hash
from serving.engine import Endpoint
from serving.errors import Failure, FailureKind, UserError


class Watch(Protocol):
    """Told how an evaluation goes; nothing comes back."""

    def evaluating(self, task: str, done: int, total: int, items_per_s: float) -> None: ...


class Quiet:
    def evaluating(self, task: str, done: int, total: int, items_per_s: float) -> None:
        """Says nothing."""


@dataclass(frozen=True)
class Life:
    """What may be known of the server beside HTTP; the defaults fit an endpoint that somebody else runs."""

    alive: Callable[[], bool] | None = None
    why_dead: Callable[[], Failure] | None = None
    reset_cache: Callable[[], bool] = lambda: False


@dataclass
class _State:
    """What one call of `evaluate` gathers."""

    results: dict[str, TaskResult] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failure: Failure | None = None
    asked: int = 0


def evaluate(
    endpoint: Endpoint,
    tasks: Sequence[Task],
    settings: Accuracy,
    folder: Path,
    concurrency: int,
    watch: Watch | None = None,
    *,
    identity: Mapping[str, Any] | None = None,
    tokenizer: str | None = None,
    baseline: Evaluation | None = None,
    life: Life | None = None,
) -> Evaluation:
    """Scores of `endpoint` on `tasks`, kept in `folder`; goes on where an earlier call for it stopped.

    With a `baseline` the sequential test runs along, and a candidate it rejects is not asked further.
    A server that dies or falls silent ends it with a `failure`, not with an exception. `tokenizer`: folder or
    hub id, for lm-eval. UserError when `folder` holds the evaluation of another configuration.
    """
    started = time.monotonic()
    known, watch = identity or {}, watch or Quiet()
    _check_same(folder, known, concurrency)
    folder.mkdir(parents=True, exist_ok=True)
    found = preflight(endpoint, tasks, settings.request_timeout_s)
    refused = {task.name: why for task in tasks if (why := found.refusal(task))}
    able = [task for task in tasks if task.name not in refused]
    state = _State(notes=list(found.notes))
    made = Evaluation(folder, known, {}, refused, tuple(state.notes), None, concurrency,
                      simulated=endpoint.simulated)  # fmt: skip
    kept = settings.model_dump(mode="json")
    facts = {task.name: {"measures": task.measures, "chance": task.chance} for task in able}
    save_head(made, facts, kept, "started")
    ending = "interrupted"
    try:
        _all_tasks(endpoint, able, settings, folder, concurrency, watch, baseline, life or Life(), tokenizer,
                   state)  # fmt: skip
        ending = "failed" if state.failure else "finished"
    finally:
        made = replace(
            made, tasks=state.results, notes=tuple(dict.fromkeys(state.notes)), failure=state.failure,
            asked=state.asked, seconds=time.monotonic() - started,
        )  # fmt: skip
        save_head(made, facts, kept, ending)
    return made


def _all_tasks(
    endpoint: Endpoint,
    tasks: Sequence[Task],
    settings: Accuracy,
    folder: Path,
    concurrency: int,
    watch: Watch,
    baseline: Evaluation | None,
    life: Life,
    tokenizer: str | None,
    state: _State,
) -> None:
    ends = None if settings.within_s is None else time.monotonic() + settings.within_s
    for index, task in enumerate(tasks):
        now = time.monotonic()
        # Each task may use an equal share of what is left, so that the last one is not starved.
        limit = None if ends is None else now + max(0.0, ends - now) / (len(tasks) - index)
        try:
            if isinstance(task, LmEvalTask):
                result, asked = task.run(endpoint, settings, folder, concurrency, watch, tokenizer)
            else:
                reference = baseline.tasks.get(task.name) if baseline and settings.stop_early else None
                result, asked = _one_task(
                    endpoint, task, settings, folder, concurrency, watch, reference, life, limit, state.notes
                )
        except Halt as halt:
            state.failure = _why(halt, life)
            partial = _scores(task, _drawn(task, settings), folder, None)
            state.results[task.name] = partial
            save_scores(folder, partial)
            return
        state.asked += asked
        state.results[task.name] = result
        save_scores(folder, result)
        if result.rejected_at is not None:
            state.notes.append(
                f"{task.name}: below the floor after {result.rejected_at} items (sequential test); "
                "not asked further"
            )
            return


def _one_task(
    endpoint: Endpoint,
    task: Task,
    settings: Accuracy,
    folder: Path,
    concurrency: int,
    watch: Watch,
    baseline: TaskResult | None,
    life: Life,
    ends: float | None,
    notes: list[str],
) -> tuple[TaskResult, int]:
    items = _drawn(task, settings)
    path = folder / f"{task.name}.jsonl"
    have = {(e.item, e.passed): e.prompt for e in journal.read(path) if not e.error}
    sequential = _Sequential(task, items, baseline, settings)
    asked = 0
    for part in task.passes:
        if part.cold and not life.reset_cache():
            notes.append(f"{task.name}: the prefix cache could not be emptied before pass {part.name!r}")
        left = [i for i in items if have.get((i.id, part.name)) != prompt_hash(task.asks(i))]
        users = 1 if part.alone else concurrency
        work = Round(task, part, tuple(left), ends, len(items) - len(left), len(items))

        async def ask(work: Round = work, users: int = users) -> int:
            async with Client(endpoint, concurrency=users, timeout_s=settings.request_timeout_s) as client:
                with Journal(path) as log:
                    return await ask_all(client, work, users, log, watch, sequential.add, life.alive)

        asked += asyncio.run(ask())
    return _scores(task, items, folder, sequential.rejected_at), asked


class _Sequential:
    """Runs the e-process over items in their fixed order, whatever order the answers come in."""

    def __init__(
        self, task: Task, items: Sequence[Item], baseline: TaskResult | None, settings: Accuracy
    ) -> None:
        self._task, self._floor = task, settings.floor
        # Only single-pass accuracy tasks have a score before the end.
        usable = baseline is not None and task.measures == "accuracy" and len(task.passes) == 1
        self._baseline = baseline.scored if usable and baseline else {}
        self._order = [item for item in items if item.id in self._baseline]
        self._waiting: dict[str, float] = {}
        self._next = 0
        self._process = EProcess(1 - settings.confidence)

    @property
    def rejected_at(self) -> int | None:
        return self._process.failed_at

    def add(self, item: Item, answers: tuple[Answer, ...]) -> bool:
        """One answered item; True when the candidate is rejected."""
        if not self._baseline:
            return False
        value = self._task.score(item, {self._task.passes[0].name: answers}).value if answers else 0.0
        self._waiting[item.id] = value
        while self._next < len(self._order) and self._order[self._next].id in self._waiting:
            one = self._order[self._next].id
            self._process.add(self._waiting.pop(one) - self._floor * self._baseline[one].value)
            self._next += 1
        return self.rejected_at is not None


def _drawn(task: Task, settings: Accuracy) -> list[Item]:
    return drawn(task.items(), settings.split, settings.limit(task.name))


def _scores(task: Task, items: Sequence[Item], folder: Path, rejected_at: int | None) -> TaskResult:
    """Scores of every item that is answered (or failed) in all passes."""
    found: dict[str, dict[str, Entry]] = {}
    for entry in journal.read(folder / f"{task.name}.jsonl"):
        found.setdefault(entry.item, {})[entry.passed] = entry
    names = [part.name for part in task.passes]
    scored: dict[str, Scored] = {}
    for item in items:
        entries = found.get(item.id, {})
        asks = prompt_hash(task.asks(item))
        if set(names) - entries.keys() or any(entries[n].prompt != asks for n in names):
            continue
        error = next((entries[name].error for name in names if entries[name].error), "")
        if error:
            scored[item.id] = Scored(0.0, "", asks, cluster=item.cluster, error=error)
            continue
        answers = {name: entries[name].answers for name in names}
        score = task.score(item, answers)
        flat = [answer for given in answers.values() for answer in given]
        scored[item.id] = Scored(
            score.value, score.choice, asks, sum(a.input_tokens for a in flat),
            sum(a.output_tokens for a in flat), item.cluster, any(a.finish == "length" for a in flat),
        )  # fmt: skip
    return TaskResult(task.name, task.measures, task.chance, scored, rejected_at)


def _why(halt: Halt, life: Life) -> Failure:
    dead = life.alive is not None and not life.alive()
    if dead and life.why_dead:
        return life.why_dead()
    kind = FailureKind.HANG if halt.silent else FailureKind.CRASH
    return Failure(
        kind, f"during the evaluation: {halt}", "the answers so far are kept; run it again to go on"
    )


def _check_same(folder: Path, identity: Mapping[str, Any], concurrency: int) -> None:
    file = folder / "evaluation.json"
    if not file.exists():
        return
    head = json.loads(file.read_text(encoding="utf-8"))
    if head["identity"] != dict(identity) or head["concurrency"] != concurrency:
        raise UserError(
            f"{folder} holds the evaluation of another configuration or concurrency", "choose another folder"
        )
