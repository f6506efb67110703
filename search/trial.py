"""Trial: one configuration from refusal or launch to its last look; short looks are promoted by halving."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from search.evaluator import Evaluator
from search.objective import Goal
from search.result import Settings, TrialResult, best, key_of

ETA = 3
"""One short look in so many is followed by a full one (successive halving, asynchronous: ASHA)."""
ALWAYS = 3
"""The first looks are followed by full ones whatever they show: there is nothing to rank them against."""


@runtime_checkable
class Staged(Protocol):
    """An oracle whose launches cost: it does the short and the full look on one server."""

    def staged(self, settings: Settings, promote: Promote) -> list[TrialResult]: ...


@runtime_checkable
class Refusing(Protocol):
    """An oracle that can tell beforehand that a launch is of no use."""

    def refusal(self, settings: Settings, incumbent: TrialResult | None) -> TrialResult | None: ...


class Promote(Protocol):
    def __call__(self, screen: TrialResult, /) -> bool: ...


def look(
    oracle: Evaluator, goal: Goal, history: Sequence[TrialResult], settings: Settings, *, baseline: bool
) -> list[TrialResult]:
    """Every look at these settings, the last one counting. The baseline is always looked at in full."""
    incumbent = best(history, minimize=goal.minimize)
    if isinstance(oracle, Refusing):
        refused = oracle.refusal(settings, incumbent)
        if refused is not None:
            return [refused]

    def promote(screen: TrialResult, /) -> bool:
        return baseline or promoted(goal, history, screen)

    if isinstance(oracle, Staged):
        return oracle.staged(settings, promote)
    screen = oracle.measure(settings, "screen")
    return [screen, oracle.measure(settings, "full")] if promote(screen) else [screen]


def promoted(goal: Goal, history: Sequence[TrialResult], screen: TrialResult) -> bool:
    """Whether a short look is among the best third of all short looks so far, or as good as the incumbent.

    Broken promises rank behind every kept one, by how much they are broken. What a short look cannot tell
    is neither: there the others count by what their full looks have told since.
    """
    if screen.failure is not None:
        return False
    seen = {key_of(o.config): o for o in history if o.fidelity == "screen" and o.failure is None}
    told = {key_of(o.config): o for o in history if o.fidelity == "full" and o.failure is None}
    others = [rank(goal, o, told.get(key)) for key, o in seen.items()]
    if len(others) < ALWAYS:
        return True
    better = sum(other < rank(goal, screen) for other in others)
    return better < math.ceil((len(others) + 1) / ETA)


def rank(goal: Goal, outcome: TrialResult, told: TrialResult | None = None) -> tuple[float, float]:
    """Smaller is better: broken promises first, then the goal. `told`: its full look, where it had one."""
    known = told.violations if told is not None else {}
    unknown = {name: by for name, by in known.items() if name in outcome.undetermined}
    missed = sum(max(0.0, v) for v in (*outcome.violations.values(), *unknown.values()))
    return missed, math.inf if outcome.value is None else goal.loss(outcome.value)
