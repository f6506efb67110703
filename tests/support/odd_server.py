"""A server on loopback that answers OpenAI's routes well, and oddly where the number of tokens asked says so."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Odd = Callable[["OddServer", dict[str, Any]], None]


class OddServer(BaseHTTPRequestHandler):
    """`odd[max_tokens]` answers instead of the ordinary stream; `gets` are bodies of GETs by path."""

    protocol_version = "HTTP/1.1"
    odd: dict[int, Odd]
    gets: dict[str, bytes]

    def log_message(self, *given: object) -> None:
        pass

    def do_GET(self) -> None:
        self.whole(200 if self.path in self.gets else 404, self.gets.get(self.path, b"{}"))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.odd.get(asked["max_tokens"], OddServer.stream)(self, asked)

    def whole(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, asked: dict[str, Any], text: str = '" a"', count: str = "", first: str = "") -> None:
        """One event a token; `text` is its JSON, `count` completion_tokens, `first` one more event before."""
        tokens = asked["max_tokens"]
        self.begin()
        if first:
            self.event(first)
        for number in range(tokens):
            finish = '"length"' if number == tokens - 1 else "null"
            self.event('{"choices":[{"index":0,"text":%s,"finish_reason":%s}]}' % (text, finish))  # noqa: UP031
        prompt = len(asked["prompt"].split())
        usage = f'"prompt_tokens":{prompt},"completion_tokens":{count or tokens}'
        self.event('{"choices":[],"usage":{%s}}' % usage)  # noqa: UP031
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def event(self, content: str | bytes) -> None:
        data = b"data: %b\n\n" % (content.encode() if isinstance(content, str) else content)
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))


@contextmanager
def odd_server(odd: dict[int, Odd], gets: dict[str, bytes]) -> Iterator[str]:
    """Its URL while the body runs."""
    kind = type("Odd", (OddServer,), {"odd": odd, "gets": gets})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
