"""`servetune gate CANDIDATE BASELINE`: Cost, Latency, Accuracy, Security and Stability side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.gate.sides import SIDE, _chosen, side
from serving.errors import UserError

if TYPE_CHECKING:
    from bench.accuracy.settings import Accuracy
    from serving.claims import Claim
from bench.gate.judge import Side, held_out, judge


def gate_command(
    candidate: Annotated[str, typer.Argument(help=SIDE, show_default=False)],
    baseline: Annotated[str, typer.Argument(help=SIDE, show_default=False)],
    floor: Annotated[
        str | None, typer.Option(help="Accuracy floor, such as 99%. Default: the scenario's, else 99%.")
    ] = None,
    margin: Annotated[str, typer.Option(help="How much worse cost and latency may be.")] = "5%",
    only: Annotated[
        list[str] | None, typer.Option(help="Part to judge (Accuracy, Cost ...); repeatable. Default: all.")
    ] = None,
    again: Annotated[
        Path | None, typer.Option(help="A second evaluation of the baseline, to calibrate the tripwires.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Where the page goes. Default: gate.html in the candidate's folder.")
    ] = None,
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write the data as JSON to a file, or -.")
    ] = None,
) -> int:
    """May CANDIDATE replace BASELINE? Five parts, three verdicts; exit 0 pass, 1 fail, 3 inconclusive."""
    import sys

    from bench.accuracy import evaluation
    from servetune.cli.compare import share
    from servetune.cli.json_output import write_json
    from servetune.report import scorecard_page
    from serving.claims import EXIT, overall

    sides = held_out(side(candidate), side(baseline, of_baseline=True))
    settings = _settings(sides[1], sides[0], floor)
    second = evaluation.load(again) if again else None
    found = judge(*sides, settings, share(margin), second)
    found = _chosen(found, only)
    page = html or sides[0].folder / "gate.html"
    scorecard_page.write(page, found, sides[0].label, sides[1].label, settings)
    print(f"wrote {page}", file=sys.stderr)
    if json:
        write_json(as_json(found), json)
    if json != "-":
        scorecard_page.show_scorecard(found, sides[0].label, sides[1].label)
    return EXIT[overall(found)]


def as_json(found: Sequence[Claim]) -> dict[str, Any]:
    """`{verdict, parts{}, claims[{name, verdict, effect, interval, threshold, ...}]}`."""
    from bench.accuracy.scorecard import by_part
    from serving.claims import overall

    return {
        "verdict": overall(found),
        "parts": {part: overall(claims) for part, claims in by_part(found).items()},
        "claims": [claim.as_json() for claim in found],
    }


def _settings(baseline: Side, candidate: Side, floor: str | None) -> Accuracy:
    """The baseline's scenario, else what the evaluation was made with; `floor` from the command line."""
    from bench.accuracy.settings import Accuracy, floor_share

    kept = getattr(baseline.scenario, "accuracy", None)
    if kept is None:
        made = next((e.settings for s in (baseline, candidate) for e in s.evaluations if e.settings), {})
        kept = Accuracy.model_validate(made)
    found: Accuracy = kept
    if floor is None:
        return found
    try:
        return found.model_copy(update={"floor": floor_share(floor)})
    except ValueError as error:
        raise UserError(f"--floor: {error}", "write it like 99% or 0.99") from error
