"""The whole search on one screen: scenario -> study -> trials -> finals -> robustness -> study.json."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.machine.environment import environment
from bench.plan.expand import loads_of
from bench.plan.target import Target, target_of
from bench.proof.calibration import calibration
from bench.records.folder import RunFolder
from bench.records.study import LOG, write_answer
from bench.scenario import scenariofile
from bench.scenario.model import Scenario
from bench.scenario.price import check
from search import unasked
from search.budget import Budget
from search.cluster import parallel
from search.cluster.cluster import Cluster
from search.configs import config_of
from search.engine_evaluator import EngineEvaluator
from search.finals.answer import SearchResult
from search.finals.finals import Finals
from search.finals.reserve import reserve_s
from search.finals.robust import settle
from search.finals.rounds import conclude
from search.finals.spread import LEAST_ROUNDS
from search.loop import Loop
from search.objective import Goal, constraints, untellable
from search.request import SearchRequest
from search.resume import StudyLog
from search.searchers.surrogate import Surrogate
from search.space import Space, most_devices
from search.study import Study, default_storage, reached
from search.timed import Timed
from search.written import written
from serving.engines import engine
from serving.errors import UserError
from serving.lock import device_lock

RESULTS = Path("results")
Say = Callable[[str], None]
Show = Callable[[str, str], None]


@dataclass(frozen=True)
class Searched:
    """A search that has ended. `written`: the content of study.json in `path`."""

    path: Path
    scenario: Scenario
    result: SearchResult
    written: dict[str, Any]


def run(
    file: Path, request: SearchRequest, *, out: Path | None, resume: bool, say: Say, show: Show
) -> Searched:
    """Searches what is not searched yet, and writes study.json.

    say     is told one line a trial, and what to know beside
    show    is told what is being done, and on the launch of which configuration

    UserError for what cannot be searched. KeyboardInterrupt passes through, when `say` was told how to go on.
    """
    scenario = request.over(scenariofile.load(file))
    target = target_of(None if scenario.device == "auto" else scenario.device, scenario.model)
    path = out or (
        _latest(scenario) if resume else RESULTS / f"{scenario.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    )
    goal, space = Goal.of(scenario), Space.of(scenario)
    check(scenario, [config_of(scenario, target, space.default(name)) for name in space.engines])
    warnings = checked(scenario, goal, space)
    with device_lock(target.device, f"servetune search, {path}"):
        folder = _resumed(path, scenario) if resume else _created(path, scenario, target)
        log = StudyLog(path)
        if resume:
            log.append("resumed", unix_s=time.time())
        say(f"study in {path}, {space.size:,} configurations or more")
        for line in warnings:
            say(f"warning: {line}")
        try:
            evaluator = EngineEvaluator(scenario, folder, target, goal, Timed(show))
            evaluator.recall(log.history())
            loop, finals = parts(scenario, request, space, evaluator, log, say)
            ended = loop.run() if request.ray is None else _on_cluster(loop, evaluator, request.ray)
            say(f"the search ends: {ended}")
            result = settle(finals, conclude(finals))
        except KeyboardInterrupt:
            log.append("interrupted", unix_s=time.time())
            say(f"to go on: servetune search {file} --resume --out {path}")
            raise
        found = Searched(path, scenario, result, written(scenario, loop, evaluator, result, ended))
    write_answer(path, found.written)
    log.append("finished", unix_s=time.time())
    folder.append("finished")
    return found


def parts(
    scenario: Scenario,
    request: SearchRequest,
    space: Space,
    evaluator: EngineEvaluator,
    log: StudyLog,
    say: Say,
) -> tuple[Loop, Finals]:
    """The loop over the trials, and the finals that it keeps time and money back for."""
    chosen, goal, named = scenario.search, evaluator.goal, constraints(scenario)
    folder = evaluator.folder.path
    study = Study.open(
        request.storage or default_storage(folder), folder.name, space, goal, named, chosen.sampler,
        scenario.seed,
    )  # fmt: skip
    hour = scenario.price.per_hour_of(most_devices(scenario)) if scenario.price else None
    budget = Budget(chosen.budget_s, chosen.trials, chosen.budget_usd, hour)
    finals = Finals(
        space, goal, evaluator, log, budget, chosen.worthwhile, chosen.finalists, say, chosen.rounds,
        # Rounds that were asked for are paid first.
        chosen.rounds if "rounds" in chosen.model_fields_set else LEAST_ROUNDS,
    )  # fmt: skip
    searcher = Surrogate(space, goal, named, scenario.seed) if chosen.sampler == "surrogate" else None
    reserve = partial(reserve_s, finals)
    loop = Loop(space, goal, evaluator, study, log, budget, chosen.worthwhile, searcher, say, reserve)
    return loop, finals


def checked(scenario: Scenario, goal: Goal, space: Space) -> list[str]:
    """What to know before it starts, one line each.

    UserError when no trial could be told to keep every promise: a load too short for a percentile, a
    baseline that cannot be asked what its accuracy is judged by.
    """
    loads = [load for work in scenario.workloads for load in loads_of(work)]
    never, warnings = untellable(scenario, goal, loads)
    if never:
        raise UserError(
            f"{scenario.file}: every trial would be undetermined: {'; '.join(never)}",
            "more requests (or a longer load), or a promise that so many can tell",
        )
    return warnings + unasked.warnings(scenario, space)


def _on_cluster(loop: Loop, evaluator: EngineEvaluator, address: str) -> str:
    """The trials on a cluster; the finalists are measured here, one after the other."""
    cluster = Cluster.join(
        address, evaluator.target.device, simulated=_simulated(evaluator.scenario),
        devices=most_devices(evaluator.scenario) or 1,
    )  # fmt: skip
    loop.say(f"{cluster.slots} trials at a time")
    try:
        with reached(loop.study.storage, "when it is back: servetune search ... --resume; nothing is lost"):
            return parallel.run(loop, evaluator, cluster)
    finally:
        cluster.leave()


def _simulated(scenario: Scenario) -> bool:
    return all(engine(part.engine).simulated for part in scenario.engines)


def _created(path: Path, scenario: Scenario, target: Target) -> RunFolder:
    if path.exists():
        RunFolder.create(path, {}, b"")  # refuses, before the minute that a first calibration takes
    baseline = config_of(scenario, target, Space.of(scenario).default())
    manifest = {
        "scenario": scenario.name,
        "scenario_sha256": scenario.sha256,
        "seed": scenario.seed,
        "device": target.device,
        "search": scenario.search.model_dump(mode="json"),
        "plan": {"accuracy": {"baseline": baseline.key} if scenario.accuracy else None},
        "environment": environment(),
        "calibration": None if _simulated(scenario) else calibration().as_json(),
        "started_unix_s": time.time(),
    }
    folder = RunFolder.create(path, manifest, scenario.file.read_bytes())
    folder.append("started")
    return folder


def _resumed(path: Path, scenario: Scenario) -> RunFolder:
    folder = RunFolder.open(path)
    if folder.manifest["scenario_sha256"] != scenario.sha256:
        raise UserError(
            f"{path} was started with another version of {scenario.file}",
            f"use the one kept in {path}/scenario.yaml, or start anew without --resume",
        )
    folder.append("resumed")
    return folder


def _latest(scenario: Scenario) -> Path:
    found = sorted(path.parent for path in RESULTS.glob(f"{scenario.name}-*/{LOG}"))
    if not found:
        raise UserError(f"no study of {scenario.name} under {RESULTS}/ to go on with", "leave --resume away")
    return found[-1]
