"""Does one question get one answer? Wordings, perturbations, repeats, valid structure, temperature.

Each score is the share of agreement within one question, compared with the baseline's by the same three
verdicts as the floor: a candidate that answers as well on average but less steadily is seen here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, islice

from bench.accuracy.answers import SHOTS, folded
from bench.accuracy.fact_tasks import best
from bench.accuracy.task import ONE_PASS, Ask, Item, Measures, Need, Pass, Reply, Score, read_items


class Wordings:
    """Three or four ways to ask for one fact; the share of pairs of wordings that choose the same."""

    name = "wordings"
    measures: Measures = "stability"
    needs = frozenset({Need.PROMPT_LOGPROBS})
    chance = 0.0
    passes: Sequence[Pass] = ONE_PASS

    def items(self) -> Sequence[Item]:
        return read_items("wordings.jsonl")

    def asks(self, item: Item) -> tuple[Ask, ...]:
        return tuple(Ask("rank", w, choices=tuple(item.data["choices"])) for w in item.data["wordings"])

    def score(self, item: Item, answers: Mapping[str, Sequence[Reply]]) -> Score:
        chosen = [best(answer) for answer in next(iter(answers.values()))]
        pairs = list(combinations(chosen, 2))
        return Score(sum(a == b for a, b in pairs) / len(pairs), ",".join(map(str, chosen)))


PERTURBATIONS: dict[str, Callable[[str], str]] = {
    "lower case": str.lower,
    "two spaces": lambda text: text.replace(" ", "  ", 1),
    "leading line": lambda text: f"\n{text}",
    "slip of the keys": lambda text: _swapped(text),
    "polite": lambda text: f"Please complete this sentence. {text}",
}


class Perturbed(Wordings):
    """A question and five small disturbances of it; the share of these that leave the choice as it was."""

    name = "perturbed"

    def asks(self, item: Item) -> tuple[Ask, ...]:
        first = item.data["wordings"][0]
        texts = (first, *(change(first) for change in PERTURBATIONS.values()))
        return tuple(Ask("rank", text, choices=tuple(item.data["choices"])) for text in texts)

    def score(self, item: Item, answers: Mapping[str, Sequence[Reply]]) -> Score:
        first, *rest = (best(answer) for answer in next(iter(answers.values())))
        return Score(sum(c == first for c in rest) / len(rest), ",".join(map(str, (first, *rest))))


class RepeatedAnswers:
    """The same greedy request alone with a cold cache, then twice at the load's concurrency, warm."""

    name = "repeats"
    measures: Measures = "stability"
    needs = frozenset({Need.COMPLETIONS})
    chance = 0.0
    passes: Sequence[Pass] = (Pass("alone", alone=True, cold=True), Pass("loaded"), Pass("again"))

    def items(self) -> Sequence[Item]:
        return read_items("questions.jsonl")[:120]

    def asks(self, item: Item) -> tuple[Ask, ...]:
        text = f"{SHOTS}Question: {item.data['question']}\nAnswer:"
        return (Ask("generate", text, options={"max_tokens": 32, "temperature": 0.0}),)

    def score(self, item: Item, answers: Mapping[str, Sequence[Reply]]) -> Score:
        texts = [given[0].text for given in answers.values()]
        return Score(
            float(len(set(texts)) == 1), f"{len(set(texts))} of {len(texts)}: {texts[0].strip()[:60]}"
        )


KINDS: dict[str, tuple[str, type]] = {
    "name": ("string", str),
    "topic": ("string", str),
    "count": ("integer", int),
    "confirmed": ("boolean", bool),
}
SCHEMA = {
    "type": "object",
    "properties": {key: {"type": kind} for key, (kind, _) in KINDS.items()},
    "required": list(KINDS),
    "additionalProperties": False,
}


class Structured:
    """Answers asked for under a JSON schema; the share that are valid under it, to the last brace."""

    name = "structured"
    measures: Measures = "stability"
    needs = frozenset({Need.CHAT, Need.JSON_SCHEMA})
    chance = 0.0
    passes: Sequence[Pass] = ONE_PASS

    def items(self) -> Sequence[Item]:
        return read_items("questions.jsonl")[:80]

    def asks(self, item: Item) -> tuple[Ask, ...]:
        text = (
            f"{item.data['question']} Answer as JSON with the keys name (the answer), topic (one word), "
            "count (how many words the answer has) and confirmed (true or false)."
        )
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
        options = {"max_tokens": 160, "temperature": 0.0, "response_format": form}
        return (Ask("chat", messages=({"role": "user", "content": text},), options=options),)

    def score(self, item: Item, answers: Mapping[str, Sequence[Reply]]) -> Score:
        text = next(iter(answers.values()))[0].text
        return Score(float(valid(text)), text[:120])


def valid(text: str) -> bool:
    """Whether `text` is JSON that SCHEMA allows."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    if not isinstance(found, dict) or found.keys() != KINDS.keys():
        return False
    return all(type(found[key]) is kind for key, (_, kind) in KINDS.items())


class Temperature:
    """Three answers at temperature 0.7 beside the greedy one; the share of them that say the same."""

    name = "temperature"
    measures: Measures = "stability"
    needs = frozenset({Need.COMPLETIONS})
    chance = 0.0
    passes: Sequence[Pass] = ONE_PASS

    def items(self) -> Sequence[Item]:
        return list(islice(read_items("questions.jsonl"), 120))

    def asks(self, item: Item) -> tuple[Ask, ...]:
        text = f"{SHOTS}Question: {item.data['question']}\nAnswer:"
        common = {"max_tokens": 16, "stop": ["\n"]}
        heated = [{**common, "temperature": 0.7, "seed": seed} for seed in (1, 2, 3)]
        return tuple(Ask("generate", text, options=o) for o in ({**common, "temperature": 0.0}, *heated))

    def score(self, item: Item, answers: Mapping[str, Sequence[Reply]]) -> Score:
        first, *rest = (folded(a.text).strip(" .\n") for a in next(iter(answers.values())))
        return Score(sum(text == first for text in rest) / len(rest), first[:60])


def _swapped(text: str) -> str:
    """Two neighbouring letters inside the longest lower-case word change places."""
    word = max((w for w in text.split() if w.islower()), key=len, default="")
    if len(word) < 4:
        return text
    slip = word[0] + word[2] + word[1] + word[3:]
    return text.replace(word, slip, 1)
