"""Whatever a server sends costs its own request or question, with the reason: every parse at the edge."""

# ruff: noqa: UP031 -- JSON is full of braces
from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.accuracy import client as accuracy
from bench.accuracy.task import Ask
from bench.client import refusal
from bench.client.exchange import Exchange
from bench.client.job import Request
from bench.client.response import HALVES, Response, parse
from bench.client.to_record import record
from bench.records import parquet
from bench.records.model import RequestError
from bench.telemetry import exposition
from bench.testservers.frames import BARE, CHUNKED, LAST, chunk, whole_body
from serving import wire
from serving.config import ServingConfig
from serving.engines.endpoint import RunningEndpoint
from serving.engines.vllm import Vllm, _emptied
from serving.launch import ready

HALF = "\ud83d"
ODD = [
    "NaN", "Infinity", "-Infinity", "1e999", "-7", "true", "8.0", "8.5", '"8"', "null", "{}", "[]", "9" * 30,
    "9" * 5000, str(2**31), str(2**63), "-0", '"\\ud83d"', '"\\ude00"', '"\u2028"', '"\x85"', '"\x1b[31m"', '"<b>"',
    "[" * 5000 + "]" * 5000, "[" * 20_000, '{"a":' * 3000 + "1" + "}" * 3000, "\ufeff1", "tru",
]  # fmt: skip
WORDS = st.text(st.characters(), max_size=8)
VALUES = st.sampled_from(ODD) | WORDS.map(json.dumps) | st.integers().map(str) | st.floats().map(json.dumps)


@st.composite
def usages(draw: st.DrawFn) -> str:
    names = ("prompt_tokens", "completion_tokens")
    counts = [f'"{name}":{draw(VALUES)}' for name in draw(st.sets(st.sampled_from(names)))]
    details = draw(
        st.sampled_from(["", '"prompt_tokens_details":{"cached_tokens":%s}', '"prompt_tokens_details":%s'])
    )
    if details:
        counts.append(details % draw(VALUES))
    return "{%s}" % ",".join(counts) if draw(st.booleans()) else draw(VALUES)


@st.composite
def chunks(draw: st.DrawFn) -> str:
    """One event: OpenAI's shape with something odd somewhere in it, or something else altogether."""
    if draw(st.integers(0, 9)) == 0:
        return draw(VALUES)
    said = draw(VALUES)
    place = draw(
        st.sampled_from(
            ['"text":%s', '"delta":{"content":%s}', '"delta":{"reasoning_content":%s}', '"delta":%s',
             '"delta":{"tool_calls":%s}', '"message":{"content":%s}', '"text":"x","finish_reason":%s']
        )
    )  # fmt: skip
    choices = draw(st.sampled_from(['[{"index":0,%s}]' % (place % said), "[%s]" % said, said]))
    fields = [f'"choices":{choices}']
    if draw(st.booleans()):
        fields.append(f'"usage":{draw(usages())}')
    if draw(st.integers(0, 5)) == 0:
        fields.append(f'"error":{draw(VALUES)}')
    return "{%s}" % ",".join(fields)


def spoiled(draw: st.DrawFn, data: bytes) -> bytes:
    """Now and then a byte that is no UTF-8, or a cut, somewhere."""
    if draw(st.integers(0, 4)) or not data:
        return data
    at = draw(st.integers(0, len(data) - 1))
    return data[:at] + draw(st.sampled_from([b"\xff", b"\xed\xa0\x80", b"\x00", b"\r", b""])) + data[at + 1 :]


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    texts = draw(st.lists(chunks(), min_size=1, max_size=4))
    kind = draw(st.integers(0, 5))
    if kind == 0:
        status = draw(st.sampled_from([200, 400, 404, 429, 500, 503, 307]))
        return whole_body(status, spoiled(draw, texts[0].encode("utf-8", "surrogatepass")))
    events = [spoiled(draw, f"data: {text}\n\n".encode("utf-8", "surrogatepass")) for text in texts]
    head = CHUNKED if kind < 4 else BARE
    if draw(st.integers(0, 4)) == 0:
        head = head.replace(
            b"text/event-stream", draw(st.sampled_from([b"application/json", b"", b"\xff\x1b[31m"]))
        )
    end = draw(st.sampled_from([b"data: [DONE]\n\n", b""]))
    body = (
        b"".join(chunk(event) for event in [*events, end] if event) + LAST
        if kind < 4
        else b"".join(events) + end
    )
    return spoiled(draw, head + body)


