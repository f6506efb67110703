"""What a comparison says in the terminal: one row a claim, then what it could not see."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.compare.comparison import Comparison
from bench.metrics import METRICS
from servetune.report.marks import VERDICT_COLOUR
from serving.claims import Verdict, combined


def show_comparison(claims: Sequence[tuple[str, Comparison]], left: Sequence[str]) -> None:
    """The claims on stdout, point by point, then the spreads, the notes and the verdict."""
    console = Console()
    for label, group in groupby(claims, key=lambda pair: pair[0]):
        console.print(f"[bold]{escape(label)}[/]", highlight=False)
        table = Table(box=None, pad_edge=False, show_header=False)
        for width in (31, 21, 7, 12):
            table.add_column(min_width=width, no_wrap=True)
        for _, claim in group:
            verdict = f"[{VERDICT_COLOUR[claim.verdict]}]{claim.verdict}[/]"
            table.add_row(f"  {claim.metric}", _effect(claim), _limit(claim), verdict)
        console.print(table)
    console.print("B / A with its interval, the limit it is held against, and the verdict", style="dim")
    for line in _spreads([claim for _, claim in claims]):
        console.print(line, highlight=False)
    notes = dict.fromkeys([*(note for _, claim in claims for note in claim.notes), *left])
    for note in notes:
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False)
    verdict = combined(claim.verdict for _, claim in claims)
    console.print(f"[bold {VERDICT_COLOUR[verdict]}]{verdict}[/]{_why(verdict)}", highlight=False)


def _effect(claim: Comparison) -> str:
    if claim.ratio is None or claim.interval is None:
        return "-"
    return f"{claim.ratio:.3f} ({claim.interval.low:.3f}-{claim.interval.high:.3f})"


def _limit(claim: Comparison) -> str:
    better = METRICS[claim.metric].better
    if better is None:
        return f"+-{abs(claim.threshold - 1):.0%}"
    return f"{'>=' if better == 'higher' else '<='} {claim.threshold:g}"


def _spreads(claims: Sequence[Comparison]) -> list[str]:
    out = []
    for metric in dict.fromkeys(claim.metric for claim in claims):
        seen = [claim for claim in claims if claim.metric == metric and claim.ratio is not None]
        if seen:
            between = _range([c.between for c in seen if c.between is not None])
            within = _range([c.within for c in seen if c.within is not None])
            launches = " and ".join(sorted({"{}/{}".format(*claim.launches) for claim in seen}))
            out.append(
                f"{metric}: {launches} launches, spread between them {between}, error within one {within}"
            )
    return out


def _range(spreads: Sequence[float]) -> str:
    if not spreads:
        return "not measured"
    low, high = min(spreads), max(spreads)
    return f"{low:.1%}" if len(spreads) == 1 else f"{low:.1%} to {high:.1%}"


def _why(verdict: Verdict) -> str:
    return {
        "PASS": ": every interval is on the good side of its limit",
        "FAIL": ": at least one interval is wholly beyond its limit",
        "INCONCLUSIVE": ": the evidence does not decide; more launches (repeats, restart: true) narrow it",
    }[verdict]
