"""Scenario -> Plan: the launches in order, the points of each, and what is dropped and why. Starts nothing.

Points that differ only in the client side share one launch. With `repeats.restart` each repeat has its
own launches, and repeats are the outer loop, so that drift hits every config alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from bench.plan import evaluations as planned
from bench.plan.estimate import estimate_s
from bench.plan.evaluations import Evaluating, NotAsked
from bench.plan.expand import Dropped, expand
from bench.plan.feasibility import Feasibility, fits
from bench.plan.target import Target, supposing, target_of
from bench.point import Point, label
from bench.records.model import Run
from bench.scenario.model import Scenario
from bench.scenario.price import check
from serving import devices
from serving.config import Device, ServingConfig, fields_where
from serving.costmodel import support
from serving.engines import engine
from serving.errors import UserError


@dataclass(frozen=True)
class Launch:
    """One server process and the points it serves. `name` is its folder under launches/."""

    name: str
    config: ServingConfig
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Plan:
    """What will run. `memory`: config key -> what the device must hold, where it can be told.

    `baseline`: key of the configuration that the others' accuracy is held against; `evaluations` and
    `not_asked`: what is scored on which launch, and what an engine cannot be asked (`bench.accuracy.tasks`).
    `supposed`: the GPU it is for, where that is not one of this machine. `more`: what a measured point makes
    worth measuring next on the same server.
    """

    scenario: Scenario
    device: Device
    launches: tuple[Launch, ...]
    dropped: tuple[Dropped, ...]
    memory: dict[str, Feasibility]
    estimated_s: float
    baseline: str | None = None
    evaluations: tuple[Evaluating, ...] = ()
    not_asked: tuple[NotAsked, ...] = ()
    supposed: str | None = None
    more: Callable[[Run], Point | None] = lambda run: None

    @property
    def points(self) -> tuple[Point, ...]:
        return tuple(point for launch in self.launches for point in launch.points)


def plan(scenario: Scenario, device: Device | None = None, gpu: str | None = None) -> Plan:
    """The plan on this machine, or with engines and models in place on a `gpu` that need not be here.

    UserError when nothing is left to run, with every reason.
    """
    if gpu is None:
        target = target_of(device or (None if scenario.device == "auto" else scenario.device), scenario.model)
    else:
        target = supposing(gpu, scenario.model)
    supposed = target.hardware.name if target.supposed and target.hardware else None
    points, dropped = expand(scenario, target.device)
    refused: dict[str, str] = {}
    memory: dict[str, Feasibility] = {}
    for config in {p.config.key: p.config for p in points}.values():
        reason, memory[config.key] = _refusal(config, target)
        if reason:
            refused[config.key] = reason
    for config, reason, count in _counted(points, refused):
        dropped.append(Dropped(config.label, reason, count))
    kept = [p for p in points if p.config.key not in refused]
    if not kept:
        raise UserError(
            f"{scenario.file}: nothing is left to run; {_reasons(dropped)}",
            "servetune doctor says what is missing; plan --gpu h200 plans for a GPU that is not here",
        )
    check(scenario, {p.config.key: p.config for p in kept}.values())
    if scenario.accuracy is None:
        launches = tuple(_launches(kept, scenario.repeats.restart))
        took_s = estimate_s(launches, target)
        return Plan(scenario, target.device, launches, tuple(dropped), memory, took_s, supposed=supposed)

    baseline = planned.baseline_of(scenario, (point.config for point in kept))
    # The baseline is served first: what it answers is what stops a bad candidate early.
    kept.sort(key=lambda point: point.config.key != baseline.key)
    launches = tuple(_launches(kept, scenario.repeats.restart))
    asked, refusals = planned.evaluations(scenario, launches, baseline, target)
    took_s = estimate_s(launches, target) + sum(one.estimated_s for one in asked)
    return Plan(
        scenario, target.device, launches, tuple(dropped), memory, took_s,
        baseline.key, tuple(asked), tuple(refusals), supposed,
    )  # fmt: skip


def _reasons(dropped: Sequence[Dropped]) -> str:
    """Each reason once: the one configuration it is about, or how many."""
    of: dict[str, list[str]] = {}
    for drop in dropped:
        of.setdefault(drop.reason, []).append(drop.label)
    parts = [
        f"{labels[0] if len(labels) == 1 else f'{len(labels)} configurations'}: {why}"
        for why, labels in of.items()
    ]
    return "; ".join(parts)


def _refusal(config: ServingConfig, target: Target) -> tuple[str | None, Feasibility]:
    """Why this config is not launched (setting, support, installation, memory), and its memory."""
    feasibility = fits(config, target)
    chosen = engine(config.engine)
    strangers = sorted(set(config.settings) - chosen.honours - COMMON)
    if strangers:
        return f"{config.engine} has no {', '.join(strangers)}", feasibility
    problems = _unsupported(config, target) if target.supposed else chosen.problems(config)
    problems = [*problems, *beside_the_engine(config, target)]
    if problems:
        return "; ".join(problems), feasibility
    return (feasibility.reason if feasibility.verdict == "does_not_fit" else None), feasibility


def beside_the_engine(config: ServingConfig, target: Target) -> list[str]:
    """What no engine can tell: secrets that are not there, more devices than there are cards here."""
    masked = [
        f"{name} is masked here: it is the copy that a run keeps; use the scenario it was made from"
        for name in config.masked
    ]
    return [*masked, *_too_many(config, target)]


def _too_many(config: ServingConfig, target: Target) -> list[str]:
    """More devices than there are cards, where all of them must be here."""
    wanted = devices.count(config)
    starts = config.engine != "endpoint" and not engine(config.engine).simulated
    if not starts or config.attempt or target.cards is None or wanted is None or wanted <= target.cards:
        return []
    if devices.spans_machines(config):
        return []
    found = f"{target.cards} GPU{'s' * (target.cards != 1)}"
    return [f"takes {wanted} GPUs (tensor x pipeline x data parallel), and {found} can be seen here"]


def _unsupported(config: ServingConfig, target: Target) -> list[str]:
    """What no installation would mend: the simulated engine's objections, and what kernels cannot do."""
    if engine(config.engine).simulated:
        return engine(config.engine).problems(config)
    capability = target.hardware.capability if target.hardware else None
    version = engine(config.engine).version(config)
    reason = support.supported(config.engine, version, target.device, config.quantization, capability)
    return [reason] if reason and not config.attempt else []


