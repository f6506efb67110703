"""`servetune search`: from the command line to the study's folder, and back to an exit status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from search import session
from search.request import SearchRequest
from servetune.cli.json_output import write_json
from servetune.cli.options import JSON, SCENARIO
from servetune.report.search_answer import more, show_search
from servetune.report.search_status import StatusLine


def search(
    scenario: Annotated[Path, SCENARIO],
    budget: Annotated[
        str | None, typer.Option(help="Time on the device, such as 8h or 30min; default: the scenario's.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Configurations to look at, at most.")] = None,
    usd: Annotated[float | None, typer.Option(help="Money, at the scenario's price.")] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="surrogate, tpe, gp, nsga2, random, grid, brute; default: the scenario's."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="sqlite:///, postgresql://, mysql:// URL or journal:FILE; default: study.db in --out."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study; must not exist. Default: results/<name>-<time>.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the study in --out (default: the latest of this name)."),
    ] = False,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=3, help="Rounds of the finals, at most; with --resume as many as an unsettled answer names."
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Run trials on a Ray cluster at this address; `local`: on all devices of this box."
        ),
    ] = None,
    json: Annotated[str | None, JSON] = None,
) -> int:
    """Find the configuration to deploy: search, re-measure the best few, answer with an interval.

    Exit status 1 when no configuration meets every constraint, 3 when the answer is not settled.
    """
    request = SearchRequest(budget, trials, usd, sampler, storage, ray, rounds)
    status = StatusLine()
    try:
        found = session.run(scenario, request, out=out, resume=resume, say=status.say, show=status.show)
    finally:
        status.stop()
    if json:
        write_json(found.written, json)
    if json != "-":
        show_search(found.written)
        if found.result.unsettled is not None:
            print(more(scenario, found.path, found.scenario, found.written), file=sys.stderr)
    return {"none_feasible": 1, "not_settled": 3}.get(found.result.verdict, 0)
