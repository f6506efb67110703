"""Accuracy in a spec: what the study's evaluations say of the chosen configuration, and how to ask again."""

from __future__ import annotations

from collections import defaultdict

from bench.accuracy.evaluation import Evaluation, TaskResult
from bench.accuracy.mean_test import lower_bound, sample, upper_bound
from bench.accuracy.verdict import floor_of
from bench.evaluation import store
from bench.gate.scorecards import baseline_key
from bench.records.folder import RunFolder
from bench.scenario.model import Scenario
from servetune.deploy.evidence.choice import answer
from servetune.deploy.spec import AccuracyFact, SpecAccuracy

ALPHA = 0.05


def accuracy(folder: RunFolder, scenario: Scenario, config_key: str) -> SpecAccuracy:
    """Empty when the scenario has no `accuracy:` or the configuration was not evaluated."""

    base = _baseline(folder)
    mine, theirs = store.pair(folder, config_key, base or config_key) if scenario.accuracy else ([], [])
    if scenario.accuracy is None or not mine:
        return SpecAccuracy()
    theirs = theirs if base else []
    judged = None
    if base is not None and base != config_key:
        again = theirs[1] if len(theirs) > 1 else None
        judged = floor_of(mine[0], theirs[0], scenario.accuracy, again=again) if theirs else None
    reference = theirs[0] if theirs and base != config_key else None
    return SpecAccuracy(
        facts=facts(mine[0], reference),
        split=mine[0].settings.get("split", "all"),
        concurrency=mine[0].concurrency,
        floor=scenario.accuracy.floor if reference else None,
        verdict=judged.verdict if judged else ("INCONCLUSIVE" if base not in (None, config_key) else None),
        certified=_certified(folder, config_key),
    )


def facts(mine: Evaluation, baseline: Evaluation | None) -> list[AccuracyFact]:
    """One fact for each accuracy task; the baseline's score is on the items that both were asked."""
    found = []
    for name, task in sorted(mine.tasks.items()):
        if task.measures != "accuracy" or task.mean is None:
            continue
        theirs = baseline.tasks.get(name) if baseline else None
        both = sorted(task.scored.keys() & theirs.scored.keys()) if theirs else []
        found.append(
            AccuracyFact(
                task=name,
                score=task.mean,
                interval=list(interval(task)),
                items=len(task.scored),
                baseline=sum(theirs.scored[i].value for i in both) / len(both) if theirs and both else None,
            )
        )
    return found


def interval(task: TaskResult) -> tuple[float, float]:
    """95 % bounds of the mean score, items of one cluster counted once (`bench.accuracy.mean_test`)."""
    import numpy as np

    groups: dict[str, list[float]] = defaultdict(list)
    for item, scored in task.scored.items():
        groups[scored.cluster or item].append(scored.value)
    data = sample(np.array([sum(g) / len(g) for g in groups.values()]), 0.0, 1.0)
    low, high = float(lower_bound(data, ALPHA / 2)), float(upper_bound(data, ALPHA / 2))
    return max(0.0, low), min(1.0, high)


def _certified(folder: RunFolder, config_key: str) -> bool:
    """Whether a search has passed it on held-out items, for all its finalists together."""
    finalists = (answer(folder) or {}).get("finalists", [])
    mine = [one.get("accuracy") for one in finalists if one["config_key"] == config_key]
    return any(one is not None and one["verdict"] == "PASS" and one["held_out"] for one in mine)


def _baseline(folder: RunFolder) -> str | None:
    found = baseline_key(folder)
    if found is None and (study := answer(folder)) is not None:
        found = study["baseline"]["config_key"]
    return found
