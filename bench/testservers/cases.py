"""CASES: what a server may do to a client, each an exact script (`bench.testservers.steps`).

A request's model names its case; `plain:TTFT_MS:STEP_MS` is the ordinary stream with timings of choice. Every
case here has been got wrong by a load tool somewhere; METHODOLOGY.md says how each is counted.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

from bench.testservers.frames import (
    BARE,
    CHUNKED,
    LAST,
    chunk,
    envelope,
    event,
    token,
    unchunked,
    usage,
    whole_body,
)
from bench.testservers.gateways import buffered, held_bytes, hidden_reasoning, open_after_done, stalls
from bench.testservers.steps import CLOSE, FIRST_S, RESET, STEP_S, Script, ScriptStep, half, plain


def script_for(model: str) -> Script:
    """The script a model name asks for; an unknown one is the plain stream."""
    name, *numbers = model.split(":")
    if name == "plain" and numbers:
        first_s, step_s = (float(n) / 1000 for n in numbers)
        return lambda asked: plain(asked, first_s, step_s)
    return CASES.get(name, plain)


def role_first(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """A role-only chunk at once, an empty one after: neither is the first token."""
    delta = {"role": "assistant", "content": ""}
    role = {**envelope(asked), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield 0.0, CHUNKED + event(role), False
    yield 0.02, event(token(asked, "")), False
    yield from _without_head(plain(asked))


def several_tokens(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Four tokens an event, counted by continuous usage: events are not tokens."""
    count, sent, moment, head = asked["max_tokens"], 0, FIRST_S, CHUNKED
    while sent < count:
        now = min(4, count - sent)
        sent += now
        finish = "length" if sent == count else None
        yield (
            moment,
            head + event({**token(asked, " x" * now, finish), "usage": usage(asked, sent)["usage"]}),
            True,
        )
        moment, head = moment + STEP_S, b""
    yield moment, event(usage(asked)) + event("[DONE]") + LAST, False


