"""`servetune replay`: searchers against recorded or simulated grids, in seconds and over many seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.commands import JSON
from serving.errors import UserError

if TYPE_CHECKING:
    from search.replay.contest import Race
    from search.replay.grids import Grid

END = 0.05
"""Of the space: after so much of it the finalists are measured again."""
CLOSE = 0.01
"""Regret at which a configuration counts as found."""
AT = (0.005, 0.01, 0.02, 0.03, 0.05)
"""Shares of the space after which the table shows regret."""


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
    from bench.output import write_json
    from search.replay import contest, even, grids
    from search.searchers import SEARCHERS

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
                "false_winners_when_all_are_equal": even.false_winners(course, seeds, processes),
            }
        )
        if json != "-":
            show(told[-1])
    if json:
        alone = brief(told[0]) if len(told) == 1 else {}
        write_json({"schema": 1, **alone, "grids": told}, json)
    return 0


def brief(told: dict[str, Any]) -> dict[str, Any]:
    """What a script asks first of one grid: regret is the median after each launch, as a share."""
    return {
        "grid": told["grid"],
        "size": told["configurations"],
        "searchers": [
            {"name": name, "regret": of["regret"]["median"], "launches_to_1pct": of["launches_to_1_percent"]}
            for name, of in told["samplers"].items()
        ],
    }


def about(grid: Grid, seeds: int, launches: int) -> dict[str, Any]:
    return {
        "grid": grid.name,
        "simulated": grid.simulated,
        "goal": grid.goal.metric,
        "configurations": len(grid.cells),
        "ended": grid.counts(),
        "optimum": {"value": grid.best.value, "settings": dict(grid.best.settings)},
        "within_1_percent": sum(grid.regret(c) <= CLOSE for c in grid.cells.values()),
        "seeds": seeds,
        "launches": launches,
    }


def curves(races: list[Race], worthwhile: float) -> dict[str, Any]:
    """Of one sampler: regret after each launch, minutes to CLOSE, and how the early stop would have done."""
    import numpy as np

    longest = max(len(race.found) for race in races)
    found, held, minutes = (
        np.array([(*one, *[one[-1]] * (longest - len(one))) for one in ([getattr(r, k) for r in races])])
        for k in ("found", "held", "minutes")
    )
    reached = np.where((found <= CLOSE).any(1), (found <= CLOSE).argmax(1), -1)
    launch = np.where(reached >= 0, reached + 1.0, np.inf)
    spent = np.where(reached >= 0, minutes[np.arange(len(races)), reached], np.inf)
    grid_minutes = np.linspace(0, float(np.median(minutes[:, -1])), 41)[1:]
    by_minute = [
        [float(one[np.searchsorted(at, until, "right") - 1]) if at[0] <= until else 1.0
         for one, at in zip(found, minutes, strict=True)]
        for until in grid_minutes
    ]  # fmt: skip
    stops = [race for race in races if race.stopped is not None]
    lost = [race.found[race.stopped - 1] - race.found[-1] for race in stops if race.stopped]
    return {
        "regret": {"median": found_at(found, 0.5), "mean": [float(x) for x in found.mean(0)],
                   "p90": found_at(found, 0.9)},
        "regret_of_finalists": {"median": found_at(held, 0.5), "p90": found_at(held, 0.9)},
        "within_1_percent": [float(x) for x in (found <= CLOSE).mean(0)],
        "regret_by_minute": {
            "minutes": [float(m) for m in grid_minutes],
            "median": [float(np.quantile(one, 0.5)) for one in by_minute],
            "p90": [float(np.quantile(one, 0.9)) for one in by_minute],
        },
        "launches_to_1_percent": middle_and_tail(launch),
        "minutes_to_1_percent": middle_and_tail(spent),
        "early_stop": {
            "stopped": len(stops) / len(races),
            "after_launch_median": float(np.median([race.stopped or 0 for race in stops])) if stops else None,
            "lost_more_than_worthwhile": sum(x > worthwhile for x in lost) / len(races),
            "lost_p90": float(np.quantile(lost, 0.9)) if lost else None,
        },
        "crowned": {
            **quantiles([race.answer for race in races]),
            "verdicts": {v: sum(r.verdict == v for r in races) / len(races)
                         for v in sorted({r.verdict for r in races})},
        },
        "proposal_s": sum(r.cpu_s for r in races) / sum(len(r.found) for r in races),
    }  # fmt: skip


def behind(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, list[int]]:
    """Launch counts at which the first has the larger regret, in the median and in the mean."""
    first, other = ours["regret"], theirs["regret"]
    return {
        what: [n for n, (a, b) in enumerate(zip(first[what], other[what], strict=False), 1) if a > b + 1e-9]
        for what in ("median", "mean")
    }


def middle_and_tail(values: Any) -> dict[str, float]:
    """Of values that may be infinite: nothing is interpolated."""
    import numpy as np

    return {name: float(np.quantile(values, q, method="higher")) for name, q in (("p50", 0.5), ("p90", 0.9))}


def found_at(regret: Any, share: float) -> list[float]:
    import numpy as np

    return [float(x) for x in np.quantile(regret, share, axis=0)]


def quantiles(values: list[float]) -> dict[str, float]:
    import numpy as np

    return {
        "median": float(np.median(values)),
        "p90": float(np.quantile(values, 0.9)),
        "within_1_percent": float(np.mean(np.array(values) <= CLOSE)),
    }


def show(told: dict[str, Any]) -> None:
    """One grid: a table, then what came of whole searches."""
    from rich.console import Console
    from rich.table import Table

    out = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    mark = "SIMULATED, " if told["simulated"] else "recorded, "
    ended = ", ".join(f"{count} {name}" for name, count in told["ended"].items())
    out.print(f"\n[bold]{told['grid']}[/]: {mark}{told['configurations']} configurations ({ended}), "
              f"{told['within_1_percent']} within 1% of the best, {told['seeds']} seeds")  # fmt: skip
    marks = sorted({max(1, round(told["configurations"] * s)) for s in AT} | {told["launches"]})
    marks = [mark for mark in marks if mark <= told["launches"]]
    table = Table("regret, %: median | 90th percentile, after", *(f"{m}" for m in marks),
                  "launches to 1%", "minutes to 1%", "winner's")  # fmt: skip
    for name, of in told["samplers"].items():
        regret = of["regret"]
        cells = [f"{100 * regret['median'][m - 1]:.1f} | {100 * regret['p90'][m - 1]:.1f}" if m <= len(
            regret["median"]) else "-" for m in marks]  # fmt: skip
        ends = [_pair(of["launches_to_1_percent"]), _pair(of["minutes_to_1_percent"])]
        won = of["crowned"]
        table.add_row(name, *cells, *ends, f"{100 * won['median']:.1f} | {100 * won['p90']:.1f}")
    out.print(table)
    out.print(
        f"winner's: regret of what the finalists' rounds name after {told['crowned_after']} launches",
        style="dim",
    )
    out.print("A/A, every configuration equal: a false winner in "
              f"{told['false_winners_when_all_are_equal']:.1%} of the searches")  # fmt: skip
    first = next(iter(told["samplers"]))
    for name, at in told["behind"].items():
        counts = "; ".join(f"{what} {_runs(numbers)}" for what, numbers in at.items())
        out.print(f"{first} is behind {name} after launches: {counts}", style="dim")
    for name, of in told["samplers"].items():
        stop = of["early_stop"]
        after = stop["after_launch_median"]
        early = f"the early stop ends {stop['stopped']:.0%} of the searches"
        early += f", at the median after launch {after:.0f}" if after else ""
        lose = f"{stop['lost_more_than_worthwhile']:.1%} lose more than is worthwhile by it"
        out.print(f"{name}: {of['proposal_s'] * 1000:.0f} ms a proposal; {early}; {lose}", style="dim")


def _runs(numbers: list[int]) -> str:
    """1, 2, 3, 7 as 1-3, 7."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ", ".join(f"{one[0]}-{one[-1]}" if len(one) > 1 else str(one[0]) for one in found) or "none"


def _pair(found: dict[str, float]) -> str:
    return " | ".join("never" if value == float("inf") else f"{value:.0f}" for value in found.values())
