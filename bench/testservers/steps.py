"""The ordinary stream as steps: (seconds after the request was read, bytes, whether it carries output)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bench.testservers.frames import CHUNKED, LAST, event, token, usage

ScriptStep = tuple[float, bytes, bool]
Script = Callable[[dict[str, Any]], Iterable[ScriptStep]]
CLOSE, RESET = b"\0close", b"\0reset"
FIRST_S, STEP_S = 0.05, 0.01
"""Time to first token and between tokens, where a case does not say otherwise."""


def plain(asked: dict[str, Any], first_s: float = FIRST_S, step_s: float = STEP_S) -> Iterator[ScriptStep]:
    """One token an event, usage, [DONE]."""
    last = asked["max_tokens"] - 1
    every = event(token(asked))
    for number in range(last + 1):
        head = CHUNKED if number == 0 else b""
        data = every if number < last else event(token(asked, finish="length"))
        yield first_s + number * step_s, head + data, True
    yield first_s + last * step_s, event(usage(asked)) + event("[DONE]") + LAST, False


def half(asked: dict[str, Any]) -> int:
    """So many tokens come before a failure; one at least, for who asks for one token only."""
    return max(1, int(asked["max_tokens"]) // 2)
