"""`servetune capacity`: replicas, GPUs and money for any rate, from the measured safe rate of one replica,
or for recorded traffic, by simulation."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from servetune.deploy.fleet.price import fleet
from servetune.report.fleet_table import show_fleet


def capacity_command(
    spec: Annotated[Path, typer.Argument(help="A spec that servetune spec wrote.", show_default=False)],
    rate: Annotated[
        list[float] | None, typer.Option("--rate", help="Requests per second. Repeatable.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Recorded traffic (CSV or JSONL): simulated, see docs/deploying.md.")
    ] = None,
    scale: Annotated[float, typer.Option(min=0.001, help="So many times the traffic of the trace.")] = 1.0,
    routing: Annotated[str, typer.Option(help="random or least-request (of two).")] = "random",
    extrapolate: Annotated[
        bool, typer.Option("--extrapolate", help="Simulate requests longer than any that was measured.")
    ] = False,
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write the rows as JSON.")
    ] = None,
) -> int:
    """Replicas, GPUs and money for a rate of the measured workload, or for a trace; with a spare one too."""
    from servetune.cli.json_output import write_json
    from servetune.deploy.spec import load
    from serving.errors import UserError

    if bool(rate) == (trace is not None):
        raise UserError("a rate or a trace says how much traffic there is", "--rate 40, or --trace FILE")
    found = load(spec)
    if trace is not None:
        from servetune.deploy.fleet.trace import answer
        from servetune.report.fleet_table import show_simulated_fleet

        data = answer(found, trace, scale, routing, extrapolate=extrapolate)
        if json:
            write_json(data, json)
        if json != "-":
            show_simulated_fleet(data)
        return 0
    if found.capacity.safe_rate_per_s is None:
        hint = "measure open-loop rates (rate_per_s in the scenario) and write the spec again"
        raise UserError(f"{spec} has no safe rate: its run has no believable rate that held its SLOs", hint)
    if any(r <= 0 or not math.isfinite(r) for r in rate or ()):
        raise UserError("a rate is a number of requests per second above 0", "--rate 40")
    rows = [fleet(found, r, spare) for r in rate or () for spare in (0, 1)]
    if json:
        of = found.capacity
        facts = {"safe_rate_per_s": of.safe_rate_per_s, "headroom": of.headroom,
                 "interval_per_s": [of.held_per_s, of.broke_per_s]}  # fmt: skip
        write_json({"spec": found.metadata.id, "simulated": found.engine.simulated, **facts,
                    "rows": [asdict(row) for row in rows]}, json)  # fmt: skip
    if json != "-":
        show_fleet(found, rows)
    return 0
