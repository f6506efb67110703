"""Stress: the loads that a winner is tried on beside the one that made it win. All of them on one launch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.plan.expand import loads_of
from bench.point import Load, Point
from serving.config import ServingConfig

if TYPE_CHECKING:
    from bench.scenario.model import Scenario

SWING = 0.2
"""How far push and lengths are moved, up and down."""
OTHER_SEED = 7_919
"""Added to the scenario's seed: prompts and arrivals that no trial has seen."""
SOAK = "soak"


def points(
    scenario: Scenario, config: ServingConfig, loads: Sequence[Load], longest: int | None
) -> dict[str, tuple[Point, ...]]:
    """Condition -> points. `loads`: one of each job, those that counted; `longest`: tokens of a sequence.

    A condition that changes nothing, or does not fit the longest sequence, is left out.
    """
    found: dict[str, tuple[Point, ...]] = {}
    for name, moved in _moves(loads):
        fits = longest is None or all(load.input_tokens + load.output_tokens <= longest for load in moved)
        if fits and moved != tuple(loads):
            found[name] = _at(config, moved, scenario.seed)
    found["other prompts"] = _at(config, loads, scenario.seed + OTHER_SEED)
    for work in scenario.search.holdout:
        found[f"held out: {work.name}"] = _at(config, list(loads_of(work)), scenario.seed)
    if scenario.search.soak_s is not None:
        long = [replace(load, requests=None, duration_s=scenario.search.soak_s) for load in loads]
        found[SOAK] = _at(config, long, scenario.seed)
    return found


def _at(config: ServingConfig, loads: Sequence[Load], seed: int) -> tuple[Point, ...]:
    return tuple(Point(config, load, seed) for load in loads)


def _moves(loads: Sequence[Load]) -> Iterator[tuple[str, tuple[Load, ...]]]:
    for sign, word in ((-1, "less"), (1, "more")):
        yield f"{SWING:.0%} {word} load", tuple(_pushed(load, 1 + sign * SWING) for load in loads)
    for sign, word in ((-1, "shorter"), (1, "longer")):
        yield f"{SWING:.0%} {word} requests", tuple(_sized(load, 1 + sign * SWING) for load in loads)


def _pushed(load: Load, factor: float) -> Load:
    """A closed loop has whole users: away from the middle, by one at the least, and never none."""
    away = math.floor if factor < 1 else math.ceil
    return replace(
        load,
        concurrency=load.concurrency and max(1, away(load.concurrency * factor)),
        rate_per_s=load.rate_per_s and load.rate_per_s * factor,
        ramp_to_per_s=load.ramp_to_per_s and load.ramp_to_per_s * factor,
    )


def _sized(load: Load, factor: float) -> Load:
    """A trace brings its own lengths."""
    if load.trace is not None:
        return load
    least = load.shared_prefix_tokens + 1
    return replace(
        load,
        input_tokens=max(least, round(load.input_tokens * factor)),
        output_tokens=max(1, round(load.output_tokens * factor)),
    )
