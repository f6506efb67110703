"""One socket of the lean client and at most one exchange on it, driven by callbacks of gevent's hub.

A readable socket is stamped first, then read; llhttp (httptools) only watches for the end of the message.
"""

from __future__ import annotations

import errno
import os
import re
import ssl
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

import httptools
from gevent import monkey

from bench.client.exchange import Exchange

# The system's own sockets: gevent's cooperative ones switch a greenlet on every read.
socket = __import__("socket")
new_socket = monkey.get_original("socket", "socket")
READ, WRITE = 1, 2
READ_BYTES = 1 << 14
STALE_WITHIN_S = 1.0
"""A kept connection that breaks so soon after a request was written had been closed before it."""
MOST_BYTES = 1 << 26
"""A response above this is an endless stream, not an answer."""
WAITS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
OnDone = Callable[[Exchange], None]
DONE = re.compile(rb"^data: ?\[DONE\]", re.MULTILINE)
SHORT_READ = 64
"""A read shorter than this may hold a piece of an event; the read before has the rest."""


class Pool(Protocol):
    """What a connection needs of the client that owns it."""

    socket_kind: tuple[int, int, int]
    address: Any
    host: str
    tls: ssl.SSLContext | None
    loop: Any
    opening: int
    events: int
    last_byte_s: float
    idle: list[Connection]
    busy: dict[Exchange, Connection]

    def fresh(self, exchange: Exchange, payload: bytes, done: OnDone) -> None:
        """Sends on a connection that has never been used."""
        ...


