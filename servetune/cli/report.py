"""`servetune report RUN`: a stored run as a table, a page and a tidy summary. Measures nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bench.records.folder import RunFolder
    from bench.result import PointResult


def report(
    run: Annotated[Path, typer.Argument(help="A folder under results/.", show_default=False)],
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write the data as JSON to a file, or -.")
    ] = None,
) -> int:
    """A run as a table here, and as report.html, summary.csv and summary.parquet in its folder."""
    from bench.records.folder import RunFolder

    return show_folder(RunFolder.open(run), json)


def show_folder(folder: RunFolder, json: str | None) -> int:
    """Table on stdout (JSON instead with `-`), files beside the run, their paths on stderr.

    Exit status 0; 1 when not one point may be believed.
    """
    from bench import summary
    from bench.gate import scorecards
    from bench.result import outcomes
    from bench.scenario import scenariofile
    from servetune.cli.json_output import write_json
    from servetune.report import page, scorecard_page, terminal
    from servetune.report.ranking import jobs

    scenario = scenariofile.load(folder.path / "scenario.yaml")
    found = list(outcomes(folder, scenario))
    cards = scorecards.scorecards(folder, scenario) if scenario.accuracy else []
    ranked = jobs(found, scorecards.floors(cards))
    written = [*summary.write(folder, found, cards), page.write(folder, scenario, found, ranked, cards)]
    written += scorecard_page.write_all(cards, scenario.accuracy) if scenario.accuracy else []
    for path in written:
        print(f"wrote {path}", file=sys.stderr)
    if json:
        data = as_json(folder.path, found)
        write_json({**data, "accuracy": scorecards.as_json(cards)} if cards else data, json)
    if json != "-":
        terminal.show_run(scenario, found, ranked, folder.path, cards=cards)
    return 0 if any(o.judgement.verdict != "invalid" for o in found) else 1


def as_json(path: Path, found: Sequence[PointResult]) -> dict[str, Any]:
    """`{run, points[{key, engine, settings, load, verdict, reasons, failure, errors, metrics, ...}]}`."""
    return {"run": str(path), "points": [_point(o) for o in found]}


def _point(o: PointResult) -> dict[str, Any]:
    from bench.records import complaints

    run, failure = o.run, o.run.failure
    return {
        "key": o.key,
        "engine": run.point.config.engine,
        "engine_version": run.engine_version,
        "simulated": run.simulated,
        "settings": run.point.config.settings,
        "load": {name: value for name, value in vars(run.point.load).items() if value is not None},
        "repeat": run.point.repeat,
        "launch": run.launch,
        "verdict": o.judgement.verdict,
        "reasons": [{"check": r.check, "verdict": r.verdict, "text": r.text, "remedy": r.remedy}
                    for r in o.judgement.reasons],
        "slos": [{"slo": str(slo), "state": state, "undetermined": o.why_unknown(slo) or None}
                 for slo, state in o.slos],
        "failure": {"kind": failure.kind.value, "detail": failure.detail, "hint": failure.hint}
        if failure else None,
        "errors": complaints.as_json(o.failed),
        "notes": [*run.notes, *o.heard],
        "metrics": dict(o.metrics),
        "too_few_samples": dict(o.needed),
        "currency": o.currency,
    }  # fmt: skip
