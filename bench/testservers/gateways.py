"""Output held back, hidden or left open: what stands between an engine and its clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.testservers.frames import CHUNKED, LAST, chunk, event, token, usage
from bench.testservers.steps import CLOSE, FIRST_S, STEP_S, ScriptStep, half, plain


def hidden_reasoning(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Half the output is thought where nobody sees it; usage counts it and says how much it was."""
    steps, shown = list(plain(asked)), half(asked)
    for number, (moment, data, is_event) in enumerate(steps[-1 - shown : -1]):
        head = CHUNKED if number == 0 and not data.startswith(CHUNKED) else b""
        yield moment, head + data, is_event
    told = usage(asked)
    told["usage"] |= {"completion_tokens_details": {"reasoning_tokens": asked["max_tokens"] - shown}}
    yield steps[-1][0], event(told) + event("[DONE]") + LAST, False


def held_bytes(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Characters of two tokens: of each pair the first event is empty, and continuous usage counts both."""
    last = asked["max_tokens"] - 1
    for number in range(last + 1):
        text = "" if number % 2 == 1 and number < last else " \u6587"
        frame = {
            **token(asked, text, "length" if number == last else None),
            "usage": usage(asked, number + 1)["usage"],
        }
        yield FIRST_S + number * STEP_S, (CHUNKED if number == 0 else b"") + event(frame), bool(text)
    yield FIRST_S + last * STEP_S, event(usage(asked)) + event("[DONE]") + LAST, False


def buffered(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """A gateway that hands over everything in one write, when the last token is made."""
    steps = list(plain(asked))
    yield steps[-1][0], b"".join(data for _, data, _ in steps), True


def open_after_done(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """The whole answer with usage and [DONE], then the body is left open: no timeout."""
    steps = list(plain(asked))
    yield from steps[:-1]
    yield steps[-1][0], event(usage(asked)) + event("[DONE]"), False
    yield 30.0, CLOSE, False


def stalls(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Half the tokens, then only comments: bytes, but no event."""
    steps = list(plain(asked))[: half(asked)]
    yield from steps
    yield from ((steps[-1][0] + (i + 1) * 0.05, chunk(b": ping\n\n"), False) for i in range(600))
