"""What the server answered: an Exchange's bytes and stamps read as HTTP, then SSE, then OpenAI's JSON.

Pure. Whatever way the bytes were cut, the answer is the same up to its stamps (a property test).
Definitions: METHODOLOGY.md. The first token is the first event with non-empty output of any kind; an empty or
role-only chunk is not one. An answer is complete when the server said why it ended (a finish reason) and its
body ended in order; a missing [DONE] is then only noted.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from typing import Any

import httptools

from bench.load.exchange import Exchange
from bench.load.sse import Event, Splitter
from bench.records import RequestError

ABORTED = ("abort", "error")
"""Finish reasons that say the engine gave the request up."""
MOST_INFLATED = 1 << 26


@dataclass(slots=True)
class Answer:
    """One response. Stamps are CLOCK_MONOTONIC seconds of the read that completed the event."""

    status: int | None = None
    header_s: float | None = None
    first_answer_s: float | None = None
    event_s: list[float] = field(default_factory=list)
    event_tokens: list[int] = field(default_factory=list)
    text: str = ""
    reasoning: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    finish_reason: str | None = None
    error: RequestError | None = None
    detail: str = ""
    streamed: bool = True


def parse(exchange: Exchange) -> Answer:
    """The answer in an exchange. An error the connection saw wins over what the bytes say."""
    reader = _Reader()
    try:
        for stamp, part in zip(exchange.stamps, exchange.parts, strict=True):
            reader.feed(part, stamp)
        reader.finish()
    except httptools.HttpParserError as error:
        reader.fail(RequestError.MALFORMED, f"not HTTP: {error}")
    except zlib.error as error:
        reader.fail(RequestError.MALFORMED, f"not gzip: {error}")
    answer = reader.answer
    if exchange.error:
        answer.error, answer.detail = RequestError(exchange.error), exchange.detail
    elif answer.error is None:
        _judge(answer, reader, exchange)
    return answer


class _Reader:
    """Feeds bytes through HTTP, content coding and SSE; collects what OpenAI's chunks say."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.done_marker = False
        self.complete = False
        self._http = httptools.HttpResponseParser(self)
        self._sse: Splitter | None = None
        self._inflate: Any = None
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._texts: list[str] = []
        self._reasonings: list[str] = []
        self._now = 0.0
        self.framed = True

    def feed(self, part: bytes, stamp: float) -> None:
        self._now = stamp
        self._http.feed_data(part)

    # llhttp's callbacks ---------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._http.get_status_code()
        if 100 <= status < 200:
            self._headers.clear()
            return
        self.answer.status, self.answer.header_s = status, self._now
        if self._headers.get("content-encoding", "").lower() in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        chunked = "chunked" in self._headers.get("transfer-encoding", "").lower()
        self.framed = chunked or "content-length" in self._headers
        if status == 200 and "text/event-stream" in self._headers.get("content-type", ""):
            self._sse = Splitter()

    def on_body(self, body: bytes) -> None:
        data = self._inflate.decompress(body, MOST_INFLATED) if self._inflate else body
        if self._inflate and self._inflate.unconsumed_tail:
            self.fail(RequestError.TOO_LARGE, "a compressed body swells beyond all measure")
        if self._sse is None:
            self._body.append(data)
            return
        for event in self._sse.feed(data):
            self._event(event)

    def on_message_complete(self) -> None:
        if self.answer.status is not None:
            self.complete = True

    # the stream -----------------------------------------------------------------------------------

    def _event(self, event: Event) -> None:
        if event.data.strip() == b"[DONE]":
            self.done_marker = True
            return
        chunk = self._json(event.data)
        if chunk is None:
            return
        if event.kind == "error" or chunk.get("error"):
            self.fail(RequestError.IN_STREAM, _message(chunk.get("error", chunk)))
            return
        before = self.answer.output_tokens
        self._usage(chunk)
        choice = _choice(chunk)
        if choice.get("finish_reason"):
            self.answer.finish_reason = str(choice["finish_reason"])
        answers, reasons = _output(choice)
        if answers or reasons:
            self.answer.event_s.append(self._now)
            self._texts.append(answers)
            self._reasonings.append(reasons)
            if answers and self.answer.first_answer_s is None:
                self.answer.first_answer_s = self._now
            if self.answer.output_tokens is not None and choice:
                self.answer.event_tokens.append(self.answer.output_tokens - (before or 0))

    def finish(self) -> None:
        """After the last byte: a body that is not a stream is read whole."""
        answer = self.answer
        answer.streamed = self._sse is not None
        if len(answer.event_tokens) != len(answer.event_s) or min(answer.event_tokens, default=1) < 1:
            answer.event_tokens = []
        if self._sse is None and answer.status is not None:
            self._whole(b"".join(self._body))
        answer.text, answer.reasoning = "".join(self._texts), "".join(self._reasonings)

    def _whole(self, body: bytes) -> None:
        answer, status = self.answer, self.answer.status
        if status == 429:
            after = self._headers.get("retry-after")
            said = f"; Retry-After: {after}" if after else ""
            self.fail(RequestError.RATE_LIMITED, f"429{said}: {_excerpt(body)}")
        elif status is not None and 300 <= status < 400:
            place = self._headers.get("location", "nowhere")
            self.fail(RequestError.HTTP_STATUS, f"{status}: redirected to {place}, which is not followed")
        elif status != 200:
            self.fail(RequestError.HTTP_STATUS, f"{status}: {_excerpt(body)}")
        elif self.complete or not self.framed:
            data = self._json(body)
            if data is None:
                return
            if data.get("error"):
                self.fail(RequestError.IN_STREAM, _message(data["error"]))
                return
            self._usage(data)
            choice = _choice(data)
            if choice.get("finish_reason"):
                answer.finish_reason = str(choice["finish_reason"])
            message = choice.get("message")
            answers, reasons = _output({"delta": message} if isinstance(message, dict) else choice)
            self._texts, self._reasonings = [answers], [reasons]

    def _json(self, data: bytes) -> dict[str, Any] | None:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode(errors="replace")
            self.answer.detail = "the stream holds bytes that are not UTF-8"
        try:
            loaded = json.loads(text)
        except ValueError:
            loaded = None
        if not isinstance(loaded, dict):
            self.fail(RequestError.MALFORMED, f"not a JSON object: {_excerpt(data)}")
            return None
        return loaded

    def _usage(self, chunk: dict[str, Any]) -> None:
        usage = chunk.get("usage")
        if not isinstance(usage, dict):
            return
        answer = self.answer
        if isinstance(usage.get("prompt_tokens"), int):
            answer.input_tokens = usage["prompt_tokens"]
        if isinstance(usage.get("completion_tokens"), int):
            answer.output_tokens = usage["completion_tokens"]
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
            answer.cached_input_tokens = details["cached_tokens"]

    def fail(self, error: RequestError, detail: str) -> None:
        """The first error is the cause."""
        if self.answer.error is None:
            self.answer.error, self.answer.detail = error, detail


