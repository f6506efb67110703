"""The lean streaming client: plain sockets on gevent's hub. Stamp first, keep the bytes, parse after the run.

No greenlet is switched per read: a readable socket calls back in the hub, which stamps, reads and appends.
llhttp (httptools) watches only for the end of the message, so that a connection is read to its end and kept.
Proxies are never used; redirects are never followed.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Callable
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import gevent
import httptools
from gevent import monkey
from gevent.hub import get_hub

from bench.load.exchange import Exchange

# The system's own sockets: gevent's cooperative ones switch a greenlet on every read.
socket = __import__("socket")
_socket = monkey.get_original("socket", "socket")
READ, WRITE = 1, 2
READ_BYTES = 1 << 14
CONNECT_WITHIN_S = 3.0
STALE_WITHIN_S = 1.0
"""A kept connection that breaks so soon after a request was written had been closed before it."""
MOST_BYTES = 1 << 26
"""A response above this is an endless stream, not an answer."""
WAITS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
Done = Callable[[Exchange], None]


class Client:
    """Keep-alive connections to one server. `busy` holds the exchanges in flight."""

    def __init__(self, url: str, path: str, headers: dict[str, str]) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"a URL like http://127.0.0.1:8000, not {url!r}")
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        family, kind, proto, _, self.address = _answering(parts.hostname, self.port)
        self.socket_kind = (family, kind, proto)
        self.host = parts.hostname
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None
        lines = [f"POST {parts.path.rstrip('/')}{path} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.head = "\r\n".join(lines).encode() + b"\r\nContent-Length: "
        self.loop = get_hub().loop
        self.idle: list[Connection] = []
        self.busy: dict[Exchange, Connection] = {}
        self.opening = 0
        self.spare = 0
        self.last_byte_s = monotonic()
        self.events = 0

    def send(self, exchange: Exchange, body: bytes, done: Done) -> None:
        """Sends now on a kept connection, or on a new one; `done` is called from the hub at the end."""
        payload = self.head + str(len(body)).encode() + b"\r\n\r\n" + body
        while self.idle:
            connection = self.idle.pop()
            if connection.usable():
                connection.start(exchange, payload, done)
                break
        else:
            self.fresh(exchange, payload, done)
        if len(self.idle) + self.opening < self.spare:
            self.open(1)

    def fresh(self, exchange: Exchange, payload: bytes, done: Done) -> None:
        """Sends on a connection of its own, as soon as it is set up."""
        try:
            connection = Connection(self)
        except OSError as error:  # no file descriptor left
            exchange.error, exchange.detail = "connect", f"{type(error).__name__}: {error}"
            exchange.closed_s = monotonic()
            done(exchange)
            return
        connection.start(exchange, payload, done)
        connection.connect()

    def open(self, count: int) -> None:
        """Connections made before they are needed, so that their set-up is in no latency."""
        for _ in range(count):
            try:
                connection = Connection(self)
            except OSError:
                return  # `send` meets the same and records it
            self.opening += 1
            connection.connect()

    def wait_open(self, timeout_s: float) -> None:
        """Until the connections asked for are there, or have failed (`send` then tries again)."""
        deadline = monotonic() + timeout_s
        while self.opening and monotonic() < deadline:
            gevent.sleep(0.005)

    def expire(self, now: float, timeout_s: float) -> None:
        """Ends every exchange past its total deadline, counted from when it was sent (unsent: planned)."""
        late = [c for x, c in self.busy.items() if now - max(x.planned_s, x.sent_s or 0.0) > timeout_s]
        for connection in late:
            connection.fail("timeout", f"no end within {timeout_s:g} s")

    def fail_all(self, error: str, detail: str) -> None:
        for connection in list(self.busy.values()):
            connection.fail(error, detail)

    def close(self) -> None:
        for connection in self.idle:
            connection.close()
        self.idle.clear()


def _answering(host: str, port: int) -> Any:
    """The first address of a host that takes a connection (localhost may be ::1 or 127.0.0.1); else the first."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for info in found if len(found) > 1 else ():
        with _socket(*info[:3]) as probe:
            probe.settimeout(CONNECT_WITHIN_S)
            if probe.connect_ex(info[4]) == 0:
                return info
    return found[0]


class Connection:
    """One socket and at most one exchange on it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.sock: Any = _socket(*client.socket_kind)
        self.sock.setblocking(False)
        if client.socket_kind[0] in (socket.AF_INET, socket.AF_INET6):
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.watch: Any = None
        self.exchange: Exchange | None = None
        self.done: Done | None = None
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
            self._broken(OSError(code, errno.errorcode.get(code, str(code))), "connect")
            return
        self._on(WRITE, self._connected)

    def _connected(self) -> None:
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._broken(OSError(code, errno.errorcode.get(code, str(code))), "connect")
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

    def start(self, exchange: Exchange, payload: bytes, done: Done) -> None:
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
        if self.complete:
            if 100 <= self.parser.get_status_code() < 200:
                self.complete = False
            else:
                self._end(now, keep=self.keep)
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


def pause_until(moment_s: float) -> None:
    """Sleeps, other greenlets running, until a monotonic moment; at once when it is past."""
    while (left := moment_s - monotonic()) > 0:
        gevent.sleep(left)
