"""One `servetune search`: scenario to study folder to answer, new or resumed."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.plan.expand import loads_of
from bench.plan.target import Target, target_of
from bench.records.folder import RunFolder
from bench.scenario import scenariofile
from bench.scenario.model import Scenario
from bench.scenario.price import check
from search import unasked
from search.budget import Budget
from search.configs import config_of
from search.engine_evaluator import EngineEvaluator
from search.explain import explained
from search.finals.answer import SearchResult
from search.finals.robust import settle
from search.finals.rounds import conclude
from search.finals.spread import LEAST_ROUNDS
from search.loop import Loop
from search.objective import Goal, constraints, untellable
from search.resume import StudyLog
from search.searchers.surrogate import Surrogate
from search.space import Space, most_devices
from search.study import SAMPLERS, Study, default_storage, reached
from search.timed import Timed
from servetune.report.search_answer import show
from servetune.report.search_status import StatusLine
from serving.engines import engine
from serving.errors import UserError
from serving.lock import device_lock
from serving.units import seconds

RESULTS = Path("results")


@dataclass(frozen=True)
class SearchRequest:
    """What the command line says in place of the scenario; None: as the scenario."""

    budget: str | None = None
    trials: int | None = None
    usd: float | None = None
    sampler: str | None = None
    storage: str | None = None
    ray: str | None = None
    rounds: int | None = None


def run(file: Path, asked: SearchRequest, *, out: Path | None, resume: bool, json: str | None) -> int:
    """Searches what is not searched yet.

    Exit status 0; 1 when no configuration keeps every promise, 3 when the answer is not settled.
    """
    scenario = _with(scenariofile.load(file), asked)
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
        status = StatusLine()
        status.say(f"study in {path}, {space.size:,} configurations or more")
        for line in warnings:
            status.say(f"warning: {line}")
        try:
            loop = _loop(scenario, folder, target, goal, space, asked, log, status)
            ended = loop.run() if asked.ray is None else _on_cluster(loop, scenario, asked.ray)
            status.say(f"the search ends: {ended}")
            answer = settle(loop, conclude(loop))
        except KeyboardInterrupt:
            log.append("interrupted", unix_s=time.time())
            status.say(f"to go on: servetune search {file} --resume --out {path}")
            raise
        finally:
            status.stop()
        written = _written(scenario, folder, loop, answer, ended)
    from servetune.cli.json_output import write_json

    write_json(written, str(path / "study.json"))
    log.append("finished", unix_s=time.time())
    folder.append("finished")
    if json:
        write_json(written, json)
    if json != "-":
        show(written)
        if answer.unsettled is not None:
            print(more(file, path, scenario, written), file=sys.stderr)
    return {"none_feasible": 1, "not_settled": 3}.get(answer.verdict, 0)


def more(file: Path, path: Path, scenario: Scenario, written: Mapping[str, Any]) -> str:
    """What to type for the rounds that would settle it, where a number can be named."""
    needed = written["unsettled"]["more_rounds"]
    count = needed["estimate"] or needed["low"]
    kept = "until it is settled, keep the default"
    if count is None:
        return kept
    rounds = max(LEAST_ROUNDS, written["rounds"] + count)
    budget = ""
    if scenario.search.budget_s is not None or scenario.search.budget_usd is not None:
        budget = " with a larger --budget or --usd, from which these rounds are kept back"
    return f"{kept}; for more rounds: servetune search {file} --resume --out {path} --rounds {rounds}{budget}"


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


def _on_cluster(loop: Loop, scenario: Scenario, address: str) -> str:
    """The trials on a cluster; the finalists are measured here, one after the other."""
    from search.cluster import parallel
    from search.cluster.cluster import Cluster

    simulated = all(engine(part.engine).simulated for part in scenario.engines)
    assert isinstance(loop.oracle, EngineEvaluator)
    cluster = Cluster.join(
        address, loop.oracle.target.device, simulated=simulated, devices=most_devices(scenario) or 1
    )
    loop.say(f"{cluster.slots} trials at a time")
    try:
        with reached(loop.study.storage, "when it is back: servetune search ... --resume; nothing is lost"):
            return parallel.run(loop, cluster)
    finally:
        cluster.leave()


def _loop(
    scenario: Scenario,
    folder: RunFolder,
    target: Target,
    goal: Goal,
    space: Space,
    asked: SearchRequest,
    log: StudyLog,
    status: StatusLine,
) -> Loop:
    chosen = scenario.search
    study = Study.open(
        asked.storage or default_storage(folder.path), folder.path.name, space, goal,
        constraints(scenario), chosen.sampler, scenario.seed,
    )  # fmt: skip
    oracle = EngineEvaluator(scenario, folder, target, goal, Timed(status.show))
    oracle.recall(log.history())
    hour = scenario.price.per_hour_of(most_devices(scenario)) if scenario.price else None
    budget = Budget(chosen.budget_s, chosen.trials, chosen.budget_usd, hour)
    searcher = None
    if chosen.sampler == "surrogate":
        searcher = Surrogate(space, goal, constraints(scenario), scenario.seed)
    return Loop(
        space, goal, oracle, study, log, budget, chosen.worthwhile, chosen.finalists, searcher, status.say,
        rounds=chosen.rounds,
        # Rounds that were asked for are paid first.
        least_rounds=chosen.rounds if "rounds" in chosen.model_fields_set else LEAST_ROUNDS,
    )  # fmt: skip


def _with(scenario: Scenario, asked: SearchRequest) -> Scenario:
    changed: dict[str, Any] = {}
    if asked.budget is not None:
        try:
            changed["budget_s"] = seconds(asked.budget)
        except ValueError as error:
            raise UserError(f"--budget: {error}", "--budget 8h") from error
    changed |= {
        name: value
        for name, value in (
            ("trials", asked.trials),
            ("budget_usd", asked.usd),
            ("sampler", asked.sampler),
            ("rounds", asked.rounds),
        )
        if value is not None
    }
    named = changed.keys() | scenario.search.model_fields_set
    if len(scenario.search.goal) > 1 and "sampler" not in named:
        changed["sampler"] = "tpe"  # the surrogate models one goal
    search = scenario.search.model_copy(update=changed)
    if search.sampler not in SAMPLERS:
        raise UserError(f"sampler {search.sampler!r}; there are: {', '.join(SAMPLERS)}", "--sampler tpe")
    if search.sampler == "surrogate" and len(search.goal) > 1:
        raise UserError("sampler surrogate has one goal; the scenario names several", "--sampler tpe")
    if search.budget_usd is not None and scenario.price is None:
        raise UserError("a budget in money needs a price", "add `price:` to the scenario")
    return scenario.model_copy(update={"search": search})


def _created(path: Path, scenario: Scenario, target: Target) -> RunFolder:
    from bench.machine.environment import environment
    from bench.proof.calibration import calibration

    if path.exists():
        RunFolder.create(path, {}, b"")  # refuses, before the minute that a first calibration takes
    simulated = all(engine(part.engine).simulated for part in scenario.engines)
    baseline = config_of(scenario, target, Space.of(scenario).default())
    manifest = {
        "scenario": scenario.name,
        "scenario_sha256": scenario.sha256,
        "seed": scenario.seed,
        "device": target.device,
        "search": scenario.search.model_dump(mode="json"),
        "plan": {"accuracy": {"baseline": baseline.key} if scenario.accuracy else None},
        "environment": environment(),
        "calibration": None if simulated else calibration().as_json(),
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
    found = sorted(path.parent for path in RESULTS.glob(f"{scenario.name}-*/study.jsonl"))
    if not found:
        raise UserError(f"no study of {scenario.name} under {RESULTS}/ to go on with", "leave --resume away")
    return found[-1]


def _written(
    scenario: Scenario, folder: RunFolder, loop: Loop, answer: SearchResult, ended: str
) -> dict[str, Any]:
    """study.json: see docs/search.md."""
    from search.budget import ledger

    history, oracle = loop.log.history(), loop.oracle
    assert isinstance(oracle, EngineEvaluator)
    failures: dict[str, int] = {}
    for one in history:
        if one.failure is not None:
            failures[one.failure] = failures.get(one.failure, 0) + 1
    spent = ledger(history)
    return {
        "schema": 1,
        "scenario": scenario.name,
        "question": scenario.question,
        "scenario_sha256": scenario.sha256,
        "goal": [
            {"metric": m, "direction": "minimize" if low else "maximize"} for m, low in loop.goal.metrics
        ],
        "slos": [str(slo) for slo in scenario.slos],
        "sampler": scenario.search.sampler,
        "seed": scenario.seed,
        "simulated": any(one.simulated for one in history),
        "ended": ended,
        **answer.as_json(oracle, loop.space),
        "trials": len(loop.log.trials()),
        "launches": sum(event["event"] == "launch" for event in folder.events()),
        "failures": failures,
        "ledger": {**spent, "total": sum(spent.values())},
        "cost": loop.budget.cost(sum(spent.values())),
        "explained": explained(
            loop.space,
            loop.goal,
            loop.study.constraints,
            [one.outcomes[-1] for one in loop.log.trials()],
            answer.winner.settings if answer.winner else None,
        ),
        "feasibility": oracle.feasible.report(failures.get("does_not_fit", 0)),
        "runs": ["."],
    }
