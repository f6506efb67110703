"""StudyLog: `study.jsonl`, append-only and synced, is the truth of a study; Optuna's storage follows it.

Events: asked (trial, settings, params), outcome (trial and an Outcome), finalist, interrupted, resumed,
finished. A trial that was asked and has no `end` was in flight: it is measured once more, and what it had
measured before is kept in the results folder and not measured again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from bench.store import Log, read
from search.result import Settings, TrialResult, from_json
from serving.config import Scalar

NAME = "study.jsonl"
MOST_ATTEMPTS = 2


@dataclass(frozen=True)
class TrialRecord:
    """One trial as it stands. `outcomes`: its looks, the last one counts; `ended`: nothing is to follow."""

    trial: int
    settings: Settings
    params: dict[str, Scalar]
    attempts: int
    outcomes: tuple[TrialResult, ...]
    ended: bool


@dataclass
class StudyLog:
    """The log in the study's folder. What was read once is kept: asking again costs only what is new."""

    folder: Path
    _events: list[dict[str, Any]] = field(default_factory=list, init=False, repr=False)
    _offset: int = field(default=0, init=False, repr=False)
    _trials: dict[int, TrialRecord] = field(default_factory=dict, init=False, repr=False)
    _history: list[TrialResult] = field(default_factory=list, init=False, repr=False)
    _folded: int = field(default=0, init=False, repr=False)

    def append(self, event: str, **fields: Any) -> None:
        """One event, on disk before this returns. OSError when the disk is full: nothing is half kept."""
        Log(self.folder / NAME).append({"event": event, **fields})

    def events(self) -> Iterator[dict[str, Any]]:
        """Every complete event in order; a line torn by a kill is passed over, other damage is an error."""
        for end, event in read(self.folder / NAME, self._offset):
            self._offset = end
            self._events.append(event)
        return iter(self._events)

    def trials(self) -> list[TrialRecord]:
        """Every trial in the order it was asked."""
        self._fold()
        return list(self._trials.values())

    def history(self) -> list[TrialResult]:
        """Every look of every trial and of the finalists, in order."""
        self._fold()
        return list(self._history)

    def _fold(self) -> None:
        for event in islice(self.events(), self._folded, None):
            self._folded += 1
            number: int = event.get("trial", -1)
            before = self._trials.get(number)
            if event["event"] == "asked":
                attempts = (before.attempts if before else 0) + 1
                kept = before.outcomes if before else ()
                self._trials[number] = TrialRecord(
                    number, event["settings"], event["params"], attempts, kept, False
                )
            if "outcome" not in event:
                continue
            outcome = from_json(event["outcome"])
            self._history.append(outcome)
            if event["event"] == "outcome" and before is not None:
                looks = (*before.outcomes, outcome)
                self._trials[number] = replace(before, outcomes=looks, ended=event["last"])
