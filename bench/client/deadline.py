"""When is a request given up? Silence is what hangs: not an answer that takes long because it is long.

A request may go without an event for the deadline it was given, and longer before its first where much output
was asked for (an answer that is not streamed has no other). One that streams goes on as long as events come,
until there are far more of them than tokens were asked for: then it has no end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.client.exchange import Exchange
from bench.point import first_within_s

MOST_EVENTS_A_TOKEN = 2.0
MORE_EVENTS = 16
LEAST_REVIEW_S = 0.05


@dataclass(slots=True)
class StreamProgress:
    """What is known of one exchange that is past its deadline: looked at again at `review_s` (monotonic)."""

    review_s: float = 0.0
    parts: int = 0
    events: int = 0
    first_s: float = 0.0
    last_s: float = 0.0

    def read(self, exchange: Exchange) -> None:
        """Counts the events of what has come since the last look."""
        for number in range(self.parts, len(exchange.parts)):
            came = exchange.parts[number].count(b"data:")
            if came:
                self.first_s = self.first_s or exchange.stamps[number]
                self.last_s = exchange.stamps[number]
                self.events += came
        self.parts = len(exchange.parts)


@dataclass(slots=True)
class Deadline:
    """Of all requests of one load process. `timeout_s`: longest wait for an event."""

    timeout_s: float
    _known: dict[Exchange, StreamProgress] = field(default_factory=dict)

    def why_over(self, exchange: Exchange, now: float) -> str:
        """Why a request in flight is given up now; empty while it may go on."""
        begun = max(exchange.planned_s, exchange.sent_s or 0.0)
        if now - begun <= self.timeout_s:
            return ""
        known = self._known.setdefault(exchange, StreamProgress())
        if now < known.review_s:
            return ""
        known.read(exchange)
        if not known.events:
            allowed = first_within_s(self.timeout_s, exchange.asked_tokens)
            known.review_s = begun + allowed
            return "" if now < known.review_s else f"no event within {allowed:g} s"
        quiet = now - known.last_s
        if quiet > self.timeout_s:
            return f"no event for {self.timeout_s:g} s after {known.events}"
        most = MOST_EVENTS_A_TOKEN * exchange.asked_tokens + MORE_EVENTS
        if known.events > most:
            asked = f"{exchange.asked_tokens} tokens were asked for"
            return f"no end within {self.timeout_s:g} s: {known.events} events, and {asked}"
        pace = (known.last_s - known.first_s) / known.events
        left_s = (most - known.events) * pace
        known.review_s = now + min(self.timeout_s - quiet, max(LEAST_REVIEW_S, left_s))
        return ""

    def forget(self, exchange: Exchange) -> None:
        self._known.pop(exchange, None)
