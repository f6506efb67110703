"""Short answers in free text: works on every engine, and exercises the decode path and the chat template."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from bench.accuracy.task import ONE_PASS, Ask, Item, Measures, Need, Pass, Reply, Score, read_items

MAX_TOKENS = 24
SHOTS = (
    "Question: What is the capital of Norway?\nAnswer: Oslo\n\n"
    "Question: What is the chemical symbol for iron?\nAnswer: Fe\n\n"
    "Question: On which continent is Kenya?\nAnswer: Africa\n\n"
)


class ShortAnswers:
    """Greedy completion after three worked examples; right when the first line names the answer."""

    name = "answers"
    measures: Measures = "accuracy"
    needs = frozenset({Need.COMPLETIONS})
    chance = 0.0
    passes: Sequence[Pass] = ONE_PASS

    def items(self) -> Sequence[Item]:
        return read_items("questions.jsonl")

    def asks(self, item: Item) -> tuple[Ask, ...]:
        text = f"{SHOTS}Question: {item.data['question']}\nAnswer:"
        return (
            Ask("generate", text, options={"max_tokens": MAX_TOKENS, "temperature": 0.0, "stop": ["\n"]}),
        )

    def score(self, item: Item, answers: Mapping[str, Sequence[Reply]]) -> Score:
        return named(next(iter(answers.values()))[0].text.strip().split("\n")[0], item)


class ChatAnswers(ShortAnswers):
    """The same questions through the chat endpoint: a wrong template shows here and in no completion."""

    name = "chat"
    needs = frozenset({Need.CHAT})

    def asks(self, item: Item) -> tuple[Ask, ...]:
        message = {"role": "user", "content": f"{item.data['question']} Answer with the name only."}
        return (Ask("chat", messages=(message,), options={"max_tokens": MAX_TOKENS, "temperature": 0.0}),)

    def score(self, item: Item, answers: Mapping[str, Sequence[Reply]]) -> Score:
        return named(next(iter(answers.values()))[0].text, item)


def named(text: str, item: Item) -> Score:
    """1 when one of `item.data["answers"]` stands in `text` as whole words, accents and case apart."""
    plain = folded(text)
    hit = any(re.search(rf"(?<!\w){re.escape(folded(a))}(?!\w)", plain) for a in item.data["answers"])
    return Score(float(hit), plain.strip()[:80])


def folded(text: str) -> str:
    parts = unicodedata.normalize("NFKD", text)
    return "".join(c for c in parts if not unicodedata.combining(c)).casefold()
