"""One's own questions in one file, without code: a scenario names a .jsonl beside it as a task.

Each line has an `id` and either `prompt`, `choices` and `gold` (multiple choice by log-likelihood), or
`prompt` or `question` (chat), and `answers`, of which one must stand in the reply (generation).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.accuracy.answers import named
from bench.accuracy.fact_tasks import Choices
from bench.accuracy.task import ONE_PASS, Ask, Item, Measures, Need, Pass, Reply, Score, Task
from serving.errors import UserError


class OwnChoices(Choices):
    def __init__(self, name: str, items: Sequence[Item]) -> None:
        self.name, self._items = name, items

    def items(self) -> Sequence[Item]:
        return self._items


class OwnAnswers:
    """Greedy generation; `question` goes through the chat endpoint, `prompt` through completions."""

    measures: Measures = "accuracy"
    chance = 0.0
    passes: Sequence[Pass] = ONE_PASS

    def __init__(self, name: str, items: Sequence[Item]) -> None:
        self.name, self._items = name, items
        self.needs = frozenset(Need.CHAT if "question" in i.data else Need.COMPLETIONS for i in items)

    def items(self) -> Sequence[Item]:
        return self._items

    def asks(self, item: Item) -> tuple[Ask, ...]:
        options = {"max_tokens": int(item.data.get("max_tokens", 32)), "temperature": 0.0}
        if "question" in item.data:
            return (
                Ask("chat", messages=({"role": "user", "content": item.data["question"]},), options=options),
            )
        return (Ask("generate", item.data["prompt"], options=options),)

    def score(self, item: Item, answers: Mapping[str, Sequence[Reply]]) -> Score:
        return named(next(iter(answers.values()))[0].text, item)


def read(file: Path) -> Task:
    """The task in `file`. UserError with file and line for the first thing wrong."""
    items: list[Item] = []
    kinds = set()
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"task file {file}: {error}", "name an existing UTF-8 .jsonl file") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            data = json.loads(line)
        except ValueError as error:
            raise UserError(f"{place}: not JSON: {error}") from error
        kinds.add(_kind(data, place))
        items.append(Item(str(data["id"]), data, str(data.get("cluster", ""))))
    if not items:
        raise UserError(f"{file}: no items", "one JSON object a line; docs/accuracy.md has an example")
    if len({item.id for item in items}) < len(items):
        raise UserError(f"{file}: two items have the same id")
    if len(kinds) > 1:
        raise UserError(f"{file}: choices and answers mixed", "one kind of item a file")
    return OwnChoices(file.stem, items) if kinds == {"choices"} else OwnAnswers(file.stem, items)


def _kind(data: object, place: str) -> str:
    hint = 'either "prompt", "choices", "gold", or "prompt" (or "question") and "answers"; and an "id"'
    if not isinstance(data, dict) or "id" not in data or not ("prompt" in data or "question" in data):
        raise UserError(f"{place}: not an item", hint)
    if "choices" in data:
        gold, choices = data.get("gold"), data["choices"]
        texts = (
            isinstance(choices, list) and len(choices) > 1 and all(isinstance(c, str) and c for c in choices)
        )
        if not texts or not isinstance(gold, int) or not 0 <= gold < len(choices) or "prompt" not in data:
            raise UserError(f"{place}: choices must be two texts or more, and gold the index of one", hint)
        return "choices"
    answers = data.get("answers")
    if not isinstance(answers, list) or not answers or not all(isinstance(a, str) and a for a in answers):
        raise UserError(f"{place}: no answers", hint)
    return "answers"
