"""StudyLog: `study.jsonl`, append-only and synced, is the truth of a study; Optuna's storage follows it.

Events: asked (trial, settings, params), outcome (trial and an Outcome), finalist, interrupted, resumed,
finished. A trial that was asked and has no `end` was in flight: it is measured once more, and what it had
measured before is kept in the results folder and not measured again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.outcome import Outcome, Settings, from_json
from serving.config import Scalar
from serving.errors import BrokenRunError

NAME = "study.jsonl"
MOST_ATTEMPTS = 2


@dataclass(frozen=True)
class Asked:
    """One trial as it stands. `outcomes`: its looks, the last one counts; `ended`: nothing is to follow."""

    trial: int
    settings: Settings
    params: dict[str, Scalar]
    attempts: int
    outcomes: tuple[Outcome, ...]
    ended: bool


@dataclass(frozen=True)
class StudyLog:
    """The log in the study's folder."""

    folder: Path

    def append(self, event: str, **fields: Any) -> None:
        """One event, on disk before this returns. OSError when the disk is full: nothing is half kept."""
        line = json.dumps({"event": event, **fields}, separators=(",", ":"), default=str) + "\n"
        with (self.folder / NAME).open("ab") as file:
            torn = file.tell() > 0 and not self._whole()
            file.write((("\n" if torn else "") + line).encode())
            file.flush()
            os.fsync(file.fileno())

    def events(self) -> Iterator[dict[str, Any]]:
        """Every complete event in order; a line torn by a kill is passed over, other damage is an error."""
        path = self.folder / NAME
        if not path.exists():
            return
        lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                after = lines[number] if number < len(lines) else ""
                if after == "" or '"event":"resumed"' in after:
                    continue
                raise BrokenRunError(f"{path}:{number}: not an event: {line[:60]!r}") from error

    def trials(self) -> list[Asked]:
        """Every trial in the order it was asked."""
        found: dict[int, Asked] = {}
        for event in self.events():
            number: int = event.get("trial", -1)
            if event["event"] == "asked":
                before = found.get(number)
                attempts = (before.attempts if before else 0) + 1
                kept = before.outcomes if before else ()
                found[number] = Asked(number, event["settings"], event["params"], attempts, kept, False)
            elif event["event"] == "outcome" and number >= 0:
                one = found[number]
                looks = (*one.outcomes, from_json(event["outcome"]))
                found[number] = Asked(number, one.settings, one.params, one.attempts, looks, event["last"])
        return list(found.values())

    def history(self) -> list[Outcome]:
        """Every look of every trial and of the finalists, in order."""
        return [from_json(event["outcome"]) for event in self.events() if "outcome" in event]

    def _whole(self) -> bool:
        with (self.folder / NAME).open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
