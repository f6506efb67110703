"""A task: items, what to ask the server about each, and how an answer becomes a score in [0, 1].

Adding one is a file with a class that meets `Task` and a row in TASKS; `tests/test_tasks.py` then tests it.
A list of questions needs no code: see `bench.accuracy.own`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

DATA = Path(__file__).parent / "data"

Measures = Literal["accuracy", "stability", "security", "tripwire"]
Split = Literal["all", "screen", "certify"]


class Need(StrEnum):
    """What a task asks of an engine; `bench.accuracy.preflight` tries each before anything starts."""

    PROMPT_LOGPROBS = "log-probabilities of the prompt (/v1/completions with echo)"
    COMPLETIONS = "generation by /v1/completions"
    CHAT = "generation by /v1/chat/completions"
    JSON_SCHEMA = "output held to a JSON schema (response_format)"


@dataclass(frozen=True, slots=True)
class Item:
    """One question. `cluster` is shared by variants of one question; `data` is the task's own."""

    id: str
    data: Mapping[str, Any]
    cluster: str = ""

    @property
    def split(self) -> Literal["screen", "certify"]:
        """A third of the clusters for screening, the rest held out for the certificate; fixed by the id."""
        return "screen" if _digest(f"split:{self.cluster or self.id}")[0] % 3 == 0 else "certify"


@dataclass(frozen=True, slots=True)
class Ask:
    """One HTTP request. `rank` and `score` want log-probabilities, `generate` and `chat` text.

    rank      `text` continued by each of `choices`: log-likelihood of each
    score     log-probability of every token of `text`, with the `top` likeliest alternatives
    generate  `options` are members of the request's body (max_tokens, temperature, stop, seed ...)
    chat      `messages` instead of `text`
    """

    kind: Literal["rank", "score", "generate", "chat"]
    text: str = ""
    choices: tuple[str, ...] = ()
    messages: tuple[Mapping[str, str], ...] = ()
    top: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def canonical(self) -> str:
        """The same text for the same question, on any machine."""
        whole = [self.kind, self.text, self.choices, [dict(m) for m in self.messages], self.top]
        return json.dumps([*whole, dict(self.options)], sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one Ask.

    rank: `logliks` (natural log) and `sizes` (tokens of each choice). score: `tokens`, `logprobs` (the
    first is None) and `tops`. generate and chat: `text`, what was thought before it in `reasoning`, and
    `finish`. Tokens are the server's count; None where it tells none.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    text: str = ""
    reasoning: str = ""
    finish: str | None = None
    logliks: tuple[float, ...] = ()
    sizes: tuple[int, ...] = ()
    tokens: tuple[str, ...] = ()
    logprobs: tuple[float | None, ...] = ()
    tops: tuple[Mapping[str, float] | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """`value` in [0, 1], higher is better; `choice` names the answer, so that flips can be counted."""

    value: float
    choice: str


@dataclass(frozen=True, slots=True)
class Pass:
    """One round over all items. `alone`: one request at a time, else at the benchmark's concurrency."""

    name: str = "loaded"
    alone: bool = False
    cold: bool = False


ONE_PASS = (Pass(),)


class Task(Protocol):
    """What a row of TASKS is. `chance` is the share that guessing gets right; 0 for free text."""

    @property
    def name(self) -> str: ...
    @property
    def measures(self) -> Measures: ...
    @property
    def needs(self) -> frozenset[Need]: ...
    @property
    def chance(self) -> float: ...
    @property
    def passes(self) -> Sequence[Pass]: ...

    def items(self) -> Sequence[Item]:
        """Every item, always the same ones in the same order."""
        ...

    def asks(self, item: Item) -> tuple[Ask, ...]:
        """What to send for one item; equal items give equal requests."""
        ...

    def score(self, item: Item, answers: Mapping[str, Sequence[Answer]]) -> Score:
        """Score from the answers of each pass, in the order of `asks`."""
        ...


def prompt_hash(asks: Sequence[Ask]) -> str:
    """Two comparable results asked the very same; everything the server is sent, but for the model's name."""
    return _digest("\n".join(ask.canonical for ask in asks)).hex()[:16]


def drawn(items: Sequence[Item], split: Split, limit: int | None) -> list[Item]:
    """The items of a split in a fixed shuffled order, so that any leading part is a fair sample."""
    chosen = [item for item in items if split in ("all", item.split)]
    return sorted(chosen, key=lambda item: _digest(f"order:{item.id}"))[:limit]


@cache
def read_items(file: str, folder: Path = DATA) -> tuple[Item, ...]:
    """Items of a JSONL file: `id`, optionally `cluster`, and the task's own fields."""
    found = []
    for line in (folder / file).read_text(encoding="utf-8").splitlines():
        data = json.loads(line)
        found.append(Item(str(data["id"]), data, str(data.get("cluster", ""))))
    return tuple(found)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
