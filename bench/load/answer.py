"""What the server answered: an Exchange's bytes and stamps read as HTTP, then SSE, then OpenAI's JSON.

Pure. Whatever way the bytes were cut, the answer is the same up to its stamps (a property test).
Definitions: METHODOLOGY.md. The first token is the first event with non-empty output of any kind; an empty or
role-only chunk is not one. An answer is complete when the server said why it ended (a finish reason) and its
body ended in order; a missing [DONE] is then only noted.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import httptools

from bench.load import content, refusal
from bench.load.exchange import LEFT_OPEN, Exchange
from bench.records import RequestError
from serving import wire
from serving.sse import Event, Splitter

ABORTED = ("abort", "error")
"""Finish reasons that say the engine gave the request up."""
MOST_INFLATED = 1 << 26
MOST_DETAIL = 500
MOST_REASON = 100
HALVES = "the text holds half characters (lone surrogates)"
STREAM_BEGINS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""How a body of server-sent events begins, whatever its Content-Type says."""
TOLD_APART = max(map(len, STREAM_BEGINS))
BLANK_PARTS = 100


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
    reasoning_tokens: int | None = None
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
    except Exception as error:  # noqa: BLE001 -- whatever a server sent costs its own request, with the reason
        reader.fail(RequestError.MALFORMED, refusal.unreadable(error))
    try:
        reader.finish()
    except Exception as error:  # noqa: BLE001 -- as above
        reader.fail(RequestError.MALFORMED, refusal.unreadable(error))
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
        self._body: list[tuple[float, bytes]] = []
        self._label = ""
        self._told_apart = False
        self._size = 0
        self._texts: list[str] = []
        self._reasonings: list[str] = []
        self._now = 0.0
        self._told = 0
        self.framed = True

    def feed(self, part: bytes, stamp: float) -> None:
        self._now = stamp
        self._http.feed_data(part)

    # llhttp's callbacks ---------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.complete:  # bytes after the answer are another's, such as a gateway's goodbye
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status = self._http.get_status_code()
        if 100 <= status < 200:
            self._headers.clear()
            return
        self.answer.status, self.answer.header_s = status, self._now
        if self._headers.get("content-encoding", "").lower() in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        chunked = "chunked" in self._headers.get("transfer-encoding", "").lower()
        self.framed = chunked or "content-length" in self._headers
        self._label = self._headers.get("content-type", "")
        if status == 200 and "text/event-stream" in self._label.lower():
            self._sse = Splitter()

    def on_body(self, body: bytes) -> None:
        if self.complete or self.answer.error is RequestError.TOO_LARGE:
            return
        data = self._inflate.decompress(body, MOST_INFLATED) if self._inflate else body
        self._size += len(data)
        if self._inflate and (self._inflate.unconsumed_tail or self._size > MOST_INFLATED):
            self.fail(RequestError.TOO_LARGE, "a compressed body swells beyond all measure")
            return
        if self._sse is None:
            self._body.append((self._now, data))
            if self.answer.status == 200 and not self._told_apart:
                self._tell_apart()
            return
        for event in self._sse.feed(data):
            self._event(event)

    def _tell_apart(self, ended: bool = False) -> None:
        """Whether a body that is not labelled as a stream is one; what was held back is then read as such."""
        begin = b"".join(data for _, data in self._body).lstrip()
        if len(begin) < TOLD_APART and not ended and len(self._body) < BLANK_PARTS:
            return
        self._told_apart = True
        if not begin.startswith(STREAM_BEGINS):
            return
        self._note(f"a stream of events under Content-Type {wire.line(self._label, 60) or '(none)'}")
        self._sse, now = Splitter(), self._now
        for self._now, data in self._body:  # noqa: B020 -- each with the stamp it was read at
            for event in self._sse.feed(data):
                self._event(event)
        self._now = now
        self._body.clear()

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
            self.fail(RequestError.IN_STREAM, refusal.message(chunk.get("error", chunk)))
            return
        self._usage(chunk)
        choice = content.choice(chunk)
        self._ending(choice)
        answers, reasons = content.output(choice)
        if answers or reasons:
            self.answer.event_s.append(self._now)
            self._texts.append(answers)
            self._reasonings.append(reasons)
            if answers and self.answer.first_answer_s is None:
                self.answer.first_answer_s = self._now
            if self.answer.output_tokens is not None and choice:
                # Tokens of events without text (half a character) belong to the next that has some.
                self.answer.event_tokens.append(self.answer.output_tokens - self._told)
                self._told = self.answer.output_tokens

    def finish(self) -> None:
        """After the last byte: a body that is not a stream is read whole."""
        answer = self.answer
        if self._sse is None and answer.status == 200 and not self._told_apart:
            self._tell_apart(ended=True)
        answer.streamed = self._sse is not None
        if not content.believable(answer.event_tokens, len(answer.event_s), answer.output_tokens or 0):
            answer.event_tokens = []
        if self._sse is None and answer.status is not None:
            self._whole(b"".join(data for _, data in self._body))
        said, thought = "".join(self._texts), "".join(self._reasonings)
        answer.text, answer.reasoning = wire.text(said), wire.text(thought)
        if answer.text != said or answer.reasoning != thought:
            self._note(HALVES)

    def _whole(self, body: bytes) -> None:
        status = self.answer.status
        if status == 429:
            after = self._headers.get("retry-after")
            said = f"; Retry-After: {after}" if after else ""
            self.fail(RequestError.RATE_LIMITED, f"429{said}: {refusal.words(body)}")
        elif status is not None and 300 <= status < 400:
            place = self._headers.get("location", "nowhere")
            self.fail(RequestError.HTTP_STATUS, f"{status}: redirected to {place}, which is not followed")
        elif status != 200:
            self.fail(RequestError.HTTP_STATUS, f"{status}: {refusal.words(body)}")
        elif self.complete or not self.framed:
            data = self._json(body)
            if data is None:
                return
            if data.get("error"):
                self.fail(RequestError.IN_STREAM, refusal.message(data["error"]))
                return
            self._usage(data)
            choice = content.choice(data)
            self._ending(choice)
            message = choice.get("message")
            answers, reasons = content.output({"delta": message} if isinstance(message, dict) else choice)
            self._texts, self._reasonings = [answers], [reasons]

    def _json(self, data: bytes) -> dict[str, Any] | None:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode(errors="replace")
            self._note("the answer holds bytes that are not UTF-8")
        try:
            loaded = wire.loads(text)
        except wire.WireError as error:
            said = str(error).removeprefix("not JSON ")
            self.fail(RequestError.MALFORMED, f"not a JSON object: {said}{self._labelled()}")
            return None
        if not isinstance(loaded, dict):
            self.fail(RequestError.MALFORMED, f"not a JSON object: {refusal.excerpt(data)}{self._labelled()}")
            return None
        return loaded

    def _labelled(self) -> str:
        return "" if self._sse else f" (Content-Type {wire.line(self._label, 60) or 'not told'})"

    def _ending(self, choice: dict[str, Any]) -> None:
        reason = choice.get("finish_reason")
        if reason:
            self.answer.finish_reason = wire.text(str(reason)[:MOST_REASON])

    def _usage(self, chunk: dict[str, Any]) -> None:
        """Token counts, the newest; one out of its range costs the request."""
        try:
            told = content.usage(chunk)
        except wire.WireError as error:
            self.fail(RequestError.MALFORMED, str(error))
            return
        if told is None:
            return
        answer = self.answer
        answer.input_tokens = answer.input_tokens if told.input_tokens is None else told.input_tokens
        answer.output_tokens = answer.output_tokens if told.output_tokens is None else told.output_tokens
        if told.cached_input_tokens is not None:
            answer.cached_input_tokens = told.cached_input_tokens
        if told.reasoning_tokens is not None:
            answer.reasoning_tokens = told.reasoning_tokens

    def _note(self, said: str) -> None:
        """Of an answer that may still be whole; an error's own words come before."""
        self.answer.detail = self.answer.detail or said

    def fail(self, error: RequestError, detail: str) -> None:
        """The first error is the cause."""
        if self.answer.error is None:
            self.answer.error, self.answer.detail = error, wire.text(detail[:MOST_DETAIL])


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
    elif exchange.detail == LEFT_OPEN:
        answer.detail = answer.detail or LEFT_OPEN
    elif answer.streamed and not reader.done_marker:
        answer.detail = answer.detail or "the stream ended in order but without [DONE]"
