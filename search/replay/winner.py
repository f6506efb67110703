"""Crowned: what a search would say to deploy after the looks of a replay, by the search's own last rounds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from search.budget import Budget
from search.finals.finals import Finals
from search.finals.rounds import conclude
from search.replay.grid_evaluator import GridEvaluator
from search.replay.grids import Grid
from search.result import TrialResult, key_of
from search.resume import StudyLog

FINALISTS = 4
"""As many as a scenario measures again unless it says otherwise."""


class MemoryLog(StudyLog):
    """A StudyLog that lasts as long as its process."""

    def __init__(self) -> None:
        super().__init__(Path())
        self.lines: list[dict[str, Any]] = []

    def append(self, event: str, **fields: Any) -> None:
        self.lines.append(json.loads(json.dumps({"event": event, **fields}, default=str)))

    def events(self) -> Iterator[dict[str, Any]]:
        return iter(self.lines)


def crowned(grid: Grid, evaluator: GridEvaluator, history: Sequence[TrialResult]) -> tuple[str, float]:
    """Verdict of the finalists' rounds, and the regret of what was named; 1 when nothing was."""
    log = MemoryLog()
    for trial, one in enumerate(history):
        log.append("outcome", trial=trial, outcome=one.as_json(), last=True)
    answer = conclude(Finals(grid.space, grid.goal, evaluator, log, Budget(), 0.01, FINALISTS, _silent))
    # Until it is settled the default stays.
    named = answer.baseline if answer.unsettled is not None else answer.winner
    winner = None if named is None else grid.cells[key_of(named.settings)]
    return answer.verdict, grid.regret(winner)


def _silent(text: str) -> None:
    """A replay says nothing while it runs."""
