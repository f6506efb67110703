"""`servetune load` in the terminal: the verdict first, then latencies on both clocks, then rates."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.metrics import METRICS, compute, enough, needed
from bench.metrics.view import View
from bench.records import complaints
from bench.records.model import Judgement, Run
from bench.result import slo_state
from bench.scenario.slo import Slo
from servetune.report.marks import VALIDITY_COLOUR

SERIES = ("ttft", "tpot", "icl", "e2e", "schedule_lag")
STATISTICS = ("p50", "p90", "p95", "p99", "mean")
BESIDE = ("ttft_sent", "e2e_sent")
RATES = (
    "request_throughput_per_s", "output_token_throughput_per_s", "goodput_per_s", "error_rate",
    "censored_share",
)  # fmt: skip


def show_load(run: Run, judgement: Judgement, slos: tuple[Slo, ...]) -> None:
    """The measurement on stdout; a percentile below its floor of samples shows the number it needs."""

    console, view = Console(), View(run, slos)
    metrics, lacking = compute(run, slos=slos), needed(run)
    colour = VALIDITY_COLOUR[judgement.verdict]
    console.print(f"verdict: [bold {colour}]{judgement.verdict}[/]")
    for reason in judgement.reasons:
        console.print(
            f"  [{VALIDITY_COLOUR[reason.verdict]}]{reason.verdict}[/] {escape(reason.text)}", highlight=False
        )
        console.print(f"      {escape(reason.remedy)}", style="dim", highlight=False)
    _failed(console, run)
    table = Table("ms", *STATISTICS, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    open_loop = run.point.load.arrivals != "closed"
    for series in (*SERIES, *(BESIDE if open_loop else ())):
        names = [f"{series}_{statistic}_ms" for statistic in STATISTICS]
        if any(name in metrics for name in names):
            table.add_row(series.replace("_", " "), *(_cell(metrics.get(n), lacking.get(n)) for n in names))
    console.print(table)
    asked, usage = metrics.get("input_tokens_asked_mean"), metrics.get("input_tokens_mean")
    if asked is not None:
        said = "not told by the server" if usage is None else f"{usage:.4g} by the server's usage"
        console.print(f"input tokens a request: {asked:.4g} asked, {said}", highlight=False)
    for name in RATES:
        if metrics.get(name) is not None:
            console.print(f"{name}: {metrics[name]:.4g}  ({escape(METRICS[name].doc)})", highlight=False)
    for slo in slos:
        state = slo_state(slo, metrics)
        why = enough.lacking(view).get(slo.name, "nothing was measured")
        shown = f"undetermined: {why}" if state == "unknown" else state
        console.print(f"SLO {slo}: {shown}", highlight=False)
    for note in (*run.notes, *complaints.heard(run)):
        console.print(f"note: {escape(note)}", style="dim", highlight=False)


def _failed(console: Console, run: Run) -> None:
    """Every kind of failure with its count, the server's words and what to type."""

    groups = complaints.of_run(run)
    if not groups:
        return
    count = sum(group.count for group in groups)
    console.print(f"failed: {count} of {len(run.records)} requests", highlight=False)
    for group in groups:
        console.print(f"  [red]{group.count} × {group.name}[/]: {escape(group.said)}", highlight=False)
        console.print(f"      {escape(group.hint)}", style="dim", highlight=False)


def _cell(value: float | None, lacking: int | None) -> str:
    if value is None:
        return f"n<{lacking}" if lacking else "-"
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"
