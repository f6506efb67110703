"""What a plan says in the terminal: launches, what each must hold in memory, what is dropped and why."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from bench.plan.expand import Dropped

if TYPE_CHECKING:
    from bench.plan.planning import Plan

MOST_ROWS = 40


def show(planned: Plan) -> None:
    """The plan on stdout; long lists are cut with a count, `--json` has them whole."""
    console = Console()
    scenario = planned.scenario
    console.print(f"[bold]{scenario.name}[/] on {planned.device}: {scenario.question}", highlight=False)
    console.print(
        f"{len(planned.points)} points on {len(planned.launches)} launches, "
        f"about {duration(planned.estimated_s)}"
    )
    table = Table("launch", "settings", "points", "memory", box=None, pad_edge=False)
    for launch in planned.launches[:MOST_ROWS]:
        memory = planned.memory[launch.config.key]
        table.add_row(launch.name, launch.config.label, str(len(launch.points)), str(memory))
    console.print(table)
    if len(planned.launches) > MOST_ROWS:
        console.print(f"... and {len(planned.launches) - MOST_ROWS} launches more (--json has them all)")
    if planned.evaluations:
        _accuracy(console, planned)
    if planned.dropped:
        _dropped(console, planned.dropped)


def _accuracy(console: Console, planned: Plan) -> None:
    """How many evaluations, what is shared, which engine cannot be asked what."""
    asked = [one for one in planned.evaluations if one.items]
    shared = len(planned.evaluations) - len(asked)
    items, seconds = sum(one.items for one in asked), sum(one.estimated_s for one in asked)
    tasks = ", ".join(dict.fromkeys(name for one in asked for name in one.tasks))
    text = f"\n[bold]accuracy:[/] {len(asked)} evaluations, {items:,} items, about {duration(seconds)} of it"
    console.print(text + (f"; {shared} more share their outputs" if shared else ""), highlight=False)
    base = next(x.config for x in planned.launches if x.config.key == planned.baseline)
    console.print(f"  {tasks}; baseline: {base.label}", highlight=False, markup=False)
    for one in planned.not_asked:
        text = f"  {one.engine} cannot be asked {one.task}: {one.why}"
        console.print(text, highlight=False, markup=False)


def _dropped(console: Console, dropped: tuple[Dropped, ...]) -> None:
    count = sum(drop.points for drop in dropped)
    console.print(f"\n[bold]dropped: {count} points[/]")
    reasons: Counter[str] = Counter()
    for drop in dropped:
        reasons[drop.reason] += drop.points
    for reason, points in reasons.most_common():
        console.print(f"  {points} points: {reason}", highlight=False, markup=False)
        of_reason = [drop.label for drop in dropped if drop.reason == reason]
        for label in of_reason[:5]:
            console.print(f"      {label}", highlight=False, markup=False)
        if len(of_reason) > 5:
            console.print(f"      ... and {len(of_reason) - 5} more")


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
