"""`servetune gate CANDIDATE BASELINE`: Cost, Latency, Accuracy, Security and Stability side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bench.accuracy import scorecard
from bench.accuracy.evaluation import Evaluation
from bench.accuracy.settings import Accuracy
from bench.accuracy.verdict import floor_of
from bench.compare.comparison import compare_all
from bench.evaluation import store
from bench.records.folder import RunFolder
from bench.records.model import Run
from bench.scenario.model import Scenario
from bench.scenario.price import price_for
from serving.claims import PARTS, Claim, Part, missing

COST = ("cost_per_million_output_tokens",)
LATENCY = ("ttft_p50_ms", "tpot_p50_ms")


@dataclass(frozen=True)
class Side:
    """One side of the gate: measured runs of one configuration and its evaluations, where there are any."""

    label: str
    folder: Path
    runs: tuple[Run, ...] = ()
    scenario: Scenario | None = None
    evaluations: tuple[Evaluation, ...] = ()


def held_out(candidate: Side, baseline: Side) -> tuple[Side, Side]:
    """Two configurations of one study are held against each other on the items that no trial has seen."""

    if candidate.folder != baseline.folder or not candidate.runs or not baseline.runs:
        return candidate, baseline
    keys = [one.runs[0].point.config.key for one in (candidate, baseline)]
    mine, theirs = store.pair(RunFolder.open(candidate.folder), keys[0], keys[1])
    return replace(candidate, evaluations=tuple(mine)), replace(baseline, evaluations=tuple(theirs))


def judge(
    candidate: Side, baseline: Side, settings: Accuracy, margin: float, again: Evaluation | None = None
) -> list[Claim]:
    """Every claim of the scorecard, parts in their order. What was not measured is INCONCLUSIVE."""

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
        found.append(
            Claim(
                name,
                one.verdict,
                note=notes,
                effect=one.ratio,
                interval=interval,
                threshold=one.threshold,
                part=part,
                unit="ratio",
            )
        )
    if not found:
        why = "; ".join(left) or "no point in common"
        found = [missing("Cost", "cost", why), missing("Latency", "latency", why)]
    return found