def speculative(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Bursts: several events in one write, then a pause, as speculative decoding gives."""
    count, sent, moment, head = asked["max_tokens"], 0, FIRST_S, CHUNKED
    while sent < count:
        now = min(3, count - sent)
        sent += now
        events = [
            event(token(asked, finish="length" if sent - now + i + 1 == count else None)) for i in range(now)
        ]
        yield moment, head + b"".join(events), True
        moment, head = moment + 3 * STEP_S, b""
    yield moment, event(usage(asked)) + event("[DONE]") + LAST, False


def reasoning(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Half the output is reasoning, by name: TTFT counts it, TTFO does not."""
    count = asked["max_tokens"]
    for number in range(count):
        text = {"reasoning_content": " r"} if number < count // 2 else {"content": " x"}
        finish = "length" if number == count - 1 else None
        data = event({**envelope(asked), "choices": [{"index": 0, "delta": text, "finish_reason": finish}]})
        yield FIRST_S + number * STEP_S, (CHUNKED if number == 0 else b"") + data, True
    yield FIRST_S + count * STEP_S, event(usage(asked)) + event("[DONE]") + LAST, False


def late_usage(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """The usage-only last chunk comes 100 ms after the last token: E2E ends at the token."""
    steps = list(plain(asked))
    yield from steps[:-1]
    yield steps[-1][0] + 0.1, steps[-1][1], False


def no_usage(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """No usage at all: the server's count is unknown, not the number of events."""
    steps = list(plain(asked))
    yield from steps[:-1]
    yield steps[-1][0], event("[DONE]") + LAST, False


def no_done(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """A finish reason and an orderly end, but no [DONE]: whole, and noted."""
    steps = list(plain(asked))
    yield from steps[:-1]
    yield steps[-1][0], event(usage(asked)) + LAST, False


def no_end(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """The body ends in order after half the tokens, without a finish reason: truncated."""
    steps = list(plain(asked))[: half(asked)]
    yield from steps
    yield steps[-1][0], LAST, False


def error_in_stream(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Status 200, some tokens, then an error event and [DONE]."""
    steps = list(plain(asked))[: half(asked)]
    yield from steps
    said = {"error": {"message": "the engine died", "type": "InternalServerError", "code": 500}}
    yield steps[-1][0], event(said) + event("[DONE]") + LAST, False


def reset(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """A TCP reset after half the tokens."""
    steps = list(plain(asked))[: half(asked)]
    yield from steps
    yield steps[-1][0] + STEP_S, RESET, False


def drip(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Every event in three pieces, 2 ms apart: an event arrives with its last byte."""
    for moment, data, is_event in plain(asked):
        third = max(1, len(data) // 3)
        yield moment, data[:third], False
        yield moment + 0.002, data[third : 2 * third], False
        yield moment + 0.004, data[2 * third :], is_event


def silence(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Headers, then nothing for a minute."""
    yield 0.0, CHUNKED, False
    yield 60.0, CLOSE, False


def unframed(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Neither chunks nor a length: the connection's end is the body's; whole because of [DONE]."""
    for number, (moment, data, is_event) in enumerate(plain(asked)):
        body = data[len(CHUNKED) :] if number == 0 else data
        yield moment, (BARE if number == 0 else b"") + unchunked(body), is_event
        last = moment
    yield last, CLOSE, False


def unframed_cut(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """The same, cut after half the tokens: truncated, though TCP ended in order."""
    steps = list(unframed(asked))[: half(asked)]
    yield from steps
    yield steps[-1][0], CLOSE, False


def gzipped(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Compressed although identity was asked for; all in one, so only the end is known."""
    body = b"".join(unchunked(d[len(CHUNKED) :] if i == 0 else d) for i, (_, d, _) in enumerate(plain(asked)))
    packed = gzip.compress(body)
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    yield FIRST_S, head + chunk(packed) + LAST, True


def not_utf8(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """A byte that is not UTF-8 inside a token: noted, and the rest still counts."""
    for moment, data, is_event in plain(asked):
        yield moment, data.replace(b" x", b" \xff"), is_event


def endless(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Tokens without end: the deadline ends it."""
    yield from (
        (FIRST_S + i * STEP_S, (CHUNKED if i == 0 else b"") + event(token(asked)), True) for i in range(10**6)
    )


def hangs_up(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """A whole answer, then the connection is closed without a word: the next request needs a new one."""
    steps = list(plain(asked))
    yield from steps
    yield steps[-1][0], CLOSE, False


def rate_limited(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Status 429 with Retry-After: 7."""
    yield 0.0, whole_body(429, b'{"error": {"message": "slow down"}}', b"Retry-After: 7\r\n"), False


def redirect(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Status 307: not followed, the place is named."""
    yield 0.0, whole_body(307, b"", b"Location: http://127.0.0.1:9/elsewhere\r\n"), False


def broken(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Status 503."""
    yield 0.0, whole_body(503, b"no capacity"), False


def malformed(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """An event that is not JSON."""
    yield FIRST_S, CHUNKED + event(token(asked)) + event("{not json") + event("[DONE]") + LAST, False


def not_http(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Bytes that are no HTTP."""
    yield 0.0, b"hello, this is not HTTP\r\n\r\n", False


def no_tokens(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """A success without one token."""
    yield (
        FIRST_S,
        CHUNKED + event(token(asked, "", "stop")) + event(usage(asked, 0)) + event("[DONE]") + LAST,
        False,
    )


def whole(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Not streamed: one JSON body with a length."""
    content = {**token(asked, " x" * asked["max_tokens"], "length"), "usage": usage(asked)["usage"]}
    yield FIRST_S, whole_body(200, json.dumps(content).encode()), True


def late_whole(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """Not streamed, and nothing is heard until it is made: 0.9 s."""
    yield from ((0.9, data, is_event) for _, data, is_event in whole(asked))


def crlf(asked: dict[str, Any]) -> Iterator[ScriptStep]:
    """CRLF line ends inside the events, a comment line, and a trailer after the last chunk."""
    for number, (moment, data, is_event) in enumerate(plain(asked)):
        body = unchunked(data[len(CHUNKED) :] if number == 0 else data).replace(b"\n", b"\r\n")
        end = data.endswith(LAST)
        yield (
            moment,
            (CHUNKED if number == 0 else b"")
            + chunk(b": ping\r\n\r\n" + body)
            + (b"0\r\nX-T: 1\r\n\r\n" if end else b""),
            is_event,
        )


CASES: dict[str, Script] = {
    f.__name__: f
    for f in (
        plain, role_first, several_tokens, speculative, reasoning, hidden_reasoning, held_bytes, buffered,
        open_after_done, stalls, late_usage, no_usage, no_done, no_end,
        error_in_stream, reset, drip, silence, unframed, unframed_cut, gzipped, not_utf8, endless,
        hangs_up, rate_limited, redirect, broken, malformed, not_http, no_tokens, whole, late_whole, crlf,
    )
}  # fmt: skip


def _without_head(steps: Iterator[ScriptStep]) -> Iterator[ScriptStep]:
    for number, (moment, data, is_event) in enumerate(steps):
        yield moment, data[len(CHUNKED) :] if number == 0 else data, is_event