COMMON = frozenset(fields_where(lambda role: role.kind in ("engine", "model")))
"""Fields that every engine honours by being what they are; the rest must be listed by the engine."""


def _counted(points: list[Point], refused: dict[str, str]) -> Iterable[tuple[ServingConfig, str, int]]:
    for key, same in groupby(points, key=lambda p: p.config.key):
        if key in refused:
            of_key = list(same)
            yield of_key[0].config, refused[key], len(of_key)


def _launches(points: list[Point], restart: bool) -> Iterable[Launch]:
    order = sorted(points, key=lambda p: p.repeat) if restart else points
    groups = groupby(order, key=lambda p: (p.repeat if restart else 0, p.config.key))
    for number, (_, same) in enumerate(groups, 1):
        of_launch = sorted(same, key=lambda p: p.repeat)
        yield Launch(f"{number:03d}-{of_launch[0].config.key}", of_launch[0].config, tuple(of_launch))


def as_json(planned: Plan) -> dict[str, Any]:
    """`servetune plan --json`: points, launches, dropped[{point, reason, points}], estimated_s, memory.

    With `accuracy:` also accuracy{baseline, estimated_s, evaluations[], not_asked[{engine, task, reason}]}.
    """
    accuracy = {
        "baseline": planned.baseline,
        "estimated_s": sum(one.estimated_s for one in planned.evaluations),
        "evaluations": [asdict(one) for one in planned.evaluations],
        "not_asked": [{"engine": n.engine, "task": n.task, "reason": n.why} for n in planned.not_asked],
    }
    return {
        "scenario": planned.scenario.name,
        "device": planned.device,
        **({"supposed": planned.supposed} if planned.supposed else {}),
        "points": len(planned.points),
        "launches": len(planned.launches),
        "dropped": [{"point": d.label, "reason": d.reason, "points": d.points} for d in planned.dropped],
        "estimated_s": planned.estimated_s,
        **({"accuracy": accuracy} if planned.baseline else {}),
        "configs": [
            {
                "key": launch.config.key,
                "settings": launch.config.settings,
                "gpus": devices.count(launch.config),
                "points": [{"key": p.key, "load": label(p.load), "repeat": p.repeat} for p in launch.points],
                "memory": planned.memory[launch.config.key].as_json(),
            }
            for launch in planned.launches
        ],
    }
