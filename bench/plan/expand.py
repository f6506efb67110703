"""Scenario -> every combination: the points to measure, in a stable order, and those a rule drops."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.point import Load, Point, label, seed_of
from bench.scenario.model import EngineGrid, Scenario, Workload
from bench.scenario.rules import matches
from bench.scenario.scenariofile import quantity
from serving.config import Device, ServingConfig

WORKLOAD_AXES = ("input_tokens", "output_tokens", "concurrency", "rate_per_s")


@dataclass(frozen=True, slots=True)
class Dropped:
    """A combination that is not measured: its short name, why, and how many points that costs."""

    label: str
    reason: str
    points: int = 1


def expand(scenario: Scenario, device: Device) -> tuple[list[Point], list[Dropped]]:
    """Every point of the grid (configs outermost, repeats innermost), and what the rules drop."""
    points: list[Point] = []
    dropped: list[Dropped] = []
    loads = [load for work in scenario.workloads for load in loads_of(work)]
    for config in configs(scenario, device):
        facts = {name: getattr(config, name) for name in ServingConfig.model_fields}
        reason = _dropped_by(scenario, facts)
        if reason is not None:
            dropped.append(Dropped(config.label, reason, len(loads) * scenario.repeats.count))
            continue
        for load in loads:
            reason = _dropped_by(scenario, {**facts, **_facts(load)})
            if reason is not None:
                dropped.append(Dropped(f"{config.label} | {label(load)}", reason, scenario.repeats.count))
                continue
            points += [
                Point(config, load, seed_of(load, scenario.seed, r), r) for r in range(scenario.repeats.count)
            ]
    return points, dropped


def configs(scenario: Scenario, device: Device) -> Iterator[ServingConfig]:
    """Each engine's settings crossed with its grid, once each."""
    seen: set[str] = set()
    for part in scenario.engines:
        for choice in itertools.product(*part.grid.values()):
            config = _config(scenario, part, device, dict(zip(part.grid, choice, strict=True)))
            if config.key not in seen:
                seen.add(config.key)
                yield config


def loads_of(work: Workload) -> Iterator[Load]:
    """Every Load of a workload: its axes crossed."""
    fixed = work.model_dump(exclude={"name", "arrivals", *WORKLOAD_AXES})
    axes = [getattr(work, axis) or (None,) for axis in WORKLOAD_AXES]
    for choice in itertools.product(*axes):
        sizes = dict(zip(WORKLOAD_AXES, choice, strict=True))
        yield Load(workload=work.name, arrivals=work.process, **sizes, **fixed)


def _config(scenario: Scenario, part: EngineGrid, device: Device, chosen: dict[str, Any]) -> ServingConfig:
    values = {key: quantity(key, value) for key, value in {**part.settings, **chosen}.items()}
    quantization = values.get("quantization", "none")
    return ServingConfig.model_validate(
        {
            "engine": part.engine,
            "engine_version": part.version,
            "device": device,
            "model": scenario.model.path,
            "revision": scenario.model.revision,
            "tokenizer": scenario.model.tokenizer,
            "checkpoint": scenario.model.checkpoints.get(quantization),
            **values,
        }
    )


def _dropped_by(scenario: Scenario, facts: dict[str, Any]) -> str | None:
    return next((rule.because for rule in scenario.rules if matches(rule.drop, facts)), None)


def _facts(load: Load) -> dict[str, Any]:
    sizes = {axis: getattr(load, axis) for axis in WORKLOAD_AXES}
    return {"workload": load.workload, "arrivals": load.arrivals, **sizes}
