"""The scores that a spec claims, asked again of its server: the same items, the same number at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.accuracy import settings
from bench.accuracy.evaluate import Life, evaluate
from bench.accuracy.task import Task
from bench.accuracy.tasks import tasks
from servetune.deploy.evidence.scores import interval
from servetune.deploy.spec import AccuracyFact, ServingSpec, SpecAccuracy
from servetune.deploy.verify.constraints import tokenizer
from serving.claims import Claim, Verdict
from serving.engine import Endpoint
from serving.errors import UserError


def accuracy(
    spec: ServingSpec, server: Endpoint, folder: Path, alive: Callable[[], bool] | None = None
) -> list[Claim]:
    """One claim a task. FAIL: the whole new interval is below the least that was claimed; PASS: the score
    is not. No claim when the spec has no score: its status warns of that."""

    claimed, named, lost = spec.accuracy, dict[str, Task](), []
    for fact in claimed.facts:
        try:
            named |= {task.name: task for task in tasks([fact.task])}
        except UserError as error:
            lost.append(Claim(fact.task, "INCONCLUSIVE", f"it cannot be asked again here: {error.message}"))
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
        return [*lost, Claim("accuracy", "FAIL", f"{made.failure.kind}: {made.failure.detail}")]
    found = []
    for fact in asked:
        task, why = made.tasks.get(fact.task), made.refused.get(fact.task, "nothing was scored")
        if task is None or task.mean is None:
            found.append(Claim(fact.task, "INCONCLUSIVE", f"not asked: {why}"))
            continue

        found.append(judged(fact, claimed, task.mean, interval(task), len(task.scored)))
    return [*found, *lost]


def judged(
    fact: AccuracyFact, claimed: SpecAccuracy, score: float, interval: tuple[float, float], items: int
) -> Claim:
    """One task's new score against the least that the spec stands for."""
    limit = least(fact, claimed)
    text = f"{score:.4f} on {items} items, at least {limit:.4f} (claimed {fact.score:.4f})"
    if items < fact.items:
        return Claim(
            fact.task, "INCONCLUSIVE", f"{text}; {fact.items} items were claimed", score, interval, limit
        )
    verdict: Verdict = "PASS" if score >= limit else "FAIL" if interval[1] < limit else "INCONCLUSIVE"
    return Claim(fact.task, verdict, text, score, interval, limit)


def least(fact: AccuracyFact, claimed: SpecAccuracy) -> float:
    """The lower end of what was measured, or the floor where the claimed score keeps it and it is higher."""
    low = fact.interval[0]
    if fact.baseline is None or claimed.floor is None:
        return low
    floor = claimed.floor * fact.baseline
    return max(low, floor) if fact.score >= floor else low
