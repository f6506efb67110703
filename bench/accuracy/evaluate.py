"""Scores a served endpoint: preflight, every task at the load's concurrency, answers kept as they come."""

from __future__ import annotations

import asyncio
import errno
import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from bench.accuracy import journal
from bench.accuracy.asking import GRACE_S, Halt, Round, ask_all
from bench.accuracy.client import Client
from bench.accuracy.journal import Entry, Journal
from bench.accuracy.limits import Backoff
from bench.accuracy.lmeval import HarnessError, LmEvalTask
from bench.accuracy.preflight import preflight
from bench.accuracy.result import Evaluation, Scored, TaskResult, save_head, save_scores, total
from bench.accuracy.sequential import Sequential
from bench.accuracy.settings import Accuracy
from bench.accuracy.task import Item, Pass, Task, drawn, prompt_hash
from bench.accuracy.thinking import unanswered
from serving.engine import Endpoint
from serving.errors import Failure, FailureKind, UserError

DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""What no task is to blame for, and no next trial would be spared."""


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


@dataclass(frozen=True)
class _Job:
    """What stays the same during one call of `evaluate`; `notes` and `refused` are added to."""

    endpoint: Endpoint
    settings: Accuracy
    folder: Path
    concurrency: int
    watch: Watch
    life: Life
    tokenizer: str | None
    baseline: Evaluation | None
    alpha: float
    ends: float | None
    backoff: Backoff = field(default_factory=Backoff)
    notes: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


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
    refused: Mapping[str, str] | None = None,
) -> Evaluation:
    """Scores of `endpoint` on `tasks`, kept in `folder`; goes on where an earlier call for it stopped.

    With a `baseline` the sequential test runs along, and a candidate it rejects is not asked further.
    A server that dies or falls silent ends it with a `failure`, not with an exception, and a task whose own
    code raises is `refused` with what it raised. `tokenizer`: folder
    or hub id, for lm-eval. `refused`: task -> why, for those that were not even tried.
    UserError when `folder` holds the evaluation of another configuration.
    """
    started = time.monotonic()
    known, life = identity or {}, life or Life()
    earlier = _earlier(folder, known, concurrency)
    folder.mkdir(parents=True, exist_ok=True)
    # Every accuracy task may reject: together they do so wrongly at most at the stated level.
    alpha = (1 - settings.confidence) / max(1, sum(task.measures == "accuracy" for task in tasks))
    within = settings.within_s
    # What is under way at the end may take GRACE_S more, which is part of the time allowed.
    ends = None if within is None else started + within - min(GRACE_S, within / 4)
    job = _Job(
        endpoint, settings, folder, concurrency, watch or Quiet(), life, tokenizer, baseline, alpha, ends
    )
    kept, about = settings.model_dump(mode="json"), dict(earlier)
    made = Evaluation(folder, known, {}, concurrency=concurrency, simulated=endpoint.simulated, settings=kept)
    results: dict[str, TaskResult] = {}
    ending = "interrupted"
    try:
        found = preflight(endpoint, tasks, settings.request_timeout_s, job.backoff)
        job.notes.extend(found.notes)
        job.refused.update(refused or {})
        job.refused.update({task.name: why for task in tasks if (why := found.refusal(task))})
        able = [task for task in tasks if task.name not in job.refused]
        made = replace(made, refused=job.refused)
        about |= {task.name: {"measures": task.measures, "chance": task.chance} for task in able}
        save_head(made, about, kept, "started")
        asked = _all_tasks(job, able, results)
        made, ending = replace(made, asked=asked), "finished"
    except Halt as halt:
        made, ending = replace(made, failure=_why(halt, life)), "failed"
    finally:
        if job.backoff.waits:
            job.notes.append(f"the server said `later` (429 or 503) {job.backoff.waits} times; asked again")
        notes, seconds = tuple(dict.fromkeys(job.notes)), time.monotonic() - started
        made = replace(made, tasks=results, notes=notes, seconds=seconds)
        save_head(made, about, kept, ending)
    return made


def _all_tasks(job: _Job, tasks: Sequence[Task], results: dict[str, TaskResult]) -> int:
    """Requests sent; `results` fills as tasks end, also with what a task had when the server died."""
    asked = 0
    for index, task in enumerate(tasks):
        now = time.monotonic()
        # Each task may use an equal share of what is left, so that the last one is not starved.
        limit = None if job.ends is None else now + max(0.0, job.ends - now) / (len(tasks) - index)
        try:
            result, sent = _one_task(job, task, limit, results)
        except HarnessError as error:
            job.refused[task.name] = f"{error.message} ({error.hint})"
            continue
        except Halt:
            raise
        except Exception as error:  # a task is anybody's code: it costs its own claim, not the campaign
            first = leaf(error)
            if isinstance(first, OSError) and first.errno in DISK:
                raise
            job.refused[task.name] = f"the task itself failed: {type(first).__name__}: {first}"
            job.notes.append(f"{task.name}: {job.refused[task.name]} ({_place(first)})")
            continue
        asked += sent
        results[task.name] = result
        save_scores(job.folder, result)
        if result.rejected_at is not None:
            after = f"after {result.rejected_at} items (sequential test); not asked further"
            job.notes.append(f"{task.name}: below the floor {after}")
            break
    return asked


def leaf(error: BaseException) -> BaseException:
    """The first single exception of a group of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _place(error: BaseException) -> str:
    """File and line where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "place unknown"


def _one_task(
    job: _Job, task: Task, ends: float | None, results: dict[str, TaskResult]
) -> tuple[TaskResult, int]:
    if isinstance(task, LmEvalTask):
        return _harness(job, task)
    items = drawn(task.items(), job.settings.split, job.settings.limit(task.name))
    path = job.folder / f"{task.name}.jsonl"
    have = {(e.item, e.passed): e for e in journal.read(path) if not e.error}
    reference = job.baseline.tasks.get(task.name) if job.baseline and job.settings.stop_early else None
    sequential = Sequential(task, items, reference, job.settings.floor, job.alpha)
    asked = 0
    try:
        for part in task.passes:
            left = []
            for item in items:
                entry = have.get((item.id, part.name))
                if entry is not None and entry.prompt == prompt_hash(task.asks(item)):
                    sequential.add(item, entry.answers)
                else:
                    left.append(item)
            if sequential.rejected_at is None:
                asked += _one_pass(job, task, part, left, len(items), ends, sequential)
    except Halt:
        results[task.name] = scores(task, items, job.folder, sequential.rejected_at)
        save_scores(job.folder, results[task.name])
        raise
    return scores(task, items, job.folder, sequential.rejected_at), asked


def _harness(job: _Job, task: LmEvalTask) -> tuple[TaskResult, int]:
    """By lm-evaluation-harness; when it fails because the server died, that is what is told."""
    try:
        return task.run(job.endpoint, job.settings, job.folder, job.concurrency, job.watch, job.tokenizer)
    except HarnessError as error:
        if job.life.alive is None or job.life.alive():
            raise
        raise Halt(f"the server died under lm-eval: {error.message}", silent=False) from error


def _one_pass(
    job: _Job,
    task: Task,
    part: Pass,
    left: Sequence[Item],
    total: int,
    ends: float | None,
    sequential: Sequential,
) -> int:
    """Asks what is left of one pass; requests sent."""
    if part.cold and left and not job.life.reset_cache():
        job.notes.append(f"{task.name}: the prefix cache could not be emptied before pass {part.name!r}")
    users = 1 if part.alone else job.concurrency
    work = Round(task, part, tuple(left), ends, total - len(left), total)

    async def ask() -> int:
        async with Client(
            job.endpoint, concurrency=users, timeout_s=job.settings.request_timeout_s
        ) as client:
            with Journal(job.folder / f"{task.name}.jsonl") as log:
                return await ask_all(
                    client, work, users, log, job.watch, sequential.add, job.life.alive, job.backoff
                )

    return asyncio.run(ask())


def scores(task: Task, items: Sequence[Item], folder: Path, rejected_at: int | None) -> TaskResult:
    """Scores of every item that is answered (or failed) in all passes, up to the first that is not.

    Workers overtake each other: what stands after a gap when time ran out is what was quick to answer.
    """
    found: dict[str, dict[str, Entry]] = {}
    for entry in journal.read(folder / f"{task.name}.jsonl"):
        found.setdefault(entry.item, {})[entry.passed] = entry
    names = [part.name for part in task.passes]
    scored: dict[str, Scored] = {}
    for item in items:
        entries = found.get(item.id, {})
        asks = prompt_hash(task.asks(item))
        if set(names) - entries.keys() or any(entries[n].prompt != asks for n in names):
            break
        error = next((entries[name].error for name in names if entries[name].error), "")
        if error:
            scored[item.id] = Scored(0.0, "", asks, cluster=item.cluster, error=error)
            continue
        answers = {name: entries[name].answers for name in names}
        score = task.score(item, answers)
        flat = [answer for given in answers.values() for answer in given]
        asked = task.asks(item) * len(names)
        mute = "" if task.measures == "tripwire" else unanswered(asked, flat, task.measures)
        scored[item.id] = Scored(
            0.0 if mute else score.value, score.choice, asks, total([a.input_tokens for a in flat]),
            total([a.output_tokens for a in flat]), item.cluster, any(a.finish == "length" for a in flat),
            unanswered=mute,
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


def _earlier(folder: Path, identity: Mapping[str, Any], concurrency: int) -> dict[str, Any]:
    """Tasks an earlier call has left there. UserError when it was of another configuration."""
    file = folder / "evaluation.json"
    if not file.exists():
        return {}
    head = json.loads(file.read_text(encoding="utf-8"))
    if head["identity"] != dict(identity) or head["concurrency"] != concurrency:
        raise UserError(
            f"{folder} holds the evaluation of another configuration or concurrency", "choose another folder"
        )
    tasks: dict[str, Any] = head["tasks"]
    return tasks
