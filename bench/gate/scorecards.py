"""CLASS scorecards of a run: every configuration that was evaluated, against the run's own baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.accuracy.evaluation import Evaluation
from bench.accuracy.scorecard import by_part
from bench.accuracy.settings import Accuracy
from bench.accuracy.verdict import Floor, floor_of
from bench.compare.comparison import MARGIN
from bench.evaluation import store
from bench.gate.judge import Side, judge
from bench.records.folder import RunFolder
from bench.records.model import Run
from bench.scenario.model import Scenario
from serving.claims import Claim, Part, Verdict, missing, overall
from serving.config import ServingConfig


@dataclass(frozen=True)
class Scorecard:
    """One configuration. `floor` decides what a report ranks: only what was asked about outputs.

    `claims` are all five parts, for reading, in `page` (a file beside the run). Of the baseline itself
    `floor` is None and `claims` are its second evaluation against its first.
    """

    config: ServingConfig
    floor: Floor | None
    claims: tuple[Claim, ...]
    page: Path
    evaluations: tuple[Evaluation, ...] = ()

    @property
    def parts(self) -> dict[Part, Verdict]:
        return {part: overall(claims) for part, claims in by_part(self.claims).items()}

    def scores(self) -> dict[str, float | None]:
        """Mean score of each task that was asked, between 0 and 1."""
        return {t.name: t.mean for t in self.evaluations[0].tasks.values()} if self.evaluations else {}


def scorecards(run: RunFolder, scenario: Scenario) -> list[Scorecard]:
    """The baseline's first, then each configuration as it was measured; empty without `accuracy:`."""
    settings, baseline = scenario.accuracy, baseline_key(run)
    if settings is None or baseline is None:
        return []
    grouped: dict[str, list[Run]] = {}
    for one in run.runs():
        grouped.setdefault(one.point.config.key, []).append(one)
    sides = {
        key: Side(of[0].point.config.label, run.path, tuple(of), scenario, tuple(store.evaluations(run, key)))
        for key, of in grouped.items()
    }
    order = sorted(sides, key=lambda key: key != baseline)
    return [_scorecard(run, key, sides, baseline, settings) for key in order]


def baseline_key(run: RunFolder) -> str | None:
    """Config key of what a run's configurations are held against, from its manifest."""
    accuracy = (run.manifest.get("plan") or {}).get("accuracy") or {}
    found: str | None = accuracy.get("baseline")
    return found


def floors(cards: Sequence[Scorecard]) -> dict[str, Floor]:
    """What the floor says, by config key; the baseline has no entry."""
    return {one.config.key: one.floor for one in cards if one.floor is not None}


def _scorecard(
    run: RunFolder, key: str, sides: Mapping[str, Side], baseline: str, settings: Accuracy
) -> Scorecard:
    side, base = sides[key], sides.get(baseline)
    config, page = side.runs[0].point.config, run.path / "accuracy" / f"{key}.html"
    if key == baseline:
        again = side.evaluations[1:2]
        own = floor_of(again[0], side.evaluations[0], settings).claims if again else ()
        return Scorecard(config, None, own, page, side.evaluations)
    if base is None or not base.evaluations or not side.evaluations:
        whose = "it" if not side.evaluations else "the baseline"
        why = store.missing(run, key if not side.evaluations else baseline) or "not yet"
        gone = (missing("Accuracy", "accuracy", f"{whose} was not evaluated: {why}"),)
        floor = Floor("INCONCLUSIVE", gone, settings.floor, settings.confidence)
        return Scorecard(config, floor, gone, page, side.evaluations)
    mine, theirs = store.pair(run, key, baseline)
    side, base = replace(side, evaluations=tuple(mine)), replace(base, evaluations=tuple(theirs))
    second = theirs[1] if len(theirs) > 1 else None
    floor = floor_of(side.evaluations[0], base.evaluations[0], settings, again=second)
    found = tuple(judge(side, base, settings, MARGIN))
    return Scorecard(config, floor, found, page, side.evaluations)


def as_json(cards: Sequence[Scorecard]) -> list[dict[str, Any]]:
    """`[{config, settings, baseline, scores{}, parts{}, floor{verdict, worst, ...}}]`."""
    return [
        {
            "config": one.config.key,
            "settings": one.config.settings,
            "baseline": one.floor is None,
            "scores": one.scores(),
            "parts": one.parts,
            "floor": one.floor.as_json() if one.floor else None,
        }
        for one in cards
    ]
