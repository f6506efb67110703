"""`servetune compare A B`: two run folders, the ratio of their numbers, a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.errors import UserError

if TYPE_CHECKING:
    from bench.compare.comparison import Comparison

DEFAULT_METRICS = ("output_token_throughput_per_s", "ttft_p50_ms", "tpot_p50_ms")


def compare_command(
    a: Annotated[Path, typer.Argument(help="Run folder of the baseline.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Run folder held against it.", show_default=False)],
    metric: Annotated[
        list[str] | None,
        typer.Option(help=f"Metric to test; repeatable. Default: {', '.join(DEFAULT_METRICS)}."),
    ] = None,
    margin: Annotated[str, typer.Option(help="How much worse B may be.")] = "5%",
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write the data as JSON to a file, or -.")
    ] = None,
) -> int:
    """Is run B as good as run A? Ratio with interval, PASS, FAIL or INCONCLUSIVE (exit 0, 1, 3)."""
    from difflib import get_close_matches

    from bench.compare.comparison import compare_all
    from bench.metrics import METRICS
    from bench.records.folder import RunFolder
    from bench.scenario import scenariofile
    from bench.scenario.price import price_for
    from servetune.cli.json_output import write_json
    from servetune.report.compare_table import show_comparison
    from serving.claims import EXIT, combined

    metrics = list(metric or DEFAULT_METRICS)
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        near = get_close_matches(unknown[0], METRICS, 3) or list(METRICS)[:3]
        raise UserError(f"no metric {unknown[0]!r}", f"one like {', '.join(near)}; METHODOLOGY.md lists all")
    folders = (RunFolder.open(a), RunFolder.open(b))
    scenarios = [scenariofile.load(folder.path / "scenario.yaml") for folder in folders]
    runs = [folder.runs() for folder in folders]
    of_run = {
        id(run): price_for(s, run.point.config) for s, rs in zip(scenarios, runs, strict=True) for run in rs
    }
    claims, left = compare_all(
        runs[0], runs[1], metrics, share(margin), slos=scenarios[1].slos, price=lambda run: of_run[id(run)]
    )
    if not claims:
        raise UserError(f"{a} and {b} have no point in common", "; ".join(left) or "both are empty")
    if json:
        write_json(as_json(claims, left), json)
    if json != "-":
        show_comparison(claims, left)
    return EXIT[combined(claim.verdict for _, claim in claims)]


def as_json(claims: Sequence[tuple[str, Comparison]], left: Sequence[str]) -> dict[str, Any]:
    """`{verdict, claims[{name, verdict, effect, interval, threshold, ...}], not_compared[]}`."""
    from serving.claims import combined

    return {
        "verdict": combined(claim.verdict for _, claim in claims),
        "claims": [
            {
                "name": f"{label}: {claim.metric}",
                "verdict": claim.verdict,
                "effect": claim.ratio,
                "interval": None if claim.interval is None else [claim.interval.low, claim.interval.high],
                "threshold": claim.threshold,
                "different": claim.different,
                "launches": claim.launches,
                "spread_between_launches": claim.between,
                "spread_within_launch": claim.within,
                "notes": claim.notes,
            }
            for label, claim in claims
        ],
        "not_compared": left,
    }


def share(text: str) -> float:
    """`5%` or `0.05` as 0.05. UserError for anything that is not a share from 0 to 1."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise UserError(f"--margin {text!r} is not a share", "write it like 5% or 0.05")
    return value
