"""A run in the terminal: the answer first, then every candidate, failures, and what to type next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bench.gate.scorecards import Scorecard
from bench.metrics import METRICS
from bench.result import PointResult
from bench.scenario.model import Scenario
from servetune.report import accuracy_table, failed, labels
from servetune.report.best import Best, answers
from servetune.report.marks import RANK_COLOUR, RANK_MARK
from servetune.report.ranking import Candidate, Job, push, tally

MOST_ROWS = 20


@dataclass(frozen=True)
class Column:
    """One number of the table: METRICS name, heading of two lines, least terminal width that shows it."""

    metric: str
    heading: str
    from_width: int = 0


def show_run(
    scenario: Scenario,
    outcomes: Sequence[PointResult],
    jobs: Sequence[Job],
    path: Path,
    console: Console | None = None,
    cards: Sequence[Scorecard] = (),
) -> None:
    """Prints the run on stdout; readable from 80 columns on, wider terminals get more figures."""
    out = console or Console(highlight=False)
    _simulated(out, outcomes)
    out.print(f"[bold]{escape(scenario.name)}[/]: {escape(scenario.question)}")
    out.print(_tally(outcomes, jobs))
    names = labels.varying([o.run.point.config for o in outcomes])
    for answer in answers(jobs, names):
        out.print()
        _answer(out, answer)
        out.print(_table(answer.job, names, outcomes, out.width))
        rest = len(answer.job.candidates) - MOST_ROWS
        if rest > 0:
            out.print(f"... and {rest} more in summary.csv and report.html", style="dim")
    if scenario.accuracy is not None:
        accuracy_table.show_accuracy(out, cards, scenario.accuracy, names, path)
    _failures(out, outcomes, names)
    failed.show_failures(out, outcomes)
    _next(out, outcomes, jobs, path)
    if cards:
        key = next((c.config.key for c in cards if c.floor is not None), "KEY")
        out.print(f"  servetune gate {path}@{key[:6]} {path}    one scorecard")


def _simulated(out: Console, outcomes: Sequence[PointResult]) -> None:
    count = sum(o.run.simulated for o in outcomes)
    if count:
        whole = count == len(outcomes)
        which = "every figure here comes" if whole else f"{count} of {len(outcomes)} points come"
        banner = Table.grid(padding=(0, 1))
        banner.add_row(
            Text(" SIMULATED ", style="bold reverse"),
            f"{which} from a model of an engine, not from hardware; nothing simulated may be deployed",
        )
        out.print(banner)


def _tally(outcomes: Sequence[PointResult], jobs: Sequence[Job]) -> str:
    if not outcomes:
        return "no point is finished yet"
    counted = tally(jobs)
    candidates = sum(count for _, count in counted)
    repeated = "" if candidates == len(outcomes) else f" of {candidates} candidates"
    marks = "  ".join(f"{RANK_MARK[standing]} {count}" for standing, count in counted)
    return f"{len(outcomes)} points{repeated}: {marks}"


def _answer(out: Console, answer: Best) -> None:
    out.print(f"[bold]{escape(answer.job.name)}[/]  {escape(answer.headline)}")
    for line in answer.against:
        out.print(Padding(Text(line, style="dim"), (0, 0, 0, 2)))
    for line in answer.caveats:
        out.print(Padding(Text(line, style="yellow"), (0, 0, 0, 2)))


def _table(job: Job, names: Sequence[str], outcomes: Sequence[PointResult], width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", expand=False)
    table.add_column("#", justify="right")
    table.add_column("verdict", no_wrap=True)
    table.add_column("settings", overflow="fold", ratio=1, min_width=16)
    table.add_column("load", no_wrap=True)
    columns = [c for c in columns_for(job, outcomes) if width >= c.from_width]
    for column in columns:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for candidate in job.candidates[:MOST_ROWS]:
        unranked = RANK_COLOUR[candidate.standing] if candidate.rank is None else ""
        style = "bold" if candidate.rank == 1 else unranked
        table.add_row(
            str(candidate.rank or ""),
            f"[{RANK_COLOUR[candidate.standing]}]{RANK_MARK[candidate.standing]}[/]",
            escape(labels.config_text(candidate.config, names)),
            escape(push(candidate.load)),
            *(_cell(candidate, column.metric) for column in columns),
            style=style,
        )
    return table


def _cell(candidate: Candidate, metric: str) -> str:
    return labels.candidate_figure(candidate, metric, METRICS[metric].unit)


def columns_for(job: Job, outcomes: Sequence[PointResult]) -> list[Column]:
    """The figures of a job's table: what it is ranked by, speed, latency at a percentile it can print."""
    ttft, tpot = (_percentile(series, job, outcomes) for series in ("ttft", "tpot"))
    columns = [
        Column("output_token_throughput_per_s", "output\ntokens/s"),
        Column(f"ttft_{ttft}_ms", f"TTFT\n{ttft} ms"),
        Column(f"tpot_{tpot}_ms", f"TPOT\n{tpot} ms", 88),
        Column("memory_peak_bytes", "memory\nGiB", 96),
    ]
    if job.objective.currency:
        columns.append(Column(job.objective.metric, f"{job.objective.currency}/M\ngood tok"))
    return columns


def _percentile(series: str, job: Job, outcomes: Sequence[PointResult]) -> str:
    """That of the SLO on this latency; else the highest that most of the candidates have samples for."""
    for slo, _ in outcomes[0].slos if outcomes else ():
        if slo.metric == series and slo.statistic:
            return slo.statistic
    measured = [c for c in job.candidates if c.standing != "failed"]

    def common(name: str) -> bool:
        return 2 * sum(c.value(f"{series}_{name}_ms") is not None for c in measured) > len(measured)

    return next((name for name in ("p99", "p95", "p90") if common(name)), "p50")


def _failures(out: Console, outcomes: Sequence[PointResult], names: Sequence[str]) -> None:
    grouped: dict[tuple[str, str, str, str], int] = {}
    for o in outcomes:
        if o.run.failure:
            f = o.run.failure
            settings = labels.config_text(o.run.point.config, names)
            grouped[f.kind, settings, f.detail, f.hint] = (
                grouped.get((f.kind, settings, f.detail, f.hint), 0) + 1
            )
    if not grouped:
        return
    out.print(f"\n[bold]failures[/] ({sum(grouped.values())} points; their logs are in report.html)")
    for (kind, settings, detail, hint), count in grouped.items():
        many = f" ({count} points)" if count > 1 else ""
        line = Text.assemble(("! " + kind, "red"), f" {settings}{many}: {detail}")
        out.print(Padding(line, (0, 0, 0, 2)))
        if hint:
            out.print(Padding(Text(f"hint: {hint}", style="dim"), (0, 0, 0, 4)))


def _next(out: Console, outcomes: Sequence[PointResult], jobs: Sequence[Job], path: Path) -> None:
    """One or two commands that make sense after this run."""
    out.print("\n[bold]next[/]")
    out.print(f"  open {path / 'report.html'}")
    if not outcomes:
        out.print("  servetune bench SCENARIO --resume    measures the points that are missing")
        return
    if not any(job.best for job in jobs):
        out.print("  no point may be believed yet: each row of report.html says why, and the remedy")
    elif all(o.run.point.repeat == 0 for o in outcomes):
        out.print("  repeat what is close (repeats: {count: 3, restart: true} in the scenario)")
    out.print(f"  servetune compare {path} OTHER_RUN    is a change an improvement?")
