"""Raw facts of a measurement: one Record a request, one Run a point. Nothing derived is stored.

All `_s` stamps are seconds on one monotonic clock (CLOCK_MONOTONIC, shared by all processes of the
machine), measured from the start of the load (`Run.started_unix_s` ties it to the wall clock).
`schema` numbers the layout; older numbers stay readable (tests/golden).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from bench.point import Point
from serving.errors import Failure

SCHEMA = 1


class RequestError(StrEnum):
    """Why a request is not a success. `CENSORED`: still running when the load stopped."""

    CONNECT = "connect"
    RESET = "reset"
    TIMEOUT = "timeout"
    SILENT = "silent"
    HTTP_STATUS = "http_status"
    RATE_LIMITED = "rate_limited"
    IN_STREAM = "error_in_stream"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    EMPTY = "no_output"
    TOO_LARGE = "too_large"
    CENSORED = "censored"


@dataclass(frozen=True, slots=True)
class Record:
    """One request, as sent and as received.

    planned_s    when it should have been sent: the schedule (open loop), or ready to send (closed loop)
    sent_s       first byte handed to the socket; None: never sent
    connected_s  connection was set up for this request until this moment; None: a kept connection
    header_s     status line and headers complete
    first_s      first event with non-empty output of any kind (reasoning counts)
    first_answer_s  first event with non-empty output that is not reasoning
    last_s       last event with output;  closed_s  end of the body
    event_s      arrival of each event that carries output, in order
    event_tokens tokens each of those events carried, where the server says so; else empty
    input_tokens, output_tokens   the server's usage; None when it sent none
    reasoning_tokens  of output_tokens, by the server's usage; None when it does not say
    output_bytes      UTF-8 bytes of the output that was shown, reasoning included; None of a failed request
    counted_output_tokens         by our tokenizer from the text, without special tokens; None without one
    """

    index: int
    planned_s: float
    sent_s: float | None
    connected_s: float | None = None
    header_s: float | None = None
    first_s: float | None = None
    first_answer_s: float | None = None
    last_s: float | None = None
    closed_s: float | None = None
    event_s: tuple[float, ...] = ()
    event_tokens: tuple[int, ...] = ()
    asked_input_tokens: int = 0
    asked_output_tokens: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    counted_output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    output_bytes: int | None = None
    finish_reason: str | None = None
    status: int | None = None
    error: RequestError | None = None
    error_detail: str = ""
    session: int | None = None
    worker: int = 0

    @property
    def ok(self) -> bool:
        """Complete and without error; only these count as good, all count in denominators."""
        return self.error is None

    @property
    def hidden_tokens(self) -> int:
        """Reasoning that the server counts and none of which it has shown."""
        shown = self.first_s is not None and self.first_s != self.first_answer_s
        return 0 if shown or not self.reasoning_tokens else max(0, self.reasoning_tokens)


@dataclass(frozen=True, slots=True)
class Sample:
    """One telemetry reading: `name` carries the unit (`gpu0_memory_used_bytes`). Never 0 for unknown."""

    t_s: float
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """What the load generator cost and how late it ran; the ground of the client verdicts.

    cpu_share  process CPU time / wall time, the busiest worker (1.0: a whole core)
    hub_delay_p99_ms  how late a timer of the event loop fired, sampled every 10 ms
    """

    workers: int
    cpu_share: float
    cpu_s: float
    events: int
    hub_delay_p99_ms: float | None
    hub_delay_max_ms: float | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One measured point: raw records, samples and circumstances. Metrics are functions of it."""

    point: Point
    records: tuple[Record, ...] = ()
    samples: tuple[Sample, ...] = ()
    client: ClientHealth | None = None
    failure: Failure | None = None
    load_end_s: float | None = None
    """When dispatching stopped (the last planned arrival, or the end of the duration)."""
    started_unix_s: float = 0.0
    ready_s: float | None = None
    effective: Mapping[str, object] = field(default_factory=dict)
    engine_version: str = ""
    simulated: bool = False
    notes: tuple[str, ...] = ()
    launch: str = ""
    """Name of the launch folder that served it; equal names: the same server process."""
    schema: int = SCHEMA


Validity = Literal["ok", "suspect", "invalid"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a measurement is suspect or invalid, in plain words, and what to do about it."""

    check: str
    verdict: Validity
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict of a Run: the worst of its reasons; `ok` without any."""

    verdict: Validity
    reasons: tuple[Reason, ...] = ()
