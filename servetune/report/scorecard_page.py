"""How a scorecard looks: a terminal table, and a page in one file without script or network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.accuracy.scorecard import by_part
from bench.accuracy.settings import Accuracy
from bench.gate.scorecards import Scorecard
from bench.store import write_whole
from servetune.report.marks import VERDICT_COLOUR, VERDICT_MARK
from serving.claims import Claim, Verdict, overall

HERE = Path(__file__).parent
MANY_ITEMS = 100_000
SAYS: dict[Verdict, str] = {
    "PASS": "every claim is shown: the candidate may replace the baseline",
    "FAIL": "at least one claim is refuted",
    "INCONCLUSIVE": "nothing is refuted, but not everything is shown; this is not a pass",
}


def show_scorecard(found: Sequence[Claim], candidate: str, baseline: str) -> None:
    """The table on stdout."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    console.print(f"[bold]{escape(candidate)}[/] against [bold]{escape(baseline)}[/]", highlight=False)
    table = Table(box=None, pad_edge=False)
    for heading in ("part", "claim", "effect (interval)", "limit", "n", "verdict"):
        table.add_column(heading, justify="right" if heading == "n" else "left", overflow="fold")
    for part, claims in by_part(found).items():
        verdict = overall(claims)
        table.add_row(f"[bold]{part}[/]", "", "", "", "", _coloured(verdict))
        for claim in claims:
            said = _coloured(claim.verdict) if claim.counts else "[dim]for information[/]"
            table.add_row("", escape(claim.name), effect(claim), limit(claim), str(claim.n or ""), said)
    console.print(table)
    for note, names in _notes(found).items():
        console.print(f"[dim]{escape(names)}:[/] {escape(note)}", highlight=False)
    verdict = overall(found)
    console.print(f"[bold {VERDICT_COLOUR[verdict]}]{verdict}[/]: {SAYS[verdict]}", highlight=False)


def _notes(found: Sequence[Claim]) -> dict[str, str]:
    """Each note once, with the claims that say it."""
    said: dict[str, list[str]] = {}
    for claim in found:
        note = "; ".join(x for x in (claim.note, needed(claim)) if x)
        if note:
            said.setdefault(note, []).append(claim.name.removeprefix("tripwire: "))
    return {note: ", ".join(names) for note, names in said.items()}


def effect(claim: Claim) -> str:
    """`+0.012 (-0.003 to +0.027)`; shares and ratios alike to three significant places."""
    if claim.effect is None:
        return "-"
    sign = "" if claim.unit in ("ratio", "share", "nats", "share that differs") else "+"
    value = f"{claim.effect:{sign}.3g}"
    if claim.interval is None:
        return value
    return f"{value} ({claim.interval[0]:{sign}.3g} to {claim.interval[1]:{sign}.3g})"


def limit(claim: Claim) -> str:
    return "" if claim.threshold is None else f"{claim.threshold:g}"


def needed(claim: Claim) -> str:
    return settling(claim.needed)


def settling(items: int | None) -> str:
    """How many items would settle a claim, in words; empty where no number would."""
    if not items:
        return ""
    if items > MANY_ITEMS:
        return f"more than {MANY_ITEMS:,} items would be needed: too close to the limit to be settled"
    return f"about {items:,} items would settle it"


def write(path: Path, found: Sequence[Claim], candidate: str, baseline: str, settings: Accuracy) -> None:
    """The page, whole or not at all."""
    write_whole(path, render(found, candidate, baseline, settings))


def render(found: Sequence[Claim], candidate: str, baseline: str, settings: Accuracy) -> str:
    """The page's text: everything inside, all text escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    verdict = overall(found)
    parts = [
        {
            "name": part,
            "verdict": overall(claims),
            "mark": VERDICT_MARK[overall(claims)],
            "claims": [_row(c) for c in claims],
        }
        for part, claims in by_part(found).items()
    ]
    return environment.get_template("card.html.j2").render(
        candidate=candidate, baseline=baseline, verdict=verdict, mark=VERDICT_MARK[verdict],
        says=SAYS[verdict], parts=parts, floor=settings.floor,
        confidence=settings.confidence, margin=settings.security_margin,
        stability=settings.stability_floor, made=time.strftime("%Y-%m-%d %H:%M"),
    )  # fmt: skip


def _row(claim: Claim) -> dict[str, Any]:
    return {
        "name": claim.name,
        "verdict": claim.verdict if claim.counts else "for information",
        "mark": VERDICT_MARK[claim.verdict] if claim.counts else "",
        "effect": effect(claim),
        "limit": limit(claim),
        "unit": claim.unit,
        "n": claim.n,
        "note": "; ".join(x for x in (claim.note, needed(claim)) if x),
        "plot": _plot(claim),
    }


def _plot(claim: Claim) -> dict[str, float] | None:
    """Interval, effect and threshold as percentages of a drawing's width; None without an interval."""
    if claim.interval is None or claim.effect is None:
        return None
    marks = [*claim.interval, claim.effect, *([] if claim.threshold is None else [claim.threshold])]
    low, high = min(marks), max(marks)
    width = (high - low) or 1.0

    def at(value: float) -> float:
        return round(4 + 92 * (value - low) / width, 2)

    drawn = {"low": at(claim.interval[0]), "high": at(claim.interval[1]), "effect": at(claim.effect)}
    return drawn if claim.threshold is None else {**drawn, "limit": at(claim.threshold)}


def _coloured(verdict: Verdict) -> str:
    return f"[{VERDICT_COLOUR[verdict]}]{VERDICT_MARK[verdict]} {verdict}[/]"


def write_all(cards: Sequence[Scorecard], settings: Accuracy) -> list[Path]:
    """A page of each configuration but the baseline, whole or not at all."""
    made = []
    for one in cards:
        if one.floor is not None:
            one.page.parent.mkdir(exist_ok=True)
            write(one.page, one.claims, one.config.label, "the run's baseline", settings)
            made.append(one.page)
    return made
