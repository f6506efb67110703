"""What a plan says in the terminal: launches, what each must hold in memory, what is dropped and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.plan.expand import Dropped
from bench.plan.feasibility import Feasibility
from bench.plan.planning import Plan
from servetune.report import labels
from serving import devices
from serving.config import fields_where
from serving.costmodel.hardware import GIB
from serving.units import duration

MOST_ROWS = 40
WHO = fields_where(lambda role: role.tables == "head")
"""Not among the settings that are shared: the head of the plan and each row say them."""


def show_plan(planned: Plan) -> None:
    """The plan on stdout; long lists are cut with a count, `--json` has them whole."""
    console = Console()
    scenario = planned.scenario
    place = planned.supposed or planned.device
    console.print(f"[bold]{scenario.name}[/] on {place}: {scenario.question}", highlight=False)
    if planned.supposed:
        console.print(
            f"supposed: {planned.supposed}, with engines and models in place; nothing was looked at here",
            style="dim",
        )
    points, launches = len(planned.points), len(planned.launches)
    console.print(
        f"{points:,} point{'s' * (points != 1)} on {launches:,} launch{'es' * (launches != 1)}, "
        f"about {duration(planned.estimated_s)}"
    )
    configs = {launch.config.key: launch.config for launch in planned.launches}
    names = labels.varying(list(configs.values()))
    for line in _common(planned, names):
        console.print(f"  {line}", style="dim", highlight=False, markup=False)
    several = any(devices.count(config) not in (None, 1) for config in configs.values())
    titles = ("settings", "launches", "points", *(("GPUs",) if several else ()), "GiB", "KV tokens")
    table = Table(*titles, box=None, pad_edge=False)
    for key, config in list(configs.items())[:MOST_ROWS]:
        served = [launch for launch in planned.launches if launch.config.key == key]
        counts = (len(served), sum(len(launch.points) for launch in served))
        text = labels.config_text(config, names)
        cards = (str(devices.count(config) or "?"),) if several else ()
        table.add_row(escape(text), *map(str, counts), *cards, *_memory(planned.memory[key]))
    console.print(table)
    if len(configs) > MOST_ROWS:
        console.print(f"... and {len(configs) - MOST_ROWS} configurations more (--json has them all)")
    if planned.evaluations:
        _accuracy(console, planned)
    if planned.dropped:
        _dropped(console, planned.dropped)


def _memory(found: Feasibility) -> tuple[str, str]:
    """What is held beside the KV cache, of one device; and the tokens of KV cache that are left."""
    doubt = "" if found.verdict == "fits" else f"; {found.verdict.replace('_', ' ')}: {found.reason}"
    if found.budget is None:
        return doubt.removeprefix("; "), ""
    held = f"{found.budget.used / GIB:.1f} of {found.budget.total / GIB:.1f}"
    return escape(held + doubt), f"{found.budget.kv_tokens:,}"


def _common(planned: Plan, names: Sequence[str]) -> Iterator[str]:
    """For each engine, the settings that all its configurations share."""
    engines = {launch.config.engine: launch.config for launch in planned.launches}
    for engine, config in engines.items():
        shared = {n: v for n, v in config.settings.items() if n not in (*names, *labels.HIDDEN, *WHO)}
        if shared:
            yield f"{engine}, all: " + " ".join(f"{n}={labels.value_text(v)}" for n, v in shared.items())


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
