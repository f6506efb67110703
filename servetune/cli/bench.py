"""`servetune bench`: scenario file to results folder to report, new or resumed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.campaign import _created, _dropped, _latest, _new, _resumed
from bench.measure import measure
from bench.metrics import enough
from bench.plan import planning
from bench.scenario import scenariofile
from servetune.cli.options import JSON, SCENARIO
from serving.lock import device_lock


def bench(
    scenario: Annotated[Path, SCENARIO],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; must not exist. Default: results/<name>-<time>.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out (default: the latest of this name).")
    ] = False,
    json: Annotated[str | None, JSON] = None,
) -> int:
    """Measure every point of a scenario on real engines, keep raw results, make the report."""
    return run(scenario, out=out, resume=resume, json=json)


def run(scenario_file: Path, *, out: Path | None, resume: bool, json: str | None) -> int:
    """Measures what is not measured yet, then reports. Exit status 0; 1 when no point can be believed."""
    from servetune.cli.report import show_folder
    from servetune.report.progress import watch_for

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
    return show_folder(folder, json)
