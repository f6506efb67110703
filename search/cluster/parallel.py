"""The search with several trials at a time, on a cluster. The log, the study and the answer stay here."""

from __future__ import annotations

import time
from typing import Any

from search.cluster.cluster import Cluster, Lost
from search.cluster.worker import TrialJob, reference, unpack
from search.engine_evaluator import EngineEvaluator
from search.loop import Loop
from search.result import Settings, TrialResult, best, from_json, key_of
from search.resume import MOST_ATTEMPTS


def run(loop: Loop, evaluator: EngineEvaluator, cluster: Cluster) -> str:
    """As `Loop.run`. The first trial, the baseline, runs alone: the others are held against it."""
    loop.study.reconcile(loop.log.trials())
    flying: dict[Any, tuple[int, Settings]] = {}
    waiting = [(one.trial, one.settings, one.attempts) for one in loop.log.trials() if not one.ended]
    ended: str | None = None
    while True:
        while waiting and len(flying) < cluster.slots:
            number, settings, attempts = waiting.pop(0)
            _again(loop, evaluator, cluster, flying, number, settings, attempts)
        while ended is None and not waiting and len(flying) < _room(loop, cluster):
            trials, history = loop.log.trials(), loop.log.history()
            ended = loop.ended(trials, history)
            asked = None if ended else loop.ask(trials, history)
            if asked is None:
                ended = ended or "every configuration of the space was looked at"
                break
            settings, params = asked
            number = len(trials)
            loop.log.append("asked", trial=number, settings=settings, params=params, unix_s=time.time())
            refused = evaluator.refusal(settings, best(history, minimize=loop.goal.minimize))
            if refused is not None:
                loop.keep(number, [refused])
                continue
            flying[cluster.submit(_job(loop, evaluator, number, settings))] = number, settings
        if not flying:
            return ended or "nothing is left to run"
        done = cluster.first(list(flying))
        number, settings = flying.pop(done)
        try:
            result = cluster.result(done)
        except Lost as lost:
            loop.say(f"trial {number} is lost with its machine: {lost}")
            attempts = next(one.attempts for one in loop.log.trials() if one.trial == number)
            waiting.append((number, settings, attempts))
            continue
        unpack(result.files, evaluator.folder)
        looks = [from_json(one) for one in result.outcomes]
        evaluator.learn(looks[-1])
        loop.keep(number, looks)


def _room(loop: Loop, cluster: Cluster) -> int:
    """Trials at a time: one until every engine's baseline is known."""
    known = sum(one.ended for one in loop.log.trials()[: len(loop.space.engines)])
    return cluster.slots if known == len(loop.space.engines) else 1


def _again(
    loop: Loop,
    evaluator: EngineEvaluator,
    cluster: Cluster,
    flying: dict[Any, tuple[int, Settings]],
    number: int,
    settings: Settings,
    attempts: int,
) -> None:
    """A trial that was lost, with its machine or its searcher: once more, then it counts as lost."""
    if attempts >= MOST_ATTEMPTS:
        detail = "interrupted twice while it ran"
        loop.keep(number, [TrialResult(settings, "screen", None, failure="lost", detail=detail)])
        return
    params = next(one.params for one in loop.log.trials() if one.trial == number)
    loop.log.append("asked", trial=number, settings=settings, params=params, unix_s=time.time())
    flying[cluster.submit(_job(loop, evaluator, number, settings))] = number, settings


def _job(loop: Loop, evaluator: EngineEvaluator, number: int, settings: Settings) -> TrialJob:
    scenario = evaluator.scenario
    baseline = key_of(settings) == key_of(loop.space.default(str(settings["engine"])))
    return TrialJob(
        number,
        dict(settings),
        scenario.file.read_bytes(),  # as it is: the study's own copy has no secrets, which engines need
        str(scenario.file.resolve()),
        evaluator.folder.manifest,
        [one.as_json() for one in loop.log.history()],
        baseline,
        reference(evaluator.folder, evaluator.baseline.key),
    )