def checked(answer: Response) -> None:
    """What every answer keeps to, so that it can be written, printed and summed."""
    assert refusal.DEFECT not in answer.detail, answer.detail
    for text in (answer.text, answer.reasoning, answer.detail, answer.finish_reason or ""):
        text.encode()
    for count in (answer.input_tokens, answer.output_tokens, answer.cached_input_tokens):
        assert count is None or (type(count) is int and 0 <= count <= wire.MOST_COUNT)
    assert all(0 < count <= wire.MOST_COUNT for count in answer.event_tokens)
    assert len(answer.detail) <= 600


@settings(max_examples=2000, deadline=None)
@given(response=responses(), places=st.lists(st.integers(1, 400), max_size=3))
def test_any_answer_is_read_or_refused(response: bytes, places: list[int]) -> None:
    cuts = sorted({place for place in places if place < len(response)})
    parts = [response[a:b] for a, b in zip([0, *cuts], [*cuts, len(response)], strict=True)]
    checked(parse(Exchange(0, 1.0, sent_s=1.0, closed_s=2.0, stamps=[1.5] * len(parts), parts=parts)))


@settings(max_examples=25, deadline=None)
@given(st.lists(responses(), min_size=20, max_size=40))
def test_what_was_read_can_be_written_and_read_back(tmp_path_factory: Any, answers: list[bytes]) -> None:
    file = tmp_path_factory.getbasetemp() / "hostile.parquet"
    asked = Request(0, 0.0, 1, 2, "{}")
    made = [
        record(Exchange(i, 1.0, -1, 1.0, None, 2.0, [1.5], [a]), asked, 1.0, 0)[0]
        for i, a in enumerate(answers)
    ]
    parquet.write_records(made, file)
    assert parquet.read_records(file) == tuple(made)


def stream(*events: str) -> Response:
    data = CHUNKED + b"".join(chunk(f"data: {e}\n\n".encode()) for e in (*events, "[DONE]")) + LAST
    return parse(Exchange(0, 1.0, sent_s=1.0, closed_s=2.0, stamps=[1.5], parts=[data]))


def token(text: str = '" a"', finish: str = "null") -> str:
    return '{"choices":[{"index":0,"text":%s,"finish_reason":%s}]}' % (text, finish)


@pytest.mark.parametrize(
    "count", ["9" * 30, str(2**31), "-5", "true", "8.0", '"8"', "[1]", "1e999"], ids=lambda c: c[:8]
)
def test_a_count_that_is_none_fails_its_request_by_name(count: str) -> None:
    found = stream(
        token(), token(finish='"length"'), '{"choices":[],"usage":{"completion_tokens":%s}}' % count
    )
    assert found.error is RequestError.MALFORMED
    assert found.detail.startswith("usage.completion_tokens is ")
    assert found.output_tokens is None


def test_null_counts_are_not_told() -> None:
    usage = '{"choices":[],"usage":{"prompt_tokens":null,"completion_tokens":NaN}}'
    found = stream(token(), token(finish='"length"'), usage)
    assert found.error is None
    assert (found.input_tokens, found.output_tokens) == (None, None)


def test_halves_of_a_character_are_joined_and_a_half_alone_is_noted() -> None:
    cut = stream(token('"\\ud83d"'), token('"\\ude00"'), token(finish='"length"'))
    assert (cut.error, cut.text, cut.detail) == (None, "\N{GRINNING FACE} a", HALVES)
    alone = stream(token('"\\ud83d"'), token(finish='"length"'))
    assert (alone.error, alone.text, alone.detail) == (None, "\ufffd a", HALVES)


def test_a_stream_is_read_whatever_its_label_says_and_the_label_is_noted() -> None:
    events = [
        f"data: {token()}\n\n".encode(),
        f"data: {token(finish=chr(34) + 'length' + chr(34))}\n\n".encode(),
    ]
    for label in (b"application/json", b"text/plain; charset=utf-8", b""):
        head = CHUNKED.replace(b"text/event-stream", label)
        parts = [
            head + chunk(b"dat"),
            *(chunk(e) for e in (events[0][3:], events[1], b"data: [DONE]\n\n")),
            LAST,
        ]
        found = parse(
            Exchange(0, 1.0, sent_s=1.0, closed_s=9.0, stamps=[1.0, 2.0, 3.0, 4.0, 5.0], parts=parts)
        )
        assert (found.error, found.streamed, found.event_s) == (None, True, [2.0, 3.0])
        assert "Content-Type" in found.detail
    upper = CHUNKED.replace(b"text/event-stream", b"Text/Event-Stream; charset=UTF-8")
    assert parse(
        Exchange(0, 1.0, 1, 1.0, None, 2.0, [1.5], [upper + chunk(events[0]) + chunk(events[1]) + LAST])
    ).streamed


