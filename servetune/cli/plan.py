"""`servetune plan`: what a scenario would run; starts nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from servetune.cli.options import JSON, SCENARIO


def plan(
    scenario: Annotated[Path, SCENARIO],
    gpu: Annotated[
        str | None,
        typer.Option(
            help="Plan for such a GPU (h200, l4 ...), here or not: memory, support, time.", show_default=False
        ),
    ] = None,
    json: Annotated[str | None, JSON] = None,
) -> int:
    """What a scenario would run: points, launches, what is dropped and why, memory, time. Starts nothing."""
    from bench.metrics import enough
    from bench.plan import planning
    from bench.scenario import scenariofile
    from servetune.cli.json_output import write_json

    planned = planning.plan(scenariofile.load(scenario), gpu=gpu)
    short = enough.of_points(planned.points, planned.scenario.slos)
    if json:
        write_json({**planning.as_json(planned), "undetermined": [one.as_json() for one in short]}, json)
    if json != "-":
        from servetune.report import plan_table

        plan_table.show_plan(planned)
    for line in enough.lines(short):
        print(f"warning: {line}", file=sys.stderr)
    return 0
