"""Expected: device seconds that the finals ask beside their rounds, at the pace of a full trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.plan.evaluations import Evaluating
from bench.plan.target import Target, place
from bench.point import Point
from search.finals import stress
from search.objective import job_of
from search.result import TrialResult
from serving.config import ServingConfig

if TYPE_CHECKING:
    from bench.scenario.model import Scenario


def certificate_s(
    full: TrialResult, screening: Sequence[Evaluating], held_out: Sequence[Evaluating]
) -> float:
    """Of one finalist: the held-out items, at the pace at which `full` was asked the screening ones."""
    screened = sum(one.estimated_s for one in screening)
    took = full.seconds.get("accuracy", 0.0)
    return sum(one.estimated_s for one in held_out) * (took / screened if took and screened else 1.0)


def stress_s(
    full: TrialResult, asked: Mapping[str, Sequence[Point]], loads: int, screen_share: float
) -> float:
    """One launch with every condition of `asked`; a full trial of `loads` has measured its short ones too."""
    if not asked:
        return 0.0
    looks = max(1, loads) * (1 + (screen_share if screen_share < 1 else 0.0))
    each = (full.seconds.get("warmup", 0.0) + full.seconds.get("measure", 0.0)) / looks
    known = [point.load.duration_s for points in asked.values() for point in points]
    return full.seconds.get("launch", 0.0) + sum(each if one is None else max(each, one) for one in known)


def conditions(
    scenario: Scenario, target: Target, config: ServingConfig, measured: Sequence[Point]
) -> dict[str, tuple[Point, ...]]:
    """What is tried beside the loads that counted in `measured`; empty where the scenario wants none."""
    if not scenario.search.robust:
        return {}
    _, shape = place(config, target)
    longest = config.max_model_len or (shape.context if shape else None)
    counted = {job_of(point.load): point.load for point in reversed(measured)}
    return stress.points(scenario, config, list(counted.values())[::-1], longest)
