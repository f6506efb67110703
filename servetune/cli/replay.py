"""`servetune replay`: searchers against recorded or simulated grids, in seconds and over many seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from search.replay.summary import END, about, behind, brief, curves
from servetune.cli.options import JSON
from servetune.report.replay_table import show_replay
from serving.errors import UserError


def replay(
    results: Annotated[
        list[Path], typer.Argument(help="Grids: run folders of servetune bench, or results/reference/*.")
    ],
    sampler: Annotated[
        str, typer.Option(help="Names with commas between: surrogate, optuna-tpe, hill, random.")
    ] = "surrogate,optuna-tpe,hill,random",
    seeds: Annotated[int, typer.Option(min=1, help="Searches of each sampler on each grid.")] = 200,
    share: Annotated[
        float, typer.Option(min=0.005, max=1.0, help="Of the space that each search may launch.")
    ] = 0.06,
    spread: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Of launches, as a share; default: as recorded, or 0.03."),
    ] = None,
    worthwhile: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Least gain, for the early stop that is tried along.")
    ] = 0.01,
    processes: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    json: Annotated[str | None, JSON] = None,
) -> int:
    """Compare searchers on grids whose optimum is known: regret per launch and per device minute."""
    from search.replay import aa_test, contest, grids
    from search.searchers import SEARCHERS
    from servetune.cli.json_output import write_json

    names = [name.strip() for name in sampler.split(",") if name.strip()]
    strange = [name for name in names if name not in SEARCHERS]
    if strange or not names:
        raise UserError(f"sampler {', '.join(strange) or sampler!r}; there are: {', '.join(SEARCHERS)}",
                        "--sampler surrogate,random")  # fmt: skip
    told = []
    for path in results:
        grid = grids.load(path)
        launches = max(2, round(len(grid.cells) * share))
        print(f"{grid.name}: {len(names)} samplers x {seeds} seeds x {launches} launches", file=sys.stderr)
        course = contest.Course(
            path, launches, min(launches, max(2, round(len(grid.cells) * END))), spread, worthwhile
        )
        races = contest.contest(course, names, seeds, processes)
        of = {n: curves([r for r in races if r.sampler == n], worthwhile) for n in names}
        told.append(
            {
                **about(grid, seeds, launches),
                "samplers": of,
                "behind": {n: behind(of[names[0]], of[n]) for n in names[1:]},
                "crowned_after": course.crowned_at,
                "false_winners_when_all_are_equal": aa_test.false_winners(course, seeds, processes),
            }
        )
        if json != "-":
            show_replay(told[-1])
    if json:
        alone = brief(told[0]) if len(told) == 1 else {}
        write_json({"schema": 1, **alone, "grids": told}, json)
    return 0
