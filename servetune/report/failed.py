"""Failed requests of a whole run by kind, in the server's words, and what the clients noted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from bench.records import complaints
from bench.result import PointResult
from servetune.report import labels
from servetune.report.ranking import push

MOST_KINDS = 20
MOST_NOTES = 5


def show_failures(out: Console, outcomes: Sequence[PointResult]) -> None:
    """In the terminal; nothing where no request failed and nothing was noted."""
    groups = _groups(outcomes)
    if groups:
        count, points = sum(group.count for group in groups), sum(bool(o.failed) for o in outcomes)
        out.print(f"\n[bold]failed requests[/] ({count} in {_points(points)})")
    for group in groups[:MOST_KINDS]:
        line = Text.assemble((f"! {group.count} × {group.name}", "red"), f": {group.said}")
        out.print(Padding(line, (0, 0, 0, 2)))
        out.print(Padding(Text(f"hint: {group.hint}", style="dim"), (0, 0, 0, 4)))
    told = Counter(note for o in outcomes for note in o.heard)
    if told:
        out.print("\n[bold]notes[/]")
    for note, points in told.most_common(MOST_NOTES):
        out.print(Padding(Text(f"{note} ({_points(points)})", style="dim"), (0, 0, 0, 2)))
    if len(told) > MOST_NOTES:
        out.print(f"  ... and {len(told) - MOST_NOTES} more in report.html", style="dim")


def rows(outcomes: Sequence[PointResult], names: Sequence[str]) -> list[dict[str, Any]]:
    """For the page: each group, and the points it is of with their counts. `names`: settings that vary."""
    found: list[dict[str, Any]] = []
    for group in _groups(outcomes):
        of = [
            (f"{labels.config_text(o.run.point.config, names)} {push(o.run.point.load)}", one.count)
            for o in outcomes
            for one in o.failed
            if (one.kind, one.status) == (group.kind, group.status)
        ]
        found.append({"group": group, "points": of})
    return found


def notes(outcomes: Sequence[PointResult]) -> list[tuple[str, int]]:
    """Every note with the number of points it is of, the most frequent first."""
    return Counter(note for o in outcomes for note in (*o.run.notes, *o.heard)).most_common()


def _groups(outcomes: Sequence[PointResult]) -> tuple[complaints.Failed, ...]:
    return complaints.merged(group for o in outcomes for group in o.failed)


def _points(count: int) -> str:
    return f"{count} point" if count == 1 else f"{count} points"
