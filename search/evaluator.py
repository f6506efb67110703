"""The two protocols of a search: what proposes a configuration, and what answers for it.

An oracle launches engines (`search.engine_evaluator`) or looks into a recorded grid (`search.replay.replay`);
everything above it is the same for both, so that searchers are compared on the code that runs in earnest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from search.result import Fidelity, Settings, TrialResult


class Evaluator(Protocol):
    """Answers for one configuration at a time."""

    def measure(self, settings: Settings, fidelity: Fidelity) -> TrialResult:
        """One look; `confirm` is a fresh launch each time. A failure is an Outcome, never an exception."""
        ...


class Searcher(Protocol):
    """Proposes what to look at next. It is given the whole history each time and keeps nothing it needs."""

    def ask(self, history: Sequence[TrialResult]) -> Settings | None:
        """The next configuration; None when there is nothing left worth asking."""
        ...
