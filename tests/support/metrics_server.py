"""A server whose /metrics is scripted, or that of a real Prometheus registry, on a port of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import MetricsHandler

Answer = tuple[int, str]


@contextmanager
def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The base URL of `handler` on 127.0.0.1 for as long as the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def scripted(answer: Callable[[str], Answer | None], keep: bool = True) -> Iterator[str]:
    """`answer(path)` gives status and body; None closes the connection without a word."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            said = answer(self.path)
            if said is None:
                self.close_connection = True
                return
            body = said[1].encode()
            self.send_response(said[0])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = not keep  # closed without saying so, as a server does on its own time-out

        def log_message(self, *_: object) -> None:
            pass

    with serve(Handler) as url:
        yield url


@contextmanager
def registry_server(registry: CollectorRegistry, paths: list[str]) -> Iterator[str]:
    """The Prometheus client's own handler, which knows `?name[]=`; the paths asked are kept in `paths`."""

    class Handler(MetricsHandler.factory(registry)):  # type: ignore[misc]
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            paths.append(self.path)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with serve(Handler) as url:
        yield url
