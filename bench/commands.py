"""`servetune plan` and `servetune bench`: from the command line to the flow, and back to an exit status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

SCENARIO = typer.Argument(help="A scenario file, such as scenarios/quickstart.yaml.", show_default=False)
JSON = typer.Option("--json", metavar="FILE|-", help="Write the data as JSON to a file, or - for stdout.")


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
    from bench.output import write_json
    from bench.plan import planning, scenariofile

    planned = planning.plan(scenariofile.load(scenario), gpu=gpu)
    short = enough.of_points(planned.points, planned.scenario.slos)
    if json:
        write_json({**planning.as_json(planned), "undetermined": [one.as_json() for one in short]}, json)
    if json != "-":
        from bench.report import plan_table

        plan_table.show(planned)
    for line in enough.lines(short):
        print(f"warning: {line}", file=sys.stderr)
    return 0


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
    from bench import campaign

    return campaign.run(scenario, out=out, resume=resume, json=json)
