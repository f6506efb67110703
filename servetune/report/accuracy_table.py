"""The accuracy floor in reports: a row a configuration, its verdict, scores and the worst of its claims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.accuracy.evaluation import Evaluation
from bench.accuracy.settings import Accuracy
from bench.gate.scorecards import Scorecard
from servetune.report import labels
from servetune.report.marks import RANK_MARK, VERDICT_COLOUR, VERDICT_MARK
from servetune.report.scorecard_page import effect, settling
from serving.claims import PARTS
from serving.config import ServingConfig
from serving.units import duration

if TYPE_CHECKING:
    from rich.console import Console


def rows(cards: Sequence[Scorecard], names: Sequence[str], beside: Path) -> list[dict[str, Any]]:
    """What both tables say of each configuration, as text. Links are relative to the folder `beside`."""
    found = []
    for one in cards:
        floor = one.floor
        worst = floor.worst if floor else None
        failed = next((e.failure for e in one.evaluations if e.failure), None)
        found.append(
            {
                "name": labels.config_text(one.config, names),
                "key": one.config.key,
                "verdict": floor.verdict if floor else "baseline",
                "mark": f"{VERDICT_MARK[floor.verdict]} {floor.verdict}" if floor else "baseline",
                "scores": {n: f"{v:.1%}" for n, v in one.scores().items() if v is not None},
                "worst": f"{worst.name} {effect(worst)}" if worst else "",
                "why": _why(one, failed is not None),
                "parts": {part: one.parts.get(part, "") for part in PARTS} if floor else {},
                "page": one.page.relative_to(beside).as_posix() if floor else "",
                "items": sum(len(t.scored) for e in one.evaluations[:1] for t in e.tasks.values()),
                "seconds": sum(e.seconds for e in one.evaluations[:1]),
            }
        )
    return found


def _why(one: Scorecard, failed: bool) -> str:
    """The shortest true account of a verdict that is no pass."""
    floor = one.floor
    if floor is None:
        trouble = [c.name for c in one.claims if c.counts and c.verdict == "FAIL"]
        return f"its second evaluation disagrees: {', '.join(trouble)}" if trouble else ""
    if floor.verdict == "PASS":
        return ""
    which = [c for c in floor.claims if c.counts and c.verdict == floor.verdict]
    if which and all(c.effect is None for c in which):
        return "; ".join(dict.fromkeys(c.note for c in which))[:200]
    said = ", ".join(c.name for c in which)
    if floor.rejected_early:
        said = f"{said} (stopped early by the sequential test)"
    if failed:
        said = f"{said}; the server failed while it was asked"
    needed = settling(floor.needed) if floor.verdict == "INCONCLUSIVE" else ""
    return "; ".join(x for x in (said, needed) if x)


def show_accuracy(
    out: Console, cards: Sequence[Scorecard], settings: Accuracy, names: Sequence[str], beside: Path
) -> None:
    """The table in the terminal."""
    from rich.markup import escape
    from rich.table import Table

    if not cards:
        return
    out.print(
        f"\n[bold]accuracy[/] at least {settings.floor:g} of the baseline, at {settings.confidence:.0%}"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("settings", overflow="fold", min_width=16)
    asked = list(dict.fromkeys(t.name for c in cards for e in c.evaluations for t in e.tasks.values()
                               if t.measures == "accuracy"))[:4]  # fmt: skip
    for name in asked:
        table.add_column(escape(name), justify="right")
    table.add_column("worst: candidate - floor x baseline", overflow="fold")
    listed = rows(cards, names, beside)
    for row in listed:
        colour = VERDICT_COLOUR.get(row["verdict"], "dim")
        scores = [row["scores"].get(name, "-") for name in asked]
        table.add_row(f"[{colour}]{row['mark']}[/]", escape(row["name"]), *scores, escape(row["worst"]))
    out.print(table)
    for why in dict.fromkeys(row["why"] for row in listed if row["why"]):
        whose = "; ".join(row["name"] for row in listed if row["why"] == why)
        out.print(f"  [dim]{escape(whose)}:[/] {escape(why)}")


def finished_line(config: ServingConfig, made: Evaluation) -> tuple[str, str]:
    """Mark and sentence of a finished evaluation."""
    if made.failure:
        return RANK_MARK["failed"], f"accuracy of {config.label}: {made.failure.kind}: {made.failure.detail}"
    if made.rejected:
        after = made.tasks[made.rejected].rejected_at
        return RANK_MARK["below floor"], f"{config.label}: {made.rejected} rejected after {after} items"
    scores = ", ".join(f"{t.name} {t.mean:.1%}" for t in made.tasks.values() if t.mean is not None)
    simulated = "SIMULATED " if made.simulated else ""
    return "✓ scored", f"{simulated}{config.label}: {scores or 'nothing'} in {duration(made.seconds)}"
