"""What the load client must read in each case of `bench.testservers.cases`, and the check that it does.

`make conformance` prints the table, the tests assert it. Stamps are held against what the scripted server
truly sent; a late stamp of the client's machine being busy is not the case's affair, so the tolerance of a
single request is wide (20 ms) and the benchmark (`make bench-client`) holds the narrow ones.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from bench.client.drive import Drive, drive
from bench.point import Load
from bench.records.model import Record, RequestError
from bench.traffic.prompts import prompts
from serving.engine import Endpoint

TOLERANCE_S = 0.020
TOKENS = 12
REQUESTS = 3
Judge = Callable[[Record], Sequence[str]]


@dataclass(frozen=True)
class Expected:
    """How every request of a case must be recorded. None: not held against anything.

    events: how many events with output; output_tokens: the server's count; first_event: which of the
    server's event steps is the first token; detail: text that the record's detail must hold.
    """

    error: RequestError | None = None
    events: int | None = TOKENS
    output_tokens: int | None = TOKENS
    finish: str | None = "length"
    detail: str = ""
    stamps: bool = True
    connections_kept: bool = True
    more: Judge = lambda record: ()
    load: tuple[tuple[str, object], ...] = ()


def _reasoning(record: Record) -> list[str]:
    assert record.first_s is not None
    assert record.first_answer_s is not None
    apart = record.first_answer_s - record.first_s
    return [] if abs(apart - TOKENS // 2 * 0.010) <= TOLERANCE_S else [f"TTFO {apart:.3f} s after TTFT"]


def _four(record: Record) -> list[str]:
    return [] if record.event_tokens == (4, 4, 4) else [f"tokens per event {record.event_tokens}"]


def _whole(record: Record) -> list[str]:
    return [] if record.first_s is None and record.last_s is not None else ["a TTFT without a stream"]


def _hidden(record: Record) -> list[str]:
    found = (record.reasoning_tokens, record.hidden_tokens)
    return [] if found == (TOKENS // 2, TOKENS // 2) else [f"{found} reasoning and hidden tokens"]


def _all_told(record: Record) -> list[str]:
    wrong = [] if sum(record.event_tokens) == TOKENS else [f"{sum(record.event_tokens)} tokens of events"]
    return wrong if max(record.event_tokens, default=0) == 2 else [*wrong, "tokens without text are lost"]


def _together(record: Record) -> list[str]:
    return [] if record.first_s == record.last_s else ["one read told as several"]


CHAT = (("endpoint", "chat"),)
SHORT = (("request_timeout_s", 0.6), ("silence_timeout_s", 5.0))

EXPECTED: dict[str, Expected] = {
    "plain": Expected(),
    "role_first": Expected(load=CHAT),
    "several_tokens": Expected(events=3, more=_four),
    "speculative": Expected(stamps=False),
    "reasoning": Expected(load=CHAT, more=_reasoning),
    "hidden_reasoning": Expected(events=TOKENS // 2, more=_hidden),
    "held_bytes": Expected(events=TOKENS // 2 + 1, more=_all_told),
    "buffered": Expected(more=_together, stamps=False),
    "open_after_done": Expected(detail="left its stream open", stamps=False, connections_kept=False),
    "stalls": Expected(RequestError.TIMEOUT, TOKENS // 2, None, None, "no event for 0.6 s", load=SHORT,
                       stamps=False, connections_kept=False),
    "late_usage": Expected(),
    "no_usage": Expected(output_tokens=None),
    "no_done": Expected(detail="without [DONE]"),
    "no_end": Expected(RequestError.TRUNCATED, TOKENS // 2, None, None, "finish reason"),
    "error_in_stream": Expected(RequestError.IN_STREAM, TOKENS // 2, None, None, "the engine died"),
    "reset": Expected(RequestError.RESET, TOKENS // 2, None, None, "reset", connections_kept=False),
    "drip": Expected(),
    "silence": Expected(RequestError.SILENT, 0, None, None, "no byte",
                        load=(("silence_timeout_s", 0.5),), stamps=False, connections_kept=False),
    "unframed": Expected(connections_kept=False),
    "unframed_cut": Expected(RequestError.TRUNCATED, TOKENS // 2, None, None, "closed by the server",
                             connections_kept=False),
    "gzipped": Expected(stamps=False),
    "not_utf8": Expected(detail="not UTF-8"),
    "endless": Expected(RequestError.TIMEOUT, None, None, None, "0.6 s", load=SHORT, stamps=False,
                        connections_kept=False),
    "hangs_up": Expected(connections_kept=False),
    "rate_limited": Expected(RequestError.RATE_LIMITED, 0, None, None, "Retry-After: 7", stamps=False),
    "redirect": Expected(RequestError.HTTP_STATUS, 0, None, None, "elsewhere", stamps=False),
    "broken": Expected(RequestError.HTTP_STATUS, 0, None, None, "503", stamps=False),
    "malformed": Expected(RequestError.MALFORMED, 1, None, None, "not a JSON object", stamps=False),
    "not_http": Expected(RequestError.MALFORMED, 0, None, None, "not HTTP", stamps=False,
                         connections_kept=False),
    "no_tokens": Expected(RequestError.EMPTY, 0, 0, "stop", stamps=False),
    "whole": Expected(events=0, more=_whole, load=(("stream", False),), stamps=False),
    "late_whole": Expected(events=0, more=_whole, load=(("stream", False),), stamps=False),
    "crlf": Expected(),
}  # fmt: skip


@dataclass(frozen=True)
class CaseResult:
    """One case: what was wrong (nothing, if it conforms), and the largest error of a stamp in ms."""

    name: str
    wrong: tuple[str, ...]
    worst_ms: float | None


def check(url: str, name: str, attempts: int = 3) -> CaseResult:
    """Runs one case and holds every record against the expectation and the server's own stamps.

    Some attempts: a busy machine delays a read now and then, a wrong client is wrong each time.
    """
    outcome = _attempt(url, name, attempts)
    return outcome if attempts == 1 or not outcome.wrong else check(url, name, attempts - 1)


def _attempt(url: str, name: str, attempt: int) -> CaseResult:
    expected = EXPECTED[name]
    load = Load("case", 8, TOKENS, concurrency=1, requests=REQUESTS,
                **{"request_timeout_s": 10.0, **dict(expected.load)})  # type: ignore[arg-type]  # fmt: skip
    endpoint = Endpoint(url, name, "scripted", "1")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "load"
        driven = drive(endpoint, load, seed=0, prompts=prompts(None), folder=folder, salt=f"{name}-{attempt}",
                       keep_raw=True)  # fmt: skip
        names = names_of(Path(scratch) / "load")
    wrong: list[str] = []
    if len(driven.records) != REQUESTS and expected.error is not RequestError.SILENT:
        wrong.append(f"{len(driven.records)} records of {REQUESTS} requests")
    for record in driven.records:
        wrong += _mismatches(record, expected)
    wrong += _connections(driven, expected)
    worst = _stamps(driven, truth(url), names) if expected.stamps and not wrong else None
    if worst is not None and worst > TOLERANCE_S:
        wrong.append(f"a stamp is {worst * 1000:.1f} ms off")
    return CaseResult(name, tuple(wrong), None if worst is None else worst * 1000)


def truth(url: str) -> dict[str, tuple[float, list[float]]]:
    """Request's first two words -> when the server read it, when it sent each event; its own monotonic clock.

    Words seen before carry a number: `a b #2`.
    """
    with build_opener(ProxyHandler({})).open(f"{url}/truth") as answer:
        found: dict[str, tuple[float, list[float]]] = json.load(answer)["truth"]
    return found


@contextmanager
def scripted_server(core: int | None = None) -> Iterator[str]:
    """A scripted server in a process of its own, on `core` where given; its URL."""
    command = [
        sys.executable,
        "-m",
        "bench.testservers.scripted",
        "0",
        *([] if core is None else [str(core)]),
    ]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        yield f"http://127.0.0.1:{int(child.stdout.readline())}"
    finally:
        child.stdin.close()
        child.wait(timeout=10)
        child.stdout.close()


def _mismatches(record: Record, expected: Expected) -> list[str]:
    wrong = []
    if record.error is not expected.error:
        wrong.append(f"recorded as {record.error or 'success'}, not {expected.error or 'success'}")
    for what, found, wanted in (
        ("events", len(record.event_s), expected.events),
        ("output tokens", record.output_tokens, expected.output_tokens),
        ("finish reason", record.finish_reason, expected.finish),
    ):
        if found != wanted and not (wanted is None and what == "events"):
            wrong.append(f"{found} {what} in place of {wanted}")
    if expected.detail not in record.error_detail:
        wrong.append(f"detail {record.error_detail!r} without {expected.detail!r}")
    return [*wrong, *expected.more(record)]


def _connections(driven: Drive, expected: Expected) -> list[str]:
    """One user: with a kept connection no request after the first sets one up."""
    opened = [r.index for r in driven.records[1:] if r.connected_s is not None]
    return [f"requests {opened} opened connections anew"] if expected.connections_kept and opened else []


def _stamps(driven: Drive, true: dict[str, tuple[float, list[float]]], names: dict[int, str]) -> float:
    """The largest difference between a read and a true stamp, seconds."""
    worst = 0.0
    for record in driven.records:
        began, sent = true[names[record.index]]
        assert record.sent_s is not None
        pairs = [*zip(record.event_s, sent, strict=False), (record.sent_s, began)]
        worst = max([worst, *(abs(read + driven.started_monotonic_s - told) for read, told in pairs)])
    return worst


def names_of(folder: Path) -> dict[int, str]:
    """Request index -> the name by which the server knows it, from a load folder kept by `keep_raw`."""
    rows = [json.loads(line) for line in (folder / "requests-0.jsonl").read_text().splitlines()]
    bodies = {row["index"]: json.loads(row["body"]) for row in rows}
    prompt = {i: b.get("prompt") or b["messages"][-1]["content"] for i, b in bodies.items()}
    return {index: " ".join(text.split()[:2]) for index, text in prompt.items()}
