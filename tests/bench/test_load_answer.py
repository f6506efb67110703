"""Bytes and stamps to an Answer: the same however the bytes were cut, and nothing a server sends breaks it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.client import exchange
from bench.client.exchange import Exchange
from bench.client.response import Response, parse
from bench.records.model import RequestError
from bench.testservers.cases import CASES
from bench.testservers.frames import BARE, CHUNKED, LAST, chunk, event
from bench.testservers.steps import CLOSE, RESET
from serving.sse import Splitter

ASKED = {"model": "m", "prompt": "a b c", "max_tokens": 6}
FINITE = sorted(set(CASES) - {"endless", "silence", "reset"})


def answer(parts: Iterable[bytes], **more: object) -> Response:
    cut = [part for part in parts if part]
    return parse(Exchange(0, 0.0, sent_s=0.0, stamps=[float(i) for i in range(len(cut))], parts=cut, **more))  # type: ignore[arg-type]


def stream(*contents: object, end: bytes = event("[DONE]") + LAST) -> Response:
    return answer([CHUNKED + b"".join(event(c) for c in contents) + end])  # type: ignore[arg-type]


def text(said: str, finish: str | None = None, **more: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "text": said, "finish_reason": finish}], **more}


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    places = sorted(draw(st.sets(st.integers(1, len(data) - 1), max_size=40)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@settings(max_examples=300, deadline=None)
@given(data=st.data(), name=st.sampled_from(FINITE))
def test_any_cut_gives_the_same_answer_up_to_stamps(data: st.DataObject, name: str) -> None:
    whole = b"".join(part for _, part, _ in CASES[name](ASKED) if part not in (CLOSE, RESET))
    parts = data.draw(cuts(whole))
    one, other = asdict(answer([whole])), asdict(answer(parts))
    assert len(one["event_s"]) == len(other["event_s"])
    assert (one["header_s"] is None) == (other["header_s"] is None)
    for stamped in ("event_s", "header_s", "first_answer_s"):
        del one[stamped], other[stamped]
    assert one == other


@settings(max_examples=300, deadline=None)
@given(data=st.data(), name=st.sampled_from(FINITE))
def test_an_event_is_stamped_by_the_read_that_completes_it(data: st.DataObject, name: str) -> None:
    whole = b"".join(part for _, part, _ in CASES[name](ASKED) if part not in (CLOSE, RESET))
    parts = data.draw(cuts(whole))
    found = answer(parts)
    seen = b""
    for number, part in enumerate(parts):
        seen += part
        assert len([s for s in found.event_s if s <= number]) == len(answer([seen]).event_s)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6))
def test_arbitrary_bytes_never_break_it(parts: list[bytes]) -> None:
    assert answer(parts).error is not None
    answer([CHUNKED, *(chunk(part) for part in parts if part)])
    answer([BARE, *parts])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "usage", "delta", "text", "content", "error", "finish_reason", "message",
                             "completion_tokens", "prompt_tokens_details", "reasoning_content", "tool_calls"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(JSON, max_size=5))
def test_arbitrary_json_never_breaks_it(contents: list[object]) -> None:
    """It ends as a success or as a classed error, with its stamps in order, whatever is inside."""
    found = [stream(*contents)]
    for content in contents:
        body = json.dumps(content).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        found.append(answer([head % len(body) + body]))
    for one in found:
        assert one.error is None or one.error in RequestError
        assert list(one.event_s) == sorted(one.event_s)


def test_reasoning_by_either_name_and_cached_tokens() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    found = stream(
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"reasoning": "hm"}}]},
        {"choices": [{"delta": {"reasoning_content": " so"}}]},
        {"choices": [{"delta": {"content": "yes"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": usage},
    )
    assert found.error is None
    assert (found.reasoning, found.text) == ("hm so", "yes")
    assert (found.input_tokens, found.output_tokens, found.cached_input_tokens) == (9, 3, 4)
    assert len(found.event_s) == 3


def test_tokens_of_each_event_from_continuous_usage() -> None:
    found = stream(
        text("a", usage={"prompt_tokens": 2, "completion_tokens": 1}),
        text("bcd", usage={"prompt_tokens": 2, "completion_tokens": 4}),
        text("e", "length", usage={"prompt_tokens": 2, "completion_tokens": 5}),
    )
    assert found.event_tokens == [1, 3, 1]
    assert stream(text("a"), text("b", "length", usage={"completion_tokens": 2})).event_tokens == []


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_a_request_that_the_engine_gave_up_is_no_success(reason: str) -> None:
    found = stream(text("a"), text("", reason))
    assert found.error is RequestError.IN_STREAM


def test_the_connections_own_error_wins() -> None:
    found = answer([CHUNKED + event(text("a"))], error="reset", detail="ECONNRESET")
    assert (found.error, found.detail, len(found.event_s)) == (RequestError.RESET, "ECONNRESET", 1)


def test_a_whole_body_ended_by_the_connection() -> None:
    body = json.dumps(
        {**text("hello", "stop"), "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    ).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    assert answer([head + body]).error is None
    assert answer([head + body[:-9]]).error is RequestError.MALFORMED
    announced = head.replace(b"Connection: close", b"Content-Length: %d" % len(body))
    assert answer([announced + body[:-9]]).error is RequestError.TRUNCATED


def test_a_body_that_swells_is_stopped() -> None:
    packed = gzip.compress(bytes(200_000_000), 9)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    assert answer([head % len(packed) + packed]).error is RequestError.TOO_LARGE


def test_interim_responses_are_not_the_answer() -> None:
    found = answer(
        [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", *(p for _, p, _ in CASES["plain"](ASKED))]
    )
    assert (found.status, found.error, found.header_s) == (200, None, 1.0)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["data: a", "data:b", "data", ": c", "event: e", "id: 1", "", "", "x"]), max_size=12
    ),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.data(),
)
def test_events_do_not_depend_on_the_cut_or_the_line_end(
    lines: list[str], end: str, data: st.DataObject
) -> None:
    # A last comment: a CR alone may be half of a CRLF until the next byte is there.
    lines = [*lines, "", ": end"]
    whole = "".join(f"{line}{end}" for line in lines).encode()
    expected = Splitter().feed("".join(f"{line}\n" for line in lines).encode())
    splitter = Splitter()
    parts = data.draw(cuts(whole))
    found = [event for part in parts for event in splitter.feed(part)]
    assert [e.data for e in found] == [e.data for e in expected]


def test_exchanges_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    made = [
        Exchange(
            7, 1.5, 3, sent_s=1.6, connected_s=1.55, closed_s=2.0, stamps=[1.7, 1.8], parts=[b"ab", b"c"]
        ),
        Exchange(8, 2.5, error="connect", detail="refused \N{SNOWMAN}", closed_s=2.6),
    ]
    path = tmp_path / "raw.bin"
    with path.open("wb") as file:
        for one in made:
            one.write(file)
    assert [asdict(one) for one in exchange.read(path)] == [asdict(one) for one in made]
    torn = path.read_bytes()
    for length in range(len(torn)):
        path.write_bytes(torn[:length])
        kept = list(exchange.read(path))
        assert [asdict(one) for one in kept] == [asdict(one) for one in made[: len(kept)]]
        assert len(kept) < 2
