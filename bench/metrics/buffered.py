"""Did the output come as it was made? A proxy that buffers hands over in one read what took seconds to make.

Events read together are one arrival. Speculative decoding gives a few in one step, and an engine that
streams every so many tokens gives one event with all of them: neither is told from a buffer by tokens, so
what counts is *events* in one read, and answers whose last token came with the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.metrics.columns import Events, Mask, Requests

TOGETHER_S = 0.0002
"""Events this close came in one read: a stream of one token each 0.2 ms is beyond any engine known."""
FASTEST_TOKEN_S = 20e-6
"""50,000 tokens a second in one stream: a long answer handed over whole takes some reads."""
MOST_EVENTS = 6
"""Of one read that a step of an engine may give: five speculated tokens and the one that follows them."""
LEAST_TOKENS = 8
"""Answers up to so many tokens may come in one step."""
LEAST_WAIT_S = 0.010
"""Between two reads; events that wait less than this for their read are told well enough."""
MOST_SHARE = 0.10
"""Of the answers that may come so, by a delayed read of a busy machine, before the run is one of a buffer."""


@dataclass(frozen=True)
class Buffered:
    """Of `answers` long enough to tell, those that came `at_once`, or in `clumps` of several events."""

    answers: int
    at_once: int
    clumps: int
    events_a_read: float

    @property
    def share(self) -> float:
        return (self.at_once + self.clumps) / self.answers if self.answers else 0.0

    @property
    def withheld(self) -> bool:
        """Whether the pace of the output (TPOT, ICL, ITL) is the buffer's and says nothing."""
        return self.share > MOST_SHARE


def at_once(r: Requests) -> Mask:
    """Answers of several tokens of which the last was read with the first: no time was seen to pass."""
    count = np.fmax(r.events, r.tokens)
    with np.errstate(invalid="ignore"):
        return (count > 1) & (r.last - r.first <= TOGETHER_S + FASTEST_TOKEN_S * (count - 1))


def buffered(r: Requests, events: Events, inside: Mask, *, streams: bool) -> Buffered:
    """How the output of the completed requests of the window (`inside`) arrived."""
    long = inside & r.ok & ((r.tokens > LEAST_TOKENS) | (r.events > LEAST_TOKENS)) & (r.events > 0)
    if not streams or not long.any():
        return Buffered(0, 0, 0, 0.0)
    new = np.ones(events.t.size, dtype=bool)
    new[1:] = (np.diff(events.t) > TOGETHER_S) | (np.diff(events.owner) != 0)
    starts = np.flatnonzero(new)
    size = np.diff(np.r_[starts, events.t.size])
    of = events.owner[starts]
    reads = np.bincount(of, minlength=r.ok.size)
    first = np.zeros(r.ok.size)
    opening = np.r_[True, np.diff(of) != 0]
    first[of[opening]] = size[opening]
    later = np.maximum(reads - 1, 1)
    wait_s = np.nan_to_num(r.last - r.first) / later
    clumps = (reads > 1) & (wait_s >= LEAST_WAIT_S)
    clumps &= (first > MOST_EVENTS) | ((r.events - first) / later > MOST_EVENTS)
    whole = at_once(r)
    mean = float(r.events[long].sum() / reads[long].sum())
    return Buffered(int(long.sum()), int((long & whole).sum()), int((long & clumps & ~whole).sum()), mean)
