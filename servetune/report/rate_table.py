"""A capacity in the terminal: the answer first, then the rates that led to it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from bench.findrate.capacity import Capacity, RateProbe
from bench.findrate.slotest import Evidence

COLOURS = {"meets": "green", "breaks": "red", "undecided": "yellow"}


def show_rates(found: Capacity, console: Console | None = None) -> None:
    """The answer and its probes, lowest rate first."""
    console = console or Console()
    table = Table("requests/s", "decision", "requests", "over limit", "binding SLO", "seen", "time", box=None,
                  pad_edge=False)  # fmt: skip
    for probe in found.probes:
        table.add_row(*_row(probe))
    console.print(table)
    console.print()
    console.print(f"[bold]{sentence(found)}[/]", highlight=False)
    for reason in found.reasons:
        console.print(f"  {reason}", highlight=False, markup=False)


def sentence(found: Capacity) -> str:
    """The answer in one line."""
    low, high = found.interval
    slos = ", ".join(str(slo) for slo in found.slos)
    sent = f"{found.verdict}, {sum(p.requests for p in found.probes):,} requests in {found.total_s:.0f} s"
    if low is None and high is None:
        return f"no rate could be decided for {slos}: {sent}"
    if low is None:
        span = f"below {high:.4g}"
    elif high is None:
        span = f"{low:.4g} or more"
    else:
        span = f"{low:.4g} to {high:.4g}"
    likely = "" if found.estimate_per_s is None else f", most likely {found.estimate_per_s:.4g}"
    return f"capacity {span} requests/s{likely} at {slos}: {sent}"


def line(probe: RateProbe) -> str:
    """One probe as a line of progress."""
    return (
        f"{probe.rate_per_s:.4g}/s {probe.decision}: {probe.over_limit:,} of {probe.requests:,} requests "
        f"over the limit, {probe.seconds:.0f} s"
    )


def _row(probe: RateProbe) -> tuple[str, ...]:
    worst = max(probe.evidence, key=lambda e: e.lean)
    colour = COLOURS[probe.decision]
    decision = f"[{colour}]{probe.decision}[/]" + (" (queue grows)" if probe.overloaded else "")
    return (
        f"{probe.rate_per_s:.4g}", decision, f"{probe.requests:,}", f"{probe.over_limit:,}", str(worst.slo),
        _seen(worst), f"{probe.seconds:.0f} s",
    )  # fmt: skip


def _seen(worst: Evidence) -> str:
    """The mean, or the share over the limit, as it was measured."""
    return f"{worst.estimate:.0f} ms" if worst.slo.statistic == "mean" else f"{worst.estimate:.2%} over"
