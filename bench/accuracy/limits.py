"""A server that asks to come back later is not wrong: its 429 and 503 are waited for, within bounds."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Protocol

from bench.accuracy.client import AskError
from bench.accuracy.task import Answer, Ask

LATER = (429, 503, 529)
"""Status codes that say: not now."""
TRIES = 8
FIRST_S, LONGEST_S = 0.5, 30.0
"""Of the waits where the server does not say how long: doubled each time."""
MOST_RETRY_AFTER_S = 120.0
PATIENCE_S = 300.0
"""With nothing but refusals for so long, requests fail at the first: the limit will not pass."""


class Asks(Protocol):
    async def ask(self, ask: Ask) -> Answer: ...


@dataclass
class Backoff:
    """Of one evaluation. `waits`: how often a request was put off."""

    waits: int = 0
    _since: float | None = None

    def passed(self) -> None:
        """A request was let through."""
        self._since = None

    def wait_s(self, error: AskError, tries: int) -> float | None:
        """How long to wait after the `tries`th refusal of a request; None: no longer."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        told = error.retry_after_s
        if tries >= TRIES or now - self._since > PATIENCE_S or (told or 0.0) > MOST_RETRY_AFTER_S:
            return None
        self.waits += 1
        # Spread, so that those refused together do not come back together.
        spread = 1 + random.random() / 4  # noqa: S311 -- no secret
        return spread * (min(LONGEST_S, FIRST_S * 2**tries) if told is None else max(0.05, told))


@dataclass(frozen=True)
class Patient:
    """A client whose requests wait for a server that says later."""

    client: Asks
    backoff: Backoff

    async def ask(self, ask: Ask) -> Answer:
        tries = 0
        while True:
            try:
                answer = await self.client.ask(ask)
            except AskError as error:
                wait = self.backoff.wait_s(error, tries) if error.status in LATER else None
                if wait is None:
                    raise
                tries += 1
                await asyncio.sleep(wait)
            else:
                self.backoff.passed()
                return answer
