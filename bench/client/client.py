"""The lean streaming client: plain sockets on gevent's hub. Stamp first, keep the bytes, parse after the run.

No greenlet is switched per read: a readable socket calls back in the hub, which stamps, reads and appends
(`bench.client.connection`). A response is read to its end, so that its connection is kept.
Proxies are never used; redirects are never followed.
"""

from __future__ import annotations

import ssl
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import gevent
from gevent.hub import get_hub

from bench.client.connection import Connection, OnDone, new_socket, socket
from bench.client.deadline import Deadline
from bench.client.exchange import LEFT_OPEN, Exchange

CONNECT_WITHIN_S = 3.0
OPEN_AFTER_DONE_S = 0.2
"""A body that has not ended so long after [DONE] will not: the answer is whole, the connection given up."""


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

    def send(self, exchange: Exchange, body: bytes, done: OnDone) -> None:
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

    def fresh(self, exchange: Exchange, payload: bytes, done: OnDone) -> None:
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

    def expire(self, now: float, deadline: Deadline) -> None:
        """Ends every exchange that is past its deadline, and those whose answer is whole but left open."""
        for exchange, connection in list(self.busy.items()):
            if exchange.done_s is not None and now - exchange.done_s > OPEN_AFTER_DONE_S:
                connection.give_up(LEFT_OPEN)
            elif why := deadline.why_over(exchange, now):
                connection.fail("timeout", why)
            else:
                continue
            deadline.forget(exchange)

    def fail_all(self, error: str, detail: str) -> None:
        for connection in list(self.busy.values()):
            connection.fail(error, detail)

    def close(self) -> None:
        for connection in self.idle:
            connection.close()
        self.idle.clear()


def _answering(host: str, port: int) -> Any:
    """A host's first address that takes a connection (localhost: ::1 or 127.0.0.1); else its first."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for info in found if len(found) > 1 else ():
        with new_socket(*info[:3]) as probe:
            probe.settimeout(CONNECT_WITHIN_S)
            if probe.connect_ex(info[4]) == 0:
                return info
    return found[0]


def pause_until(moment_s: float) -> None:
    """Sleeps, other greenlets running, until a monotonic moment; at once when it is past."""
    while (left := moment_s - monotonic()) > 0:
        gevent.sleep(left)
