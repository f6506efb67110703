"""Answers on disk, one JSONL line an item and pass, written as they come: what resume goes on from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench import store
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
        self._log = store.Log(path, sync_s=SYNC_S, escape=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.sync()

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
        self._log.append(plain)


def read(path: Path) -> Iterator[Entry]:
    """Entries in the order they came; a torn last line is passed over. BrokenRunError for anything else."""
    for end, plain in store.read(path):
        try:
            answers = tuple(_answer(answer) for answer in plain.get("answers", ()))
            yield Entry(
                plain["item"],
                plain["pass"],
                plain["prompt"],
                answers,
                plain.get("error", ""),
                plain["took_s"],
            )
        except (KeyError, TypeError) as error:
            raise BrokenRunError(f"{path}: the line up to byte {end} is not an answer: {error}") from error


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
