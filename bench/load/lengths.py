"""Prompts of made-up words in the model's own tokens, though its tokenizer is not here: the server counts.

A few tiny requests before the load; their `usage.prompt_tokens` give the tokens of a word and what a chat
template puts before all of them. Lengths are then right in the mean; single prompts vary by their words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING

from bench.grid import Load
from bench.load import schedule
from bench.load.dialect import ANSWERS_WITHIN_S, PATHS
from bench.traffic.prompts import Prompts
from serving import wire
from serving.engine import Endpoint
from serving.keys import authorization
from serving.sse import Splitter

if TYPE_CHECKING:
    import httpx

FEWEST_WORDS, MOST_WORDS = 16, 256
"""Of one text; about a sixth of the tokens asked for, so that what it gives twice over is no longer."""
PROBES = 6
MOST_S = 10.0
"""No further prompt is tried after this; a slow server is asked one text, once and twice over."""
FEWEST, MOST = 0.2, 20.0
"""Tokens of a word that a tokenizer may give; beyond, the counts are not of our words."""


@dataclass(frozen=True)
class Counted:
    """One text by the server's count: `words` of ours are `once` tokens; the text twice over is `twice`."""

    words: int
    once: int
    twice: int


def fitted(
    endpoint: Endpoint, load: Load, prompts: Prompts, *, lenient: bool = False
) -> tuple[Prompts, tuple[str, ...]]:
    """`prompts` with lengths in the server's own tokens, and notes on how they were found.

    Unchanged where a tokenizer makes them exact already, or the server tells no counts (a note says so).
    """
    if prompts.exact:
        return prompts, ()
    found = fit(_probe(endpoint, load, prompts, lenient=lenient))
    if found is None:
        return prompts, ("prompt lengths are in words: the server tells no token counts to go by",)
    per_word, template = found
    if abs(per_word - 1) < 1e-6 and template == 0:
        return prompts, ()
    made = prompts.fitted(per_word, template)
    how = f"{per_word:.2f} tokens a word of ours, {template} before every prompt"
    return made, (f"prompt lengths are by the server's own count: {how}",)


def fit(counts: Sequence[Counted]) -> tuple[float, int] | None:
    """Tokens of a word and of a template; None where the counts are not of our words.

    A text twice over has twice its words and the template once: what comes before all is told exactly.
    """
    if not counts:
        return None
    template = max(0, round(median(2 * one.once - one.twice for one in counts)))
    per_word = sum(one.once - template for one in counts) / sum(one.words for one in counts)
    grows = all(one.twice > one.once for one in counts)
    return (per_word, template) if grows and FEWEST <= per_word <= MOST else None


def _probe(endpoint: Endpoint, load: Load, prompts: Prompts, *, lenient: bool) -> list[Counted]:
    """Counts of some texts, each once and twice over; fewer where the server refuses or is slow."""
    import httpx

    words = min(MOST_WORDS, max(FEWEST_WORDS, load.input_tokens // 6))
    until = monotonic() + MOST_S
    headers = {"Content-Type": "application/json", **authorization(endpoint.api_key_env)}
    found: list[Counted] = []
    with httpx.Client(trust_env=False, timeout=ANSWERS_WITHIN_S, headers=headers) as client:

        def count(text: str) -> int | None:
            content = schedule.body(load, endpoint.served_model, text, 1, 0, lenient=lenient)
            return _tokens(client, endpoint.url + PATHS[load.endpoint], content)

        for prompt in prompts.make([words] * PROBES, "lengths"):
            once = count(prompt.text)
            twice = None if once is None else count(f"{prompt.text} {prompt.text}")
            if once is None or twice is None:
                break
            found.append(Counted(words, once, twice))
            if monotonic() > until:
                break
    return found


def _tokens(client: httpx.Client, url: str, content: str) -> int | None:
    """`usage.prompt_tokens` of one request, streamed or not; None where the server does not say."""
    import httpx

    told: list[int] = []
    try:
        with client.stream("POST", url, content=content.encode()) as answer:
            if answer.status_code != 200:
                return None
            if "text/event-stream" not in answer.headers.get("content-type", ""):
                return _prompt_tokens(answer.read())
            splitter = Splitter()
            for part in answer.iter_bytes():
                for event in splitter.feed(part):
                    if event.data.strip() == b"[DONE]":
                        return told[-1] if told else None  # the body may be left open
                    tokens = _prompt_tokens(event.data)
                    told += [tokens] if tokens else []
    except httpx.HTTPError:
        return None
    return told[-1] if told else None


def _prompt_tokens(part: bytes) -> int | None:
    """The count in one JSON object; None where there is none that can be."""
    try:
        chunk = wire.loads(part)
        usage = chunk.get("usage") if isinstance(chunk, dict) else None
        told = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return wire.count(told, "usage.prompt_tokens")
    except wire.WireError:
        return None
