"""One `servetune bench`: scenario file to results folder to report, new or resumed."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench.measure import measure
from bench.metrics import enough
from bench.plan import planning, scenariofile
from bench.plan.planning import Plan
from bench.plan.scenario import Scenario
from bench.results import RunFolder
from serving.engines import engine
from serving.errors import UserError
from serving.lock import device_lock

RESULTS = Path("results")


def run(scenario_file: Path, *, out: Path | None, resume: bool, json: str | None) -> int:
    """Measures what is not measured yet, then reports. Exit status 0; 1 when no point can be believed."""
    from bench.report.command import show
    from bench.report.progress import watch_for

    scenario = scenariofile.load(scenario_file)
    plan = planning.plan(scenario)
    for reason, points in _dropped(plan).items():
        print(f"dropped: {points} points: {reason}", file=sys.stderr)
    for line in enough.lines(enough.of_points(plan.points, scenario.slos)):
        print(f"warning: {line}", file=sys.stderr)
    path = out or (_latest(scenario) if resume else _new(scenario))
    with device_lock(plan.device, f"servetune bench, {path}"):
        folder = _resumed(path, scenario) if resume else _created(path, plan)
        print(f"results in {folder.path}", file=sys.stderr)
        try:
            measure(plan, folder, watch_for(plan, folder.done()))
        except KeyboardInterrupt:
            folder.append("interrupted")
            print(f"to go on: servetune bench {scenario_file} --resume --out {path}", file=sys.stderr)
            raise
        folder.append("finished")
    return show(folder, json)


def _dropped(plan: Plan) -> Counter[str]:
    """Points by the reason they were dropped for; `servetune plan` names each."""
    points: Counter[str] = Counter()
    for drop in plan.dropped:
        points[drop.reason] += drop.points
    return points


def _new(scenario: Scenario) -> Path:
    return RESULTS / f"{scenario.name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _created(path: Path, plan: Plan) -> RunFolder:
    from bench.machine.environment import environment

    scenario = plan.scenario
    if path.exists():
        RunFolder.create(path, {}, b"")  # refuses, before the minute that a first calibration takes
    manifest = {
        "scenario": scenario.name,
        "scenario_sha256": scenario.sha256,
        "seed": scenario.seed,
        "device": plan.device,
        "plan": planning.as_json(plan),
        "environment": environment(),
        "calibration": _calibration(plan),
        "started_unix_s": time.time(),
    }
    folder = RunFolder.create(path, manifest, scenario.file.read_bytes())
    folder.append("started")
    return folder


def _calibration(plan: Plan) -> dict[str, Any] | None:
    """The client's honest token rate on this machine; None where nothing but the simulator is measured."""
    from bench.machine.calibration import Step, calibration

    def say(step: Step) -> None:
        print(f"calibrating the load client: {step.streams} streams", file=sys.stderr)

    if all(engine(launch.config.engine).simulated for launch in plan.launches):
        return None
    return calibration(say=say).as_json()


def _latest(scenario: Scenario) -> Path:
    found = sorted(path.parent for path in RESULTS.glob(f"{scenario.name}-*/manifest.json"))
    if not found:
        raise UserError(f"no run of {scenario.name} under {RESULTS}/ to go on with", "leave --resume away")
    return found[-1]


def _resumed(path: Path, scenario: Scenario) -> RunFolder:
    folder = RunFolder.open(path)
    if folder.manifest["scenario_sha256"] != scenario.sha256:
        raise UserError(
            f"{path} was started with another version of {scenario.file}",
            f"use the one kept in {path}/scenario.yaml, or start anew without --resume",
        )
    folder.append("resumed")
    return folder
