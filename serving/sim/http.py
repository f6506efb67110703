"""A small HTTP/1.1 server on asyncio protocols: kept connections, one request at a time, streamed answers."""

from __future__ import annotations

import asyncio
import json
import select
import selectors
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

LARGEST_HEAD = 64 * 1024
LARGEST_BODY = 64 * 1024 * 1024

App = Callable[["SimConnection", str, str, bytes], None]
"""Called with the connection, method, target and body; answers by the connection's methods, now or later."""


class SimConnection(asyncio.Protocol):
    """One client. `on_close` is called once when it goes away before its answer is complete."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._buffer = bytearray()
        self._busy = False
        self._keep = True
        self._transport: asyncio.Transport | None = None
        self.on_close: Callable[[], None] | None = None

    @property
    def open(self) -> bool:
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # asyncio sets it only on sockets it made itself; without, a token waits 40 ms for an ACK.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        gone, self.on_close = self.on_close, None
        if gone:
            gone()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._busy:
            self._read()

    def _read(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > LARGEST_HEAD:
                self._refuse(431)
            return
        line, *rest = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        headers = {key.strip().lower(): value.strip() for key, _, value in (h.partition(":") for h in rest)}
        parts = line.split(" ")
        length = headers.get("content-length", "0")
        if len(parts) != 3 or not length.isascii() or not length.isdigit():
            self._refuse(400)
            return
        if "transfer-encoding" in headers:
            self._refuse(411)
            return
        if int(length) > LARGEST_BODY:
            self._refuse(413)
            return
        if len(self._buffer) < end + 4 + int(length):
            if headers.get("expect", "").lower() == "100-continue" and len(self._buffer) == end + 4:
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        body = bytes(self._buffer[end + 4 : end + 4 + int(length)])
        del self._buffer[: end + 4 + int(length)]
        self._keep = headers.get("connection", "").lower() != "close" and parts[2] == "HTTP/1.1"
        self._busy = True
        self._app(self, parts[0], parts[1], body)

    def _refuse(self, status: int) -> None:
        self._keep = False
        self._busy = True
        self.error(status, HTTPStatus(status).phrase)

    def write(self, data: bytes) -> None:
        """Bytes as they are; dropped when the client is gone."""
        if self._transport is not None:
            self._transport.write(data)

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        """A whole answer."""
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\n"
        self.write(f"{head}Content-Length: {len(body)}\r\n{self._connection_line()}\r\n".encode() + body)
        self.done()

    def json(self, value: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(value, separators=(",", ":")).encode())

    def error(
        self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None
    ) -> None:
        """An error as vLLM's server words it."""
        self.json({"error": {"message": message, "type": kind, "param": param, "code": status}}, status)

    def start_events(self) -> None:
        """Status line and headers of a stream of server-sent events; then `event_frame`s, then `done`."""
        self.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
            b"Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n"
            + self._connection_line().encode()
            + b"\r\n"
        )

    def done(self) -> None:
        """The answer is complete: the next request, or the end of the connection."""
        self.on_close = None
        self._busy = False
        if self._transport is None:
            return
        if not self._keep:
            self._transport.close()
        elif self._buffer:
            self._read()

    def _connection_line(self) -> str:
        return "" if self._keep else "Connection: close\r\n"


def frame(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_FRAME = b"0\r\n\r\n"


class PreciseSelector(selectors.DefaultSelector):
    """Wakes within microseconds: epoll counts in whole milliseconds, rounded up, and steps are that short."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0 and hasattr(self, "fileno"):
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)
