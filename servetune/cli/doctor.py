"""`servetune doctor`: what this machine can run, what it cannot, why, and what to type about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.machine.checks import DEFAULT, checks

if TYPE_CHECKING:
    from bench.machine.fitness import MachineCheck

PIPED_WIDTH = 200


def doctor(
    scenario: Annotated[
        Path | None,
        typer.Option(help=f"Check what this scenario needs too. Default: {DEFAULT}.", show_default=False),
    ] = None,
    json: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE|-", help="Write the data as JSON to a file, or - for stdout."),
    ] = None,
) -> int:
    """What this machine can run and why not. Exit status 0, or 1 when the job cannot run at all."""
    found = checks(scenario)
    if json:
        from servetune.cli.json_output import write_json

        write_json(as_json(found), json)
    if json != "-":
        _show_checks(found)
    return 0 if all(check.ok for check in found) else 1


def as_json(found: Sequence[MachineCheck]) -> dict[str, Any]:
    """`ok` is false when `make bench` cannot run its default here; warnings leave it true."""
    rows = [
        {"name": c.name, "ok": c.ok, "level": c.level, "found": c.found, "hint": c.hint or None}
        for c in found
    ]
    return {"ok": all(check.ok for check in found), "checks": rows}


def _show_checks(found: Sequence[MachineCheck]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    styles = {"ok": "green", "warning": "yellow", "failed": "red bold"}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", "check", "found"):
        table.add_column(title, overflow="fold")
    for check in found:
        text = check.found + (f"\n→ {check.hint}" if check.hint else "")
        table.add_row(f"[{styles[check.level]}]{check.level}[/]", check.name, escape(text))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPED_WIDTH)  # a hint broken over lines cannot be pasted
    console.print(table)
    failed = sum(check.level == "failed" for check in found)
    warned = sum(check.level == "warning" for check in found)
    verdict = f"{failed} failed: this job cannot run here" if failed else "the job can run here"
    console.print(f"\n{len(found)} checks, {warned} warnings; {verdict}")
