"""`servetune gate CANDIDATE BASELINE`: Cost, Latency, Accuracy, Security and Stability side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.errors import UserError

if TYPE_CHECKING:
    from bench.accuracy.claims import Claim, Part
    from bench.accuracy.result import Evaluation
    from bench.accuracy.settings import Accuracy
    from bench.plan.scenario import Scenario
    from bench.records import Run

COST = ("cost_per_million_output_tokens",)
LATENCY = ("ttft_p50_ms", "tpot_p50_ms")
SIDE = "Run folder, RUN@KEY (a configuration or a point of it), or folder of one evaluation."


@dataclass(frozen=True)
class Side:
    """One side of the gate: measured runs of one configuration and its evaluations, where there are any."""

    label: str
    folder: Path
    runs: tuple[Run, ...] = ()
    scenario: Scenario | None = None
    evaluations: tuple[Evaluation, ...] = ()


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

    from bench.accuracy import card, result
    from bench.accuracy.claims import EXIT, overall
    from bench.compare.command import share
    from bench.output import write_json

    sides = held_out(side(candidate), side(baseline, of_baseline=True))
    settings = _settings(sides[1], sides[0], floor)
    second = result.load(again) if again else None
    found = judge(*sides, settings, share(margin), second)
    found = _chosen(found, only)
    page = html or sides[0].folder / "gate.html"
    card.write(page, found, sides[0].label, sides[1].label, settings)
    print(f"wrote {page}", file=sys.stderr)
    if json:
        write_json(as_json(found), json)
    if json != "-":
        card.show(found, sides[0].label, sides[1].label)
    return EXIT[overall(found)]


def held_out(candidate: Side, baseline: Side) -> tuple[Side, Side]:
    """Two configurations of one study are held against each other on the items that no trial has seen."""
    from bench.accuracy import store
    from bench.results import RunFolder

    if candidate.folder != baseline.folder or not candidate.runs or not baseline.runs:
        return candidate, baseline
    keys = [one.runs[0].point.config.key for one in (candidate, baseline)]
    mine, theirs = store.pair(RunFolder.open(candidate.folder), keys[0], keys[1])
    return replace(candidate, evaluations=tuple(mine)), replace(baseline, evaluations=tuple(theirs))


def judge(
    candidate: Side, baseline: Side, settings: Accuracy, margin: float, again: Evaluation | None = None
) -> list[Claim]:
    """Every claim of the scorecard, parts in their order. What was not measured is INCONCLUSIVE."""
    from bench.accuracy import scorecard
    from bench.accuracy.claims import PARTS, missing
    from bench.accuracy.verdict import floor_of

    found = [*_measured(candidate, baseline, margin)]
    if candidate.evaluations and baseline.evaluations:
        second = again or (baseline.evaluations[1] if len(baseline.evaluations) > 1 else None)
        if candidate.runs and candidate.evaluations[0].folder == baseline.evaluations[0].folder:
            found += floor_of(candidate.evaluations[0], baseline.evaluations[0], settings).claims
        else:
            found += scorecard.claims(candidate.evaluations[0], baseline.evaluations[0], settings, second)
    have = {claim.part for claim in found if claim.counts}
    whose = [s.label for s in (candidate, baseline) if not s.evaluations]
    for part in PARTS:
        if part not in have:
            why = f"{' and '.join(whose)} not evaluated" if whose else f"no {part.lower()} task was asked"
            found.append(missing(part, part.lower(), f"not measured: {why}"))
    return sorted(found, key=lambda claim: PARTS.index(claim.part))


def _measured(candidate: Side, baseline: Side, margin: float) -> list[Claim]:
    """Cost and latency from the measured runs, as ratios candidate / baseline."""
    from bench.accuracy.claims import Claim, missing
    from bench.compare.comparison import compare_all
    from bench.plan.price import price_for

    empty = [s.label for s in (candidate, baseline) if not s.runs]
    if empty:
        why = f"{' and '.join(empty)}: an evaluation without a measured run"
        return [missing("Cost", "cost", why), missing("Latency", "latency", why)]
    prices = {
        id(run): price_for(s.scenario, run.point.config)
        for s in (candidate, baseline)
        if s.scenario
        for run in s.runs
    }
    slos = baseline.scenario.slos if baseline.scenario else ()
    compared, left = compare_all(
        baseline.runs,
        candidate.runs,
        (*COST, *LATENCY),
        margin,
        slos=slos,
        price=lambda run: prices.get(id(run)),
    )
    found = []
    for label, one in compared:
        part: Part = "Cost" if one.metric in COST else "Latency"
        name = one.metric if label == "all" else f"{one.metric} ({label})"
        interval = (one.interval.low, one.interval.high) if one.interval else None
        notes = "; ".join(one.notes)
        found.append(Claim(part, name, one.verdict, one.ratio, interval, one.threshold, "ratio", note=notes))
    if not found:
        why = "; ".join(left) or "no point in common"
        found = [missing("Cost", "cost", why), missing("Latency", "latency", why)]
    return found


def side(text: str, *, of_baseline: bool = False) -> Side:
    """What `text` names: a run folder, RUN@CONFIG, RUN@POINT, a folder under points/, or an evaluation.

    `of_baseline`: a run of several configurations means the one its scenario has as baseline. UserError
    when nothing fits, or the configuration is not singled out.
    """
    from bench.accuracy import result, store
    from bench.plan import scenariofile
    from bench.results import RunFolder
    from bench.scorecards import baseline_key

    path, _, wanted = text.partition("@") if not Path(text).exists() else (text, "", "")
    folder = Path(path)
    if folder.parent.name == "points":
        folder, wanted = folder.parent.parent, folder.name
    if (folder / "evaluation.json").is_file():
        return Side(folder.name, folder, evaluations=(result.load(folder),))
    run = RunFolder.open(folder)
    runs = run.runs()
    if wanted:
        named = [r for r in runs if r.point.key.startswith(wanted)]
        runs = named or [r for r in runs if r.point.config.key.startswith(wanted)]
    configs = {r.point.config.key: r.point.config for r in run.runs()}
    fitting = {r.point.config.key: r.point.config for r in runs}
    if not wanted and of_baseline and baseline_key(run) in fitting:
        fitting = {key: config for key, config in fitting.items() if key == baseline_key(run)}
    if len(fitting) != 1:
        which = "; ".join(f"{folder}@{key[:6]} {config.label}" for key, config in configs.items())
        cause = f"no configuration {wanted!r}" if not fitting else f"{len(fitting)} configurations"
        raise UserError(f"{folder} has {cause}", f"name one: {which}" if which else "the run has no points")
    ((key, config),) = fitting.items()
    scenario = scenariofile.load(folder / "scenario.yaml")
    return Side(
        f"{folder.name}@{key[:6]} ({config.label})" if len(configs) > 1 else folder.name,
        folder,
        tuple(r for r in runs if r.point.config.key == key),
        scenario,
        tuple(store.evaluations(run, key)),
    )


def as_json(found: Sequence[Claim]) -> dict[str, Any]:
    """`{verdict, parts{}, claims[{name, verdict, effect, interval, threshold, ...}]}`."""
    from bench.accuracy.claims import overall
    from bench.accuracy.scorecard import by_part

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


def _chosen(found: list[Claim], only: Sequence[str] | None) -> list[Claim]:
    from bench.accuracy.claims import PARTS

    wanted = {part.capitalize() for part in only or PARTS}
    unknown = wanted - set(PARTS)
    if unknown:
        raise UserError(f"no part {sorted(unknown)[0]!r}", f"one of {', '.join(PARTS)}")
    return [claim for claim in found if claim.part in wanted]
