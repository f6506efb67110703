"""A server that does nothing, at exactly known times: what the load client is calibrated against.

One event a step to every running stream at once, as a batching engine sends them; it stamps each request's
first and last event on CLOCK_MONOTONIC, which client and server of one machine share. `usage.prompt_tokens`
carries the number of the request, so that both sides' stamps can be matched; GET /truth gives them.
Started as `python -m bench.testservers.null_server`; says its port on stdout, ends when its stdin does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from time import monotonic

STEP_S = 0.010
FIRST_STEPS = 5
SPREAD_STEPS = 100
"""A request waits FIRST_STEPS and up to SPREAD_STEPS more, so that requests begin and end apart in time."""
DEFAULT_TOKENS = 16
"""Of a completion that asks for no number, as in OpenAI's API."""

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: keep-alive\r\n\r\n"
)


def _chunk(event: dict[str, object] | bytes) -> bytes:
    data = event if isinstance(event, bytes) else json.dumps(event, separators=(",", ":")).encode()
    body = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(body), body)


def _choice(text: str, finish: str | None = None) -> dict[str, object]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}


_TOKEN = _chunk({"id": "null", "object": "text_completion", "model": "null", "choices": [_choice(" a")]})
_FINISH = _chunk(
    {"id": "null", "object": "text_completion", "model": "null", "choices": [_choice("", "length")]}
)
_END = _chunk(b"[DONE]") + b"0\r\n\r\n"


class NullStream(asyncio.Protocol):
    """One connection: reads a request, is fed by the clock, reads the next."""

    def __init__(self, server: NullServer) -> None:
        self.server = server
        self.transport: asyncio.Transport
        self.buffer = b""
        self.number = self.tokens = self.left = 0
        self.due = 0
        self.came_s = self.first_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.running.discard(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, mark, body = self.buffer.partition(b"\r\n\r\n")
        if not mark:
            return
        if head.startswith(b"GET"):
            self.buffer = body
            self._answer(json.dumps(self.server.truth).encode())
            return
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        if len(body) < length:
            return
        self.buffer = body[length:]
        self.tokens = self.left = int(json.loads(body[:length]).get("max_tokens", DEFAULT_TOKENS))
        self.number = self.server.numbered()
        self.came_s = monotonic()
        self.due = self.server.step + FIRST_STEPS + self.number * 37 % SPREAD_STEPS
        self.server.running.add(self)

    def _answer(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.transport.write(head % len(body) + body)

    def feed(self) -> None:
        """One event now; after the last one the end of the stream."""
        now = monotonic()
        if self.left == self.tokens:
            self.first_s = now
            self.transport.write(_HEAD + _TOKEN)
        else:
            self.transport.write(_TOKEN)
        self.left -= 1
        if self.left == 0:
            usage = {"prompt_tokens": self.number, "completion_tokens": self.tokens,
                     "total_tokens": self.number + self.tokens}  # fmt: skip
            self.transport.write(_FINISH + _chunk({"choices": [], "usage": usage}) + _END)
            self.server.truth.append((self.number, self.came_s, self.first_s, now))
            self.server.running.discard(self)


class NullServer:
    """The clock and the record of what was sent when: (number, came, first event, last event) a request."""

    def __init__(self) -> None:
        self.running: set[NullStream] = set()
        self.truth: list[tuple[int, float, float, float]] = []
        self.step = 0
        self._numbers = 0

    def numbered(self) -> int:
        self._numbers += 1
        return self._numbers

    async def run(self, clients_gone: asyncio.Event) -> None:
        """Steps on an absolute beat; a late step is sent late, never left out."""
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(lambda: NullStream(self), "127.0.0.1", 0, backlog=4096)
        print(listening.sockets[0].getsockname()[1], flush=True)
        begun = loop.time()
        async with listening:
            while not clients_gone.is_set():
                await asyncio.sleep(max(0.0, begun + (self.step + 1) * STEP_S - loop.time()))
                self.step += 1
                for stream in [s for s in self.running if s.due <= self.step]:
                    stream.feed()


async def _main() -> None:
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()

    def watch() -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            gone.set()
            loop.remove_reader(sys.stdin.fileno())

    loop.add_reader(sys.stdin.fileno(), watch)
    await NullServer().run(gone)


if __name__ == "__main__":
    asyncio.run(_main())
