"""Multi-turn sessions: each turn holds the conversation before it and follows the previous answer."""

from __future__ import annotations

import json
from typing import Any

from bench.client.exchange import Exchange
from bench.client.job import Request
from bench.client.response import parse


class Conversation:
    """The bodies of one request's turns, in order. Without follow-ups: one body, nothing parsed."""

    def __init__(self, request: Request) -> None:
        self.index = request.index
        self.session = request.session if request.session is not None else -1
        self._follow_ups = list(request.follow_ups)
        self._body: bytes | None = request.body.encode()
        self._content: dict[str, Any] = json.loads(request.body) if request.follow_ups else {}

    def next_body(self) -> bytes | None:
        """What to send now; None when the session is over."""
        body, self._body = self._body, None
        return body

    def hear(self, exchange: Exchange) -> None:
        """Takes the answer in; a failed turn ends the session."""
        if not self._follow_ups:
            return
        answer = parse(exchange)
        if answer.error is not None:
            return
        said, self.index = self._follow_ups.pop(0), self.index + 1
        if "messages" in self._content:
            self._content["messages"] += [
                {"role": "assistant", "content": answer.text},
                {"role": "user", "content": said},
            ]
        else:
            self._content["prompt"] += answer.text + said
        self._body = json.dumps(self._content, ensure_ascii=False).encode()
