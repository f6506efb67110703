"""Outcome: what one look at one configuration told, real or replayed; all that a searcher ever sees."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from serving.config import Scalar

Settings = Mapping[str, Scalar]
"""A configuration of the search: `engine` and every axis that departs from the engine's default."""

Fidelity = Literal["screen", "full", "confirm", "stress"]
"""A short run, the scenario's own, a repeat of it on a fresh launch (only these two crown), other loads."""

UNTOLD = 1e-3
"""The violation of a promise that could not be told, where two states are all there is."""
PHASES = ("launch", "warmup", "measure", "accuracy", "waste")


@dataclass(frozen=True)
class TrialResult:
    """One look at one configuration.

    value       in the unit of the goal's first metric; None when there is no number to believe
    variance    of `value`, in its unit squared; None when it cannot be told
    violations  constraint -> by how much it is missed, as a share of its limit; at most 0: met
    undetermined  constraint -> why it cannot be told (`640 of 662 requests`): neither met nor missed
    failure     class of the failure (`FailureKind`, `invalid`, `does_not_fit`, `cannot_win`); None: none
    detail      that failure in one line
    seconds     device seconds by phase (PHASES)
    points      keys of the measured points, the best one first
    values      every metric of the goal, for a Pareto front
    """

    config: Settings
    fidelity: Fidelity
    value: float | None
    variance: float | None = None
    violations: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    points: tuple[str, ...] = ()
    simulated: bool = False
    detail: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    undetermined: Mapping[str, str] = field(default_factory=dict)

    @property
    def feasible(self) -> bool:
        """A number that may be believed and every promise kept; one that cannot be told is not kept."""
        kept = not self.undetermined and all(v <= 0 for v in self.violations.values())
        return self.failure is None and self.value is not None and kept

    @property
    def broken(self) -> dict[str, float]:
        """The promises that are missed, and by how much."""
        return {name: by for name, by in self.violations.items() if by > 0}

    def constraint(self, name: str) -> float:
        """For a sampler that knows two states only: at most 0 is met. A promise that a full look could not
        tell is not; a short look is no answer either way, and its value is to be learned from."""
        if name not in self.undetermined:
            return self.violations.get(name, 0.0)
        return 0.0 if self.fidelity == "screen" else UNTOLD

    @property
    def launched(self) -> bool:
        """Whether a server was started for it."""
        return self.failure not in UNLAUNCHED

    @property
    def device_s(self) -> float:
        return sum(self.seconds.values())

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "config": dict(self.config), "feasible": self.feasible}


PENDING = "pending"
"""The class of a trial that is under way elsewhere: asked, and not yet told."""
UNLAUNCHED = frozenset({"does_not_fit", "cannot_win", "refused"})
"""Failures found before anything was started."""


def from_json(stored: Mapping[str, Any]) -> TrialResult:
    """What `as_json` wrote."""
    rest = {name: stored[name] for name in TrialResult.__dataclass_fields__ if name in stored}
    return TrialResult(**{**rest, "points": tuple(rest.get("points", ()))})


def key_of(settings: Settings) -> str:
    """One text for equal settings, whatever their order."""
    return json.dumps(dict(settings), sort_keys=True, separators=(",", ":"), default=str)


def best(
    history: Sequence[TrialResult], *, minimize: bool, fidelities: Sequence[Fidelity] = ("full", "confirm")
) -> TrialResult | None:
    """The best feasible outcome of these fidelities; the earlier one of equals; None without one."""
    fit = [o for o in history if o.feasible and o.fidelity in fidelities]
    sign = 1.0 if minimize else -1.0
    return min(fit, key=lambda o: sign * (o.value or 0.0), default=None)