def test_the_label_of_what_is_no_json_is_named() -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\n<html>hi</html>"
    found = parse(Exchange(0, 1.0, 1, 1.0, None, 2.0, [1.5], [page]))
    assert found.error is RequestError.MALFORMED
    assert "Content-Type text/html" in found.detail


def test_a_switch_of_protocols_and_bytes_after_the_answer() -> None:
    switch = b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
    found = parse(Exchange(0, 1.0, 1, 1.0, None, 2.0, [1.5], [switch]))
    assert (found.error, found.detail) == (
        RequestError.MALFORMED,
        "the server asks to switch to another protocol",
    )
    whole = CHUNKED + chunk(f"data: {token(finish=chr(34) + 'length' + chr(34))}\n\n".encode()) + LAST
    goodbye = whole_body(408, b"timeout")
    after = parse(Exchange(0, 1.0, 1, 1.0, None, 2.0, [1.5], [whole + goodbye]))
    assert (after.error, after.status, after.text) == (None, 200, " a")


def assert_short(words: str) -> None:
    assert words.isprintable()
    assert len(words) < 400


# text, JSON and lines -----------------------------------------------------------------------------------------


@settings(max_examples=2000, deadline=None)
@given(st.binary(max_size=80) | VALUES.map(lambda v: v.encode("utf-8", "surrogatepass")))
def test_json_is_read_or_refused(data: bytes) -> None:
    try:
        found = wire.loads(data)
    except wire.WireError as error:
        assert_short(str(error))
        return
    json.dumps(wire.scrubbed(found), ensure_ascii=False).encode()


@settings(max_examples=2000, deadline=None)
@given(st.text(st.characters(), max_size=400))
@example("\x1b]0;owned\x07\x9b31m\u202eabc\u2028\r\n\x00" + HALF)
def test_a_line_does_nothing_to_a_terminal(words: str) -> None:
    shown = wire.line(words, 100)
    shown.encode()
    assert shown.isprintable()
    assert len(shown) <= 100
    assert "\x1b" not in shown


@given(st.text(st.characters(), max_size=50))
def test_text_keeps_what_is_whole(words: str) -> None:
    whole = words.encode(errors="ignore").decode()
    assert wire.text(whole) == whole
    assert wire.text(wire.text(words)) == wire.text(words)


# what is asked before a load ----------------------------------------------------------------------------------


def served(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[httpx.Request], httpx.Response]
) -> ServingConfig:
    made = httpx.Client

    def client(**given: Any) -> httpx.Client:
        return made(transport=httpx.MockTransport(answer), base_url="http://server")

    monkeypatch.setattr(httpx, "Client", client)
    return ServingConfig.model_validate({"engine": "endpoint", "model": "m", "url": "http://server"})


