"""The scores that a spec claims, asked again of its server: the same items, the same number at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.spec.claim import Claim, Outcome
from bench.verify.promises import tokenizer
from serving.engine import Endpoint
from serving.errors import UserError
from serving.spec import Accuracy, AccuracyFact, ServingSpec


def accuracy(
    spec: ServingSpec, server: Endpoint, folder: Path, alive: Callable[[], bool] | None = None
) -> list[Claim]:
    """One claim a task. FAIL: the whole new interval is below the least that was claimed; PASS: the score
    is not. No claim when the spec has no score: its status warns of that."""
    from bench.accuracy import settings, tasks
    from bench.accuracy.evaluate import Life, evaluate
    from bench.accuracy.task import Task

    claimed, named, lost = spec.accuracy, dict[str, Task](), []
    for fact in claimed.facts:
        try:
            named |= {task.name: task for task in tasks([fact.task])}
        except UserError as error:
            lost.append(Claim(fact.task, "inconclusive", f"it cannot be asked again here: {error.message}"))
    asked = [f for f in claimed.facts if f.task in named]
    if not asked:
        return lost
    rules = settings.Accuracy(
        tasks=tuple(named), items={f.task: f.items for f in asked}, split=claimed.split, stop_early=False
    )
    life = Life(alive=alive) if alive else None
    made = evaluate(
        server, list(named.values()), rules, folder, claimed.concurrency,
        identity={"spec": spec.metadata.id}, tokenizer=tokenizer(spec), life=life,
    )  # fmt: skip
    if made.failure is not None:
        return [*lost, Claim("accuracy", "fail", f"{made.failure.kind}: {made.failure.detail}")]
    found = []
    for fact in asked:
        task, why = made.tasks.get(fact.task), made.refused.get(fact.task, "nothing was scored")
        if task is None or task.mean is None:
            found.append(Claim(fact.task, "inconclusive", f"not asked: {why}"))
            continue
        from bench.spec.scores import interval

        found.append(judged(fact, claimed, task.mean, interval(task), len(task.scored)))
    return [*found, *lost]


def judged(
    fact: AccuracyFact, claimed: Accuracy, score: float, interval: tuple[float, float], items: int
) -> Claim:
    """One task's new score against the least that the spec stands for."""
    limit = least(fact, claimed)
    text = f"{score:.4f} on {items} items, at least {limit:.4f} (claimed {fact.score:.4f})"
    if items < fact.items:
        return Claim(
            fact.task, "inconclusive", f"{text}; {fact.items} items were claimed", score, interval, limit
        )
    verdict: Outcome = "pass" if score >= limit else "fail" if interval[1] < limit else "inconclusive"
    return Claim(fact.task, verdict, text, score, interval, limit)


def least(fact: AccuracyFact, claimed: Accuracy) -> float:
    """The lower end of what was measured, or the floor where the claimed score keeps it and it is higher."""
    low = fact.interval[0]
    if fact.baseline is None or claimed.floor is None:
        return low
    floor = claimed.floor * fact.baseline
    return max(low, floor) if fact.score >= floor else low
