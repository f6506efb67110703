"""Records as arrays: one row a request, one row an output event. Made once a run, never stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bench.metrics.statistics import Array
from bench.records.model import Record, RequestError

UNSEEN = 0.10
"""Share of the output tokens that may have no text: special tokens of forced lengths."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Requests:
    """Columns over all records in order of `planned`; times in seconds, NaN where there is none.

    end       last output, or for an unfinished one the last sign of it; infinite when censored
    tokens    output tokens: the server's usage, else our count, else NaN
    visible   those that were seen to stream: without hidden reasoning; NaN where the text cannot hold them
    events    number of output events;  first_tokens: tokens of the first event, NaN if unknown
    """

    planned: Array
    sent: Array
    first: Array
    answer: Array
    last: Array
    end: Array
    ok: Mask
    censored: Mask
    tokens: Array
    visible: Array
    input_tokens: Array
    asked_input: Array
    reasoning_tokens: Array
    cached_tokens: Array
    events: NDArray[np.int64]
    first_tokens: Array

    @classmethod
    def of(cls, rs: Sequence[Record]) -> Self:
        """`rs` in order of `planned_s`."""
        known = [r.counted_output_tokens if r.output_tokens is None else r.output_tokens for r in rs]
        return cls(
            planned=_column([r.planned_s for r in rs]),
            sent=_column([r.sent_s for r in rs]),
            first=_column([r.first_s for r in rs]),
            answer=_column([r.first_answer_s for r in rs]),
            last=_column([r.last_s for r in rs]),
            end=_column([_end(r) for r in rs]),
            ok=np.array([r.error is None for r in rs], dtype=bool),
            censored=np.array([r.error is RequestError.CENSORED for r in rs], dtype=bool),
            tokens=_column(known),
            visible=_column([_visible(r, n) for r, n in zip(rs, known, strict=True)]),
            input_tokens=_column([r.input_tokens for r in rs]),
            asked_input=_column([r.asked_input_tokens or None for r in rs]),
            reasoning_tokens=_column([r.reasoning_tokens for r in rs]),
            cached_tokens=_column([r.cached_input_tokens for r in rs]),
            events=np.array([len(r.event_s) for r in rs], dtype=np.int64),
            first_tokens=_column([r.event_tokens[0] if r.event_tokens else None for r in rs]),
        )

    @property
    def failed(self) -> Mask:
        """Neither complete nor censored."""
        return ~self.ok & ~self.censored


@dataclass(frozen=True)
class Events:
    """All output events of all requests, request by request: arrival, owner (row of Requests), tokens.

    `tokens` is exact where the server says how many each event carried (`exact`), else the request's
    output spread evenly over its events; failed requests carry 0, their work is no output.
    """

    t: Array
    owner: NDArray[np.int64]
    tokens: Array
    exact: Mask

    @classmethod
    def of(cls, rs: Sequence[Record], requests: Requests) -> Self:
        counts = requests.events
        owner = np.repeat(np.arange(counts.size), counts)
        t = np.fromiter(chain.from_iterable(r.event_s for r in rs), float, int(counts.sum()))
        detailed = np.array([len(r.event_tokens) == len(r.event_s) > 0 for r in rs], dtype=bool)
        with np.errstate(invalid="ignore", divide="ignore"):
            even = requests.tokens / counts
        usual = requests.ok & (counts > 0) & np.isfinite(requests.tokens)
        per_event = requests.tokens[usual].sum() / counts[usual].sum() if usual.any() else np.nan
        even = np.where(requests.censored & ~np.isfinite(even), per_event, even)
        tokens = even[owner]
        exact = detailed[owner]
        if detailed.any():
            given = chain.from_iterable(r.event_tokens for r, d in zip(rs, detailed, strict=True) if d)
            tokens[exact] = np.fromiter(given, float, int(counts[detailed].sum()))
            # What the usage counts beyond the events (an end token without text) came with the last of them.
            left = [
                (r.output_tokens or 0) - sum(r.event_tokens) for r, d in zip(rs, detailed, strict=True) if d
            ]
            tokens[np.cumsum(counts)[detailed] - 1] += np.maximum(left, 0)
        tokens[requests.failed[owner]] = 0.0
        return cls(t, owner, tokens, exact)


def _visible(record: Record, tokens: int | None) -> int | None:
    """A token of text has a byte at least; a tenth, and two, may be special tokens that have none."""
    if tokens is None:
        return None
    seen = max(0, tokens - record.hidden_tokens)
    room = record.output_bytes
    return None if room is not None and seen > room + max(2, UNSEEN * tokens) else seen


def _column(values: Sequence[float | None]) -> Array:
    return np.array([np.nan if v is None else v for v in values], dtype=float)


def _end(record: Record) -> float | None:
    """When it left the system, as far as the client can know."""
    if record.error is RequestError.CENSORED:
        return None if record.sent_s is None else float("inf")
    if record.ok:
        return record.last_s if record.last_s is not None else record.closed_s
    marks = (record.closed_s, record.last_s, record.header_s, record.sent_s)
    return next((m for m in marks if m is not None), None)
