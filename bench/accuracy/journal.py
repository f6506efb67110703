"""Answers on disk, one JSONL line an item and pass, written as they come: what resume goes on from."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.accuracy.task import Reply
from serving.errors import BrokenRunError

SYNC_S = 1.0
_TUPLES = ("logliks", "sizes", "tokens", "logprobs", "tops")


@dataclass(frozen=True)
class Entry:
    """One item in one pass: its answers, or the error that stands in their place. `took_s` in seconds."""

    item: str
    passed: str
    prompt: str
    answers: tuple[Reply, ...] = ()
    error: str = ""
    took_s: float = 0.0


class Journal:
    """Appends entries; a power cut loses at most the last second, a kill nothing that was appended."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        whole = _whole_bytes(self.path)
        self._file = self.path.open("ab")
        # What a kill tore in the middle of a line is cut off, so that the next line is one.
        self._file.truncate(whole)
        self._synced = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def add(self, entry: Entry) -> None:
        plain: dict[str, Any] = {
            "item": entry.item,
            "pass": entry.passed,
            "prompt": entry.prompt,
            "took_s": round(entry.took_s, 4),
        }
        if entry.error:
            plain["error"] = entry.error
        else:
            plain["answers"] = [_short(answer) for answer in entry.answers]
        self._file.write(json.dumps(plain, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        if time.monotonic() - self._synced > SYNC_S:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()


def read(path: Path) -> Iterator[Entry]:
    """Entries in the order they came; a torn last line is passed over. BrokenRunError for anything else."""
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            plain = json.loads(line)
            answers = tuple(_answer(answer) for answer in plain.get("answers", ()))
            yield Entry(
                plain["item"],
                plain["pass"],
                plain["prompt"],
                answers,
                plain.get("error", ""),
                plain["took_s"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BrokenRunError(f"{path}:{number}: not an answer: {error}") from error


def _short(answer: Reply) -> dict[str, Any]:
    """Only what is there; log-probabilities to seven decimals, which is finer than any kernel repeats."""
    found = {key: value for key, value in asdict(answer).items() if value not in ((), "", None)}
    for key in ("logliks", "logprobs"):
        if key in found:
            found[key] = [None if v is None else round(v, 7) for v in found[key]]
    if "tops" in found:
        found["tops"] = [t and {k: round(v, 7) for k, v in t.items()} for t in found["tops"]]
    return found


def _answer(plain: dict[str, Any]) -> Reply:
    fields: dict[str, Any] = {k: tuple(v) if k in _TUPLES else v for k, v in plain.items()}
    return Reply(**fields)


def _whole_bytes(path: Path) -> int:
    if not path.exists():
        return 0
    data = path.read_bytes()
    return data.rfind(b"\n") + 1
