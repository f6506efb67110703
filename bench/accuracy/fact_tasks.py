"""Facts as multiple choice by log-likelihood: places, currencies, languages, elements.

Each choice is a continuation of the prompt; the likeliest is the answer. The sum of log-probabilities
decides (lm-evaluation-harness calls it `acc`), without length normalisation: the choices of an item are
of one kind. Data and licences: `data/PROVENANCE.json`, made by `tools/make_accuracy_data.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from bench.accuracy.task import ONE_PASS, Ask, Item, Measures, Need, Pass, Reply, Score, read_items


class Choices:
    """Multiple choice over items with `prompt`, `choices` and `gold` (an index)."""

    name = "choices"
    measures: Measures = "accuracy"
    needs = frozenset({Need.PROMPT_LOGPROBS})
    passes: Sequence[Pass] = ONE_PASS

    def items(self) -> Sequence[Item]:
        raise NotImplementedError

    @cached_property
    def chance(self) -> float:
        items = self.items()
        return sum(1 / len(item.data["choices"]) for item in items) / len(items)

    def asks(self, item: Item) -> tuple[Ask, ...]:
        return (Ask("rank", item.data["prompt"], choices=tuple(item.data["choices"])),)

    def score(self, item: Item, answers: Mapping[str, Sequence[Reply]]) -> Score:
        chosen = best(next(iter(answers.values()))[0])
        return Score(float(chosen == item.data["gold"]), str(chosen))


class Facts(Choices):
    """All kinds of fact in one task: the built-in suite's main evidence for the floor."""

    name = "facts"
    kinds: frozenset[str] | None = None

    def items(self) -> Sequence[Item]:
        return [i for i in read_items("facts.jsonl") if self.kinds is None or i.data["kind"] in self.kinds]


class Places(Facts):
    name = "places"
    kinds = frozenset({"city", "state", "capital", "capital_of", "continent", "neighbour"})


class Currencies(Facts):
    name = "currencies"
    kinds = frozenset({"currency", "currency_code"})


class Languages(Facts):
    name = "languages"
    kinds = frozenset({"language", "language_code", "script"})


class Elements(Facts):
    name = "elements"
    kinds = frozenset({"element", "element_number"})


def best(answer: Reply) -> int:
    """Index of the likeliest choice; the first of equals."""
    return max(range(len(answer.logliks)), key=lambda i: answer.logliks[i])
