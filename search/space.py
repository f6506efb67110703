"""Space: the configurations that a search may propose.

An axis belongs to one engine. Leaving it out is the engine's own default, which is a level of its own
unless the axis names what the default is. Rules of the scenario drop combinations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from bench.scenario import rules
from bench.scenario.model import Range
from search.result import Settings, key_of
from serving import devices
from serving.config import TYPES, Scalar, ServingConfig

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from bench.scenario.model import EngineGrid, GridRule, Scenario

SHARES = tuple(name for name, kind in TYPES.items() if kind is float)
"""Settings that are no whole numbers, whatever the ends of their range look like."""
UNSET = "(default)"
"""How Optuna's storage and the pages show "left to the engine"."""


@dataclass(frozen=True)
class Axis:
    """One setting. Categorical: `choices`, in order. Otherwise every number from `low` to `high`.

    default  the value that counts as no departure; None: leaving the setting out
    """

    name: str
    kind: Literal["categorical", "int", "float"] = "categorical"
    choices: tuple[Scalar, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    default: Scalar = None

    @cached_property
    def levels(self) -> tuple[Scalar, ...]:
        """Its values, the default included: all of them, or doublings (log) or steps where it is a range.

        A float range without a step has five levels.
        """
        found: list[Scalar]
        if self.kind == "categorical":
            found = list(self.choices)
        elif self.log:
            doublings = int(math.log2(self.high / self.low))
            found = [self._number(self.low * 2**n) for n in range(doublings + 1)] + [self._number(self.high)]
        else:
            step = self.step or (1.0 if self.kind == "int" else (self.high - self.low) / 4)
            count = int((self.high - self.low) / step + 1e-9)
            found = [self._number(self.low + n * step) for n in range(count + 1)]
        if self.default not in found:
            found.insert(0, self.default)
        return tuple(dict.fromkeys(found))

    @property
    def finite(self) -> bool:
        """Whether `levels` are all there is."""
        return self.kind == "categorical" or (self.kind == "int" and not self.log) or self.step is not None

    def _number(self, value: float) -> Scalar:
        return round(value) if self.kind == "int" else value


@dataclass(frozen=True)
class Space:
    """Axes by engine, engines in the scenario's order. `Space.default()` is the baseline of a search."""

    axes: Mapping[str, tuple[Axis, ...]]
    rules: tuple[GridRule, ...] = ()
    fixed: Mapping[str, Mapping[str, Any]] | None = None
    """Settings that do not vary, by engine; rules see them, proposals do not carry them."""

    @classmethod
    def of(cls, scenario: Scenario) -> Space:
        """From `engines[].space` and `.grid`. An engine named twice gets `-2`, `-3` behind its name."""
        axes: dict[str, tuple[Axis, ...]] = {}
        fixed: dict[str, Mapping[str, Any]] = {}
        for part, name in zip(scenario.engines, names(scenario), strict=True):
            listed = [_categorical(key, values) for key, values in part.grid.items()]
            axes[name] = (*listed, *(_axis(key, given) for key, given in part.space.items()))
            fixed[name] = {**part.settings, "engine": part.engine}
        return cls(axes, scenario.rules, fixed)

    @property
    def engines(self) -> tuple[str, ...]:
        return tuple(self.axes)

    def default(self, engine: str | None = None) -> Settings:
        """The engine's own configuration: no axis set but those whose default the scenario names."""
        chosen = engine or self.engines[0]
        return {"engine": chosen} | {
            axis.name: axis.default for axis in self.axes[chosen] if axis.default is not None
        }

    def departures(self, settings: Settings) -> int:
        """How many settings differ from their engine's default; the simpler of two has fewer."""
        return sum(settings.get(a.name) != a.default for a in self.axes[str(settings["engine"])])

    def problem(self, settings: Settings) -> str | None:
        """Why a rule drops this combination; None when none does."""
        engine = str(settings["engine"])
        facts = {**settings, **(self.fixed or {}).get(engine, {})}
        return next((rule.because for rule in self.rules if rules.matches(rule.drop, facts)), None)

    def all(self) -> Iterator[Settings]:
        """Every combination of levels that no rule drops, each engine's default first."""
        for engine, axes in self.axes.items():
            first = self.default(engine)
            yield first
            for chosen in itertools.product(*(axis.levels for axis in axes)):
                settings = made(engine, dict(zip((a.name for a in axes), chosen, strict=True)))
                if key_of(settings) != key_of(first) and self.problem(settings) is None:
                    yield settings

    @cached_property
    def size(self) -> int:
        """How many that are."""
        return sum(1 for _ in self.all())

    def neighbours(self, settings: Settings) -> list[Settings]:
        """One step away: ordered axes by one level, the others to any level."""
        engine, found = str(settings["engine"]), []
        for axis in self.axes[engine]:
            levels, here = axis.levels, settings.get(axis.name)
            ordered = all(
                isinstance(v, int | float) and not isinstance(v, bool) for v in levels if v is not None
            )
            at = levels.index(here) if here in levels else None
            if ordered and at is not None:
                others = [levels[i] for i in (at - 1, at + 1) if 0 <= i < len(levels)]
            else:
                others = [v for v in levels if v != here]
            found += [made(engine, {**settings, axis.name: value}) for value in others]
        return [s for s in found if self.problem(s) is None]

    def suggest(self, trial: BaseTrial) -> Settings:
        """Settings of an Optuna trial, conditional on the engine."""
        engine = self.engines[0]
        if len(self.engines) > 1:
            engine = str(trial.suggest_categorical("engine", list(self.engines)))
        return made(
            engine, {a.name: _suggested(trial, self.parameter(engine, a), a) for a in self.axes[engine]}
        )

    def parameter(self, engine: str, axis: Axis) -> str:
        """The axis's name in Optuna: `engine.axis` where there are several engines."""
        return axis.name if len(self.engines) == 1 else f"{engine}.{axis.name}"

    def parameters(self, settings: Settings) -> dict[str, Scalar]:
        """The Optuna parameters of these settings, to enqueue them."""
        engine = str(settings["engine"])
        found: dict[str, Scalar] = {} if len(self.engines) == 1 else {"engine": engine}
        for axis in self.axes[engine]:
            value = settings.get(axis.name)
            name = self.parameter(engine, axis)
            if axis.kind == "categorical":
                found[name] = UNSET if value is None else value
            elif axis.default is None:
                found[f"{name}?"] = UNSET if value is None else "set"
                if value is not None:
                    found[name] = value
            else:
                found[name] = value
        return found


def names(scenario: Scenario) -> list[str]:
    """One name for each part of `engines`, unique."""
    seen: dict[str, int] = {}
    out = []
    for part in scenario.engines:
        seen[part.engine] = seen.get(part.engine, 0) + 1
        out.append(part.engine if seen[part.engine] == 1 else f"{part.engine}-{seen[part.engine]}")
    return out


def made(engine: str, chosen: Mapping[str, Scalar]) -> Settings:
    """Settings without what is left to the engine."""
    return {"engine": engine} | {k: v for k, v in chosen.items() if v is not None and k != "engine"}


def _suggested(trial: BaseTrial, name: str, axis: Axis) -> Scalar:
    if axis.kind == "categorical":
        chosen: Scalar = trial.suggest_categorical(
            name, [UNSET if level is None else level for level in axis.levels]
        )
        return None if chosen == UNSET else chosen
    if axis.default is None and trial.suggest_categorical(f"{name}?", [UNSET, "set"]) == UNSET:
        return None
    if axis.kind == "int":
        return trial.suggest_int(name, int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    return trial.suggest_float(name, axis.low, axis.high, log=axis.log, step=axis.step)


def _axis(name: str, given: Any) -> Axis:
    if isinstance(given, list | tuple):
        return _categorical(name, given)
    whole = float(given.low).is_integer() and float(given.high).is_integer()
    kind: Literal["int", "float"] = "int" if whole and name not in SHARES else "float"
    return Axis(name, kind, (), given.low, given.high, given.log, given.step, _whole(kind, given.default))


def _whole(kind: str, value: float | None) -> Scalar:
    return round(value) if kind == "int" and value is not None else value


def _categorical(name: str, values: Any) -> Axis:
    from bench.scenario.scenariofile import quantity

    default = ServingConfig.model_fields[name].default
    choices = tuple(quantity(name, value) for value in values)
    return Axis(name, "categorical", choices, default=default if isinstance(default, Scalar) else None)


def most_devices(scenario: Scenario) -> int | None:
    """Accelerators of the largest configuration there may be; None where an engine's are not known."""
    found: list[int | None] = []
    for part in scenario.engines:

        def values(name: str, left_out: Any, part: EngineGrid = part) -> list[Any]:
            given = part.space.get(name, part.grid.get(name, [part.settings.get(name, left_out)]))
            return [given.high] if isinstance(given, Range) else [left_out if v is None else v for v in given]

        if part.engine == "endpoint":
            found += values("gpus", None)
            continue
        choices = itertools.product(values("extra_args", {}), values("tensor_parallel_size", 1))
        for flags, tensor in choices:
            sizes = devices.parallel(flags, int(tensor))
            found.append(sizes.devices if sizes else None)
    return max((n for n in found if n is not None), default=None) if None not in found else None
