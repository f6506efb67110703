"""Finalists: the best few and the baseline, and what is written down of how it ended."""

from __future__ import annotations

from collections.abc import Sequence

from search.objective import Goal
from search.outcome import Outcome, Settings, key_of
from search.space import Space


def choose(space: Space, goal: Goal, history: Sequence[Outcome], count: int) -> list[Settings]:
    """The baseline, then the `count` best feasible configurations that had a full look, best first."""
    base = space.default()
    last = {key_of(o.config): o for o in history if o.fidelity == "full" and o.feasible}
    ranked = sorted(last.values(), key=lambda o: (goal.loss(o.value or 0.0), space.departures(o.config)))
    others = [o.config for o in ranked if key_of(o.config) != key_of(base)]
    return [base, *others[:count]]
