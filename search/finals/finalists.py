"""Finalists: who may be measured again, best first."""

from __future__ import annotations

from collections.abc import Sequence

from search.objective import Goal
from search.result import Settings, TrialResult, key_of
from search.space import Space


def ranked(space: Space, goal: Goal, history: Sequence[TrialResult]) -> list[Settings]:
    """The baseline, then every other feasible configuration that had a full look, best first."""
    base = space.default()
    last = {key_of(o.config): o for o in history if o.fidelity == "full" and o.feasible}
    found = sorted(last.values(), key=lambda o: (goal.loss(o.value or 0.0), space.departures(o.config)))
    return [base, *(o.config for o in found if key_of(o.config) != key_of(base))]
