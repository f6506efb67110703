"""Expected: device seconds that a study's finals ask beside their rounds, at the pace of a full look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.plan.planning import Launch
from bench.plan.target import place
from bench.point import Point
from search.finals import stress
from search.objective import job_of
from search.result import Settings, TrialResult

if TYPE_CHECKING:
    from search.engine_evaluator import EngineEvaluator


def certificate_s(oracle: EngineEvaluator, full: TrialResult) -> float:
    """Of one finalist: the held-out items, at the pace at which `full` was asked the screening ones."""
    launch = Launch("finals", oracle.config(full.config), tuple(_points(oracle, full)))
    screened = sum(one.estimated_s for one in oracle.plan(launch, "full").evaluations)
    held_out = sum(one.estimated_s for one in oracle.plan(launch, "confirm").evaluations)
    took = full.seconds.get("accuracy", 0.0)
    return held_out * (took / screened if took and screened else 1.0)


def stress_s(oracle: EngineEvaluator, full: TrialResult) -> float:
    """One launch with every other load; a full look has measured its short one too."""
    asked = conditions(oracle, full.config, full)
    if not asked:
        return 0.0
    share = oracle.scenario.search.screen_share
    looks = max(1, len(oracle.loads())) * (1 + (share if share < 1 else 0.0))
    each = (full.seconds.get("warmup", 0.0) + full.seconds.get("measure", 0.0)) / looks
    known = [point.load.duration_s for points in asked.values() for point in points]
    return full.seconds.get("launch", 0.0) + sum(each if one is None else max(each, one) for one in known)


def conditions(
    oracle: EngineEvaluator, settings: Settings, like: TrialResult
) -> dict[str, tuple[Point, ...]]:
    """What is tried beside the loads that counted in `like`; empty where the scenario wants none."""
    if not oracle.scenario.search.robust:
        return {}
    config = oracle.config(settings)
    _, shape = place(config, oracle.target)
    longest = config.max_model_len or (shape.context if shape else None)
    counted = {job_of(p.load): p.load for p in reversed(_points(oracle, like))}
    return stress.points(oracle.scenario, config, list(counted.values())[::-1], longest)


def _points(oracle: EngineEvaluator, look: TrialResult) -> list[Point]:
    return [oracle.folder.run(key).point for key in look.points]
