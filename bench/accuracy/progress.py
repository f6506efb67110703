"""What an evaluation says while it runs (stderr) and when it is done (stdout)."""

from __future__ import annotations

import sys
from typing import Any, Self

from bench.accuracy.result import Evaluation


class Bar:
    """One line on a terminal, overwritten; elsewhere one line a task, when it ends."""

    def __init__(self) -> None:
        self._wide = sys.stderr.isatty()
        self._task, self._text, self._length = "", "", 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def evaluating(self, task: str, done: int, total: int, items_per_s: float) -> None:
        if task != self._task:
            self._end()
        left = (total - done) / items_per_s if items_per_s > 0 else 0.0
        self._task = task
        self._text = f"{task}: {done:,} of {total:,} items, {items_per_s:.1f}/s, {left:.0f} s left"
        if self._wide:
            print("\r" + self._text.ljust(self._length), end="", file=sys.stderr, flush=True)
            self._length = len(self._text)

    def _end(self) -> None:
        """The line of the task so far stays; the next begins below it."""
        if self._text:
            print("" if self._wide else self._text, file=sys.stderr, flush=True)
        self._text, self._length = "", 0


def show(made: Evaluation) -> None:
    """Scores on stdout; what was refused, noted or failed after them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(box=None, pad_edge=False)
    for heading in ("task", "measures", "score", "by chance", "items", "failed", "not answered"):
        table.add_column(heading, justify="left" if heading in ("task", "measures") else "right")
    for task in made.tasks.values():
        mean = "-" if task.mean is None else f"{task.mean:.1%}"
        chance = f"{task.chance:.0%}" if task.chance else ""
        table.add_row(
            task.name, task.measures, mean, chance, f"{len(task.scored):,}", str(task.errors or ""),
            str(task.unanswered or ""),
        )  # fmt: skip
    console.print(table)
    for name, why in made.refused.items():
        console.print(f"[yellow]refused:[/] {escape(name)}: {escape(why)}", highlight=False)
    for note in made.notes:
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False)
    if made.failure:
        console.print(f"[red]{made.failure.kind}[/]: {escape(made.failure.detail)}", highlight=False)
    console.print(
        f"{made.asked:,} requests in {made.seconds:.0f} s at concurrency {made.concurrency}; "
        f"kept in {escape(str(made.folder))}",
        highlight=False,
    )


def as_json(made: Evaluation) -> dict[str, Any]:
    """`{folder, tasks{name: {score, items, errors, chance}}, refused, notes, failure, asked, seconds}`."""
    return {
        "folder": str(made.folder),
        "tasks": {
            t.name: {"score": t.mean, "items": len(t.scored), "errors": t.errors,
                     "unanswered": t.unanswered, "chance": t.chance,
                     "rejected_at": t.rejected_at}
            for t in made.tasks.values()
        },
        "refused": dict(made.refused),
        "notes": list(made.notes),
        "failure": made.failure.kind if made.failure else None,
        "requests": made.asked,
        "seconds": made.seconds,
    }  # fmt: skip
