"""Plain texts scored token by token: perplexity, and the distributions that KL divergence compares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench.accuracy.task import ONE_PASS, Ask, Item, Measures, Need, Pass, Reply, Score, read_items

TOP = 10
"""Alternatives kept at every position; the rest of the distribution is one bucket."""


class Text:
    """Paragraphs of our own writing (prose, code, tables): no labels, so a tripwire, never a certificate."""

    name = "text"
    measures: Measures = "tripwire"
    needs = frozenset({Need.PROMPT_LOGPROBS})
    chance = 0.0
    passes: Sequence[Pass] = ONE_PASS

    def items(self) -> Sequence[Item]:
        return read_items("text.jsonl")

    def asks(self, item: Item) -> tuple[Ask, ...]:
        return (Ask("score", item.data["text"], top=TOP),)

    def score(self, item: Item, answers: Mapping[str, Sequence[Reply]]) -> Score:
        """Geometric mean probability of a token: 1 / perplexity of this text."""
        known = [p for p in next(iter(answers.values()))[0].logprobs if p is not None]
        mean = math.fsum(known) / len(known) if known else -math.inf
        return Score(math.exp(mean), f"{mean:.6f}")


class Continuations:
    """Long greedy answers: what a short question cannot show (decode-path faults, loops, early stops)."""

    name = "continuations"
    measures: Measures = "tripwire"
    needs = frozenset({Need.COMPLETIONS})
    chance = 0.0
    passes: Sequence[Pass] = ONE_PASS

    def items(self) -> Sequence[Item]:
        return [Item(i.id, {"text": _opening(i.data["text"])}) for i in read_items("text.jsonl")[:32]]

    def asks(self, item: Item) -> tuple[Ask, ...]:
        return (Ask("generate", item.data["text"], options={"max_tokens": 160, "temperature": 0.0}),)

    def score(self, item: Item, answers: Mapping[str, Sequence[Reply]]) -> Score:
        """Share of the words that are not part of a loop: distinct four-word runs over all of them."""
        words = next(iter(answers.values()))[0].text.split()
        runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
        return Score(len(set(runs)) / len(runs) if runs else 0.0, " ".join(words)[:200])


def _opening(text: str) -> str:
    """The first half of the words."""
    words = text.split(" ")
    return " ".join(words[: max(8, len(words) // 2)])