BODIES = (
    VALUES.map(lambda v: v.encode("utf-8", "surrogatepass"))
    | VALUES.map(lambda v: b'{"data":%b}' % v.encode("utf-8", "surrogatepass"))
    | VALUES.map(lambda v: b'{"data":[{"id":%b},%b]}' % (2 * (v.encode("utf-8", "surrogatepass"),)))
    | VALUES.map(lambda v: b'{"version":%b,"simulated":%b}' % (2 * (v.encode("utf-8", "surrogatepass"),)))
    | VALUES.map(lambda v: b'{"data":[{"id":"m","max_model_len":%b}]}' % v.encode("utf-8", "surrogatepass"))
    | st.binary(max_size=30)
)


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_the_list_of_models_and_the_servers_account(coding: str) -> None:
    @settings(max_examples=400, deadline=None)
    @given(BODIES, st.sampled_from([200, 204, 404, 500]))
    def hold(body: bytes, status: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            headers = {"content-encoding": coding}
            config = served(
                patch, lambda request: httpx.Response(status, headers=headers, stream=Bytes(body))
            )
            said = ready.identity("http://server", config, "m")
            assert said is None or said.isprintable()
            found = RunningEndpoint().effective("http://server", config, "")
            json.dumps(found, ensure_ascii=False).encode()
            with suppress(
                httpx.HTTPError, wire.WireError
            ):  # becomes the launch's failure, `serving.launch.launch`
                Vllm().effective("http://server", config, "")
        assert _emptied(body) in (True, False)

    hold()


class Bytes(httpx.SyncByteStream):
    """A body as it is, whatever its coding says."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def __iter__(self) -> Any:
        yield self.body


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ([{"id": "m"}, "x", None], ["m"]),
        ({"data": None}, []),
        ({"data": [{"id": None}, {"id": "m"}, {"id": HALF}]}, ["m", "\ufffd"]),
        ("<html>", []),
    ],
)
def test_lists_of_models_as_they_are_met(listed: object, names: list[str]) -> None:
    assert wire.model_names(listed) == names


@settings(max_examples=600, deadline=None)
@given(st.lists(chunks(), max_size=3), st.integers(1, 60))
def test_the_probe_ends_with_a_token_or_a_reason(texts: list[str], step: int) -> None:
    data = "".join(f"data: {text}\n\n" for text in texts).encode("utf-8", "surrogatepass")
    parts = [data[at : at + step] for at in range(0, len(data), step)]
    found = ready._read(iter(parts), math.inf)
    assert found is None or (found.text.isprintable() and len(found.text) < 500)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_the_probe_splits_lines_by_cr_and_lf_only(separator: str) -> None:
    event = {"choices": [{"index": 0, "text": f" {separator}x"}]}
    data = f"data: {json.dumps(event, ensure_ascii=False)}\n\ndata: [DONE]\n\n" if separator >= "\x80" else (
        f": {separator}\ndata: {json.dumps(event)}\n\ndata: [DONE]\n\n")  # fmt: skip
    assert ready._read([data.encode()], math.inf) is None


# metrics of the server ----------------------------------------------------------------------------------------

NAMES = ("vllm:num_requests_running", "vllm:e2e_request_latency_seconds_bucket", "vllm:kv_cache_usage_perc")
NUMBERS = st.sampled_from(["NaN", "+Inf", "-1", "1e308", "1e999", "9" * 400, "x", "", "1 2 3", "\u2028"])


@st.composite
def expositions(draw: st.DrawFn) -> str:
    rows = []
    for _ in range(draw(st.integers(0, 5))):
        name = draw(st.sampled_from(NAMES) | WORDS)
        kind = draw(st.sampled_from(["", "# TYPE %s gauge\n", "# TYPE %s histogram\n", "# HELP %s \\"]))
        label = draw(st.sampled_from(["", '{le="%s"}', '{a="%s"}', "{%s}", '{"%s"}', '{le="0.1",le="%s"}']))
        rows.append((kind % name if kind else "") + name + (label % draw(WORDS | NUMBERS) if label else "")
                    + " " + draw(NUMBERS | st.floats().map(str)))  # fmt: skip
    return draw(st.sampled_from(["\n", "\r\n", "\r"])).join(rows) + "\n"


@settings(max_examples=1200, deadline=None)
@given(expositions() | st.text(st.characters(codec="utf-8"), max_size=60))
def test_metrics_are_read_or_refused(text: str) -> None:
    exposition.only(text, NAMES)
    try:
        found = exposition.flatten(text)
    except exposition.NotExpositionError:
        return
    for name, value in found.values.items():
        assert math.isfinite(value)
        if "|le=" in name:
            assert not math.isnan(float(name.split("|le=")[1]))


# accuracy -----------------------------------------------------------------------------------------------------


@settings(max_examples=800, deadline=None)
@given(
    st.sampled_from(["generate", "chat", "score", "rank"]),
    chunks()
    | VALUES.map(
        lambda v: '{"choices":[{"text":%s,"logprobs":{"tokens":[%s],"token_logprobs":[%s]}}]}' % (v, v, v)
    ),
)
def test_an_accuracy_reply_is_an_answer_or_an_error(kind: Any, text: str) -> None:
    try:
        reply = accuracy.reply_of(text.encode("utf-8", "surrogatepass"))
        answer = accuracy.answer_of(Ask(kind, "q", choices=("a", "b")), reply)
    except accuracy.AskError as error:
        assert_short(str(error))
        return
    json.dumps(answer.text, ensure_ascii=False).encode()
    assert isinstance(answer.text, str)
