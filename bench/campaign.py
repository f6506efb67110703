"""One `servetune bench`: scenario file to results folder to report, new or resumed."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench.machine.environment import environment
from bench.plan import planning
from bench.plan.planning import Plan
from bench.proof.calibration import CalibrationStep, calibration
from bench.records.folder import RunFolder
from bench.scenario.model import Scenario
from serving.engines import engine
from serving.errors import UserError

RESULTS = Path("results")


def _dropped(plan: Plan) -> Counter[str]:
    """Points by the reason they were dropped for; `servetune plan` names each."""
    points: Counter[str] = Counter()
    for drop in plan.dropped:
        points[drop.reason] += drop.points
    return points


def _new(scenario: Scenario) -> Path:
    return RESULTS / f"{scenario.name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _created(path: Path, plan: Plan) -> RunFolder:

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

    def say(step: CalibrationStep) -> None:
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
