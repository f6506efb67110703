"""`servetune replay` on stdout: a table of searchers for each grid."""

from __future__ import annotations

import sys
from typing import Any

from search.replay.summary import AT


def show_replay(told: dict[str, Any]) -> None:
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
