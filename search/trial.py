"""Trial: one configuration from refusal or launch to its last result; short loads are promoted by halving."""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.evaluator import Evaluator
from search.objective import Goal
from search.result import Settings, TrialResult, best, key_of

ETA = 3
"""One short load in so many is followed by a full one (successive halving, asynchronous: ASHA)."""
ALWAYS = 3
"""The first short loads are followed by full ones whatever they show: there is nothing to rank against."""


def run_trial(
    evaluator: Evaluator, goal: Goal, history: Sequence[TrialResult], settings: Settings, *, baseline: bool
) -> Sequence[TrialResult]:
    """Every result of these settings, the last one counting. The baseline always gets the full load."""
    refused = evaluator.refusal(settings, best(history, minimize=goal.minimize))
    if refused is not None:
        return [refused]

    def promote(screen: TrialResult, /) -> bool:
        return baseline or promoted(goal, history, screen)

    return evaluator.evaluate(settings, promote)


def promoted(goal: Goal, history: Sequence[TrialResult], screen: TrialResult) -> bool:
    """Whether a short load is among the best third of all short loads so far, or as good as the incumbent.

    Violated constraints rank behind every met one, by how much they are violated. An undetermined one is
    neither: there the others count by what their full loads have shown since.
    """
    if screen.failure is not None:
        return False
    seen = {key_of(o.config): o for o in history if o.fidelity == "screen" and o.failure is None}
    known = {key_of(o.config): o for o in history if o.fidelity == "full" and o.failure is None}
    others = [rank(goal, o, known.get(key)) for key, o in seen.items()]
    if len(others) < ALWAYS:
        return True
    better = sum(other < rank(goal, screen) for other in others)
    return better < math.ceil((len(others) + 1) / ETA)


def rank(goal: Goal, outcome: TrialResult, full: TrialResult | None = None) -> tuple[float, float]:
    """Smaller is better: violated constraints first, then the goal. `full`: of its full load, if any."""
    known = full.violations if full is not None else {}
    unknown = {name: by for name, by in known.items() if name in outcome.undetermined}
    missed = sum(max(0.0, v) for v in (*outcome.violations.values(), *unknown.values()))
    return missed, math.inf if outcome.value is None else goal.loss(outcome.value)