class Connection:
    """One socket and at most one exchange on it."""

    def __init__(self, client: Pool) -> None:
        self.client = client
        self.sock: Any = new_socket(*client.socket_kind)
        self.sock.setblocking(False)
        if client.socket_kind[0] in (socket.AF_INET, socket.AF_INET6):
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.watch: Any = None
        self.exchange: Exchange | None = None
        self.done: OnDone | None = None
        self.payload = b""
        self.unsent = memoryview(b"")
        self.open = False
        self.fresh = True
        self.size = 0
        self.parser: Any = None
        self.complete = self.keep = False

    # --- setting up -----------------------------------------------------------------------------

    def connect(self) -> None:
        code = self.sock.connect_ex(self.client.address)
        if code not in (0, errno.EINPROGRESS):
            self._broken(OSError(code, os.strerror(code)), "connect")
            return
        self._on(WRITE, self._connected)

    def _connected(self) -> None:
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._broken(OSError(code, os.strerror(code)), "connect")
            return
        if self.client.tls is not None:
            self.sock = self.client.tls.wrap_socket(
                self.sock, server_hostname=self.client.host, do_handshake_on_connect=False
            )
            self._handshake()
        else:
            self._ready()

    def _handshake(self) -> None:
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            self._on(READ, self._handshake)
        except ssl.SSLWantWriteError:
            self._on(WRITE, self._handshake)
        except OSError as error:
            self._broken(error, "connect")
        else:
            self._ready()

    def _ready(self) -> None:
        self.open = True
        if self.exchange is None:
            self.client.opening -= 1
            self._on(READ, self._readable)
            self.client.idle.append(self)
            return
        self.exchange.connected_s = monotonic()
        self._send_first()

    # --- one exchange ---------------------------------------------------------------------------

    def usable(self) -> bool:
        """False when the server has closed it meanwhile (bytes on an idle connection are no better)."""
        if self.client.tls is not None:
            return self.sock is not None
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        self.close()
        return False

    def start(self, exchange: Exchange, payload: bytes, done: OnDone) -> None:
        self.exchange, self.payload, self.done = exchange, payload, done
        self.client.busy[exchange] = self
        self.parser, self.complete, self.size = httptools.HttpResponseParser(self), False, 0
        if self.open:
            self.fresh = False
            self._send_first()

    def _send_first(self) -> None:
        assert self.exchange is not None
        self.exchange.sent_s = monotonic()
        self.unsent = memoryview(self.payload)
        self._send()

    def _send(self) -> None:
        try:
            while self.unsent:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except WAITS:
            self._on(WRITE, self._send)
            return
        except OSError as error:
            self._broken(error, "reset")
            return
        self._on(READ, self._readable)

    def on_message_complete(self) -> None:
        """Called by llhttp, which knows only now whether the connection may be kept."""
        self.complete, self.keep = True, self.parser.should_keep_alive()

    def _readable(self) -> None:
        now = monotonic()
        exchange = self.exchange
        try:
            data = self.sock.recv(READ_BYTES)
        except WAITS:
            return
        except OSError as error:
            self._broken(error, "reset")
            return
        if exchange is None:  # an idle connection speaks only to say goodbye
            self._forget()
            return
        if not data:
            self._closed_by_server(now)
            return
        client = self.client
        client.last_byte_s = now
        client.events += 1
        exchange.stamps.append(now)
        exchange.parts.append(data)
        self.size += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.fail("malformed", f"not HTTP: {error}")
            return
        except httptools.HttpParserUpgrade:
            self.fail("malformed", "the server asks to switch to another protocol")
            return
        if self.complete:
            if 100 <= self.parser.get_status_code() < 200:
                self.complete = False
            else:
                self._end(now, keep=self.keep)
        elif _is_done(exchange.parts):
            exchange.done_s = now
        elif self.size > MOST_BYTES:
            self.fail("too_large", f"more than {MOST_BYTES} bytes and no end")
        elif client.tls is not None and self.sock.pending():
            self._readable()

    def _closed_by_server(self, now: float) -> None:
        exchange = self.exchange
        assert exchange is not None
        if not exchange.parts:
            self._broken(ConnectionResetError("closed before the first byte"), "reset")
            return
        # Without framing the end of the connection is the end of the body; the parser of the
        # answer decides from the stream's own end whether it is whole.
        exchange.detail = "connection closed by the server"
        self._end(now, keep=False)

    def _end(self, now: float, keep: bool) -> None:
        exchange, done = self.exchange, self.done
        assert exchange is not None
        assert done is not None
        exchange.closed_s = now
        del self.client.busy[exchange]
        self.exchange = self.done = self.parser = None
        if keep and not exchange.error:
            self.client.idle.append(self)
        else:
            self.close()
        done(exchange)

    def give_up(self, detail: str) -> None:
        """Ends an exchange whose answer is whole, though its body has no end."""
        assert self.exchange is not None
        self.exchange.detail = detail
        self._end(monotonic(), keep=False)

    def fail(self, error: str, detail: str) -> None:
        assert self.exchange is not None
        self.exchange.error, self.exchange.detail = error, detail
        self._end(monotonic(), keep=False)

    def _broken(self, error: OSError, kind: str) -> None:
        exchange = self.exchange
        if exchange is None:
            self._forget()
            return
        since_s = monotonic() - (exchange.sent_s or 0.0)
        if not self.fresh and not exchange.parts and since_s < STALE_WITHIN_S and self.done is not None:
            # A kept connection that the server closed as we wrote: once more, on a new one.
            done, payload = self.done, self.payload
            del self.client.busy[exchange]
            self.exchange = self.done = None
            self.close()
            self.client.fresh(exchange, payload, done)
            return
        self.fail(kind, f"{type(error).__name__}: {error}")

    # --- the socket -----------------------------------------------------------------------------

    def _on(self, what: int, callback: Callable[[], None]) -> None:
        if self.watch is not None:
            self.watch.stop()
            self.watch.close()
        self.watch = self.client.loop.io(self.sock.fileno(), what)
        self.watch.start(callback)

    def _forget(self) -> None:
        if not self.open:
            self.client.opening -= 1
        if self in self.client.idle:
            self.client.idle.remove(self)
        self.close()

    def close(self) -> None:
        if self.watch is not None:
            self.watch.stop()
            self.watch.close()
            self.watch = None
        self.sock.close()


def _is_done(parts: list[bytes]) -> bool:
    """Whether the newest read ends the stream with [DONE] (text of a model cannot begin a line)."""
    data = parts[-1]
    if len(data) < SHORT_READ and len(parts) > 1:
        data = parts[-2] + data
    return b"[DONE]" in data and DONE.search(data) is not None