def _judge(answer: Answer, reader: _Reader, exchange: Exchange) -> None:
    """Whether the answer is whole, once the connection itself saw no error."""
    if answer.status is None:
        answer.error, answer.detail = RequestError.TRUNCATED, "the connection ended inside the headers"
        return
    ended = reader.done_marker or answer.finish_reason is not None
    # Without a length or chunks the connection's end is the body's: what was said proves it whole.
    complete = reader.complete or (not reader.framed and ended)
    if answer.finish_reason in ABORTED:
        answer.error, answer.detail = RequestError.IN_STREAM, f"finish reason {answer.finish_reason}"
    elif answer.streamed and not ended:
        answer.error = RequestError.TRUNCATED
        answer.detail = exchange.detail or "the stream ended without a finish reason or [DONE]"
    elif not complete and not (answer.streamed and reader.done_marker):
        answer.error = RequestError.TRUNCATED
        answer.detail = exchange.detail or "the body ended before its announced end"
    elif not answer.event_s and (answer.streamed or not (answer.text or answer.reasoning)):
        answer.error, answer.detail = RequestError.EMPTY, "a success without one token of output"
    elif answer.streamed and not reader.done_marker:
        answer.detail = answer.detail or "the stream ended in order but without [DONE]"


def _choice(content: dict[str, Any]) -> dict[str, Any]:
    choices = content.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    return first if isinstance(first, dict) else {}


def _output(choice: dict[str, Any]) -> tuple[str, str]:
    """Text of the answer and of the reasoning that one chunk carries."""
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        text = choice.get("text")
        return (text, "") if isinstance(text, str) else ("", "")
    answer = delta.get("content") or delta.get("refusal") or ""
    if not answer and delta.get("tool_calls"):
        answer = json.dumps(delta["tool_calls"])
    reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
    return str(answer), str(reasoning)


def _message(error: Any) -> str:
    if isinstance(error, dict):
        error = error.get("message", error)
    return str(error)[:500]


def _excerpt(body: bytes) -> str:
    return body[:300].decode(errors="replace")
