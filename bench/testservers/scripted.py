"""A server whose timings are known: it follows a script per request and writes down what it truly did.

One thread, one epoll, one heap of due steps; it knows nothing of inference. The model name of a request
chooses the script (`bench.testservers.cases`). Used by the conformance suite, the client's benchmark and the
loopback calibration. Started as `python -m bench.testservers.scripted PORT [CORE]`; GET /truth gives, per
request id (the prompt's first two words, numbered where they come again), when its request was read and when
its events were truly sent.
"""

from __future__ import annotations

import heapq
import json
import os
import select
import socket
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from bench.testservers.cases import script_for
from bench.testservers.frames import prompt_of, whole_body
from bench.testservers.steps import CLOSE, RESET, Script

RESET_LINGER = struct.pack("ii", 1, 0)


@dataclass(eq=False, slots=True)
class ScriptedStream:
    """One connection and the script it follows; `sent_s` are the true stamps of its event steps."""

    sock: socket.socket
    inbox: bytes = b""
    steps: Iterator[tuple[float, bytes, bool]] | None = None
    next_step: tuple[float, bytes, bool] | None = None
    begun_s: float = 0.0
    name: str = ""
    sent_s: list[float] = field(default_factory=list)
    backlog: bytes = b""


class Scripted:
    """Serves on loopback until `stop()` says so."""

    def __init__(self, port: int = 0) -> None:
        self.listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.truth: dict[str, tuple[float, list[float]]] = {}
        self._epoll = select.epoll()
        self._epoll.register(self.listener.fileno(), select.EPOLLIN)
        self._streams: dict[int, ScriptedStream] = {}
        self._due: list[tuple[float, int, ScriptedStream]] = []
        self._order = count()
        self._named: Counter[str] = Counter()
        self._arrived: deque[tuple[ScriptedStream, bytes, bytes, float]] = deque()

    def run(self, stop: Callable[[], bool] = lambda: False) -> None:
        """The loop: sends what is due, then waits for requests until the next step."""
        while not stop():
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, stream = heapq.heappop(self._due)
                if stream.steps is not None:
                    self._step(stream)
                now = time.monotonic()
            wait_s = min(self._due[0][0] - now, 0.1) if self._due else 0.1
            # epoll waits whole milliseconds: below one, poll, so that no step is late for that. Requests are
            # stamped as soon as they are there and begun one a round: a crowd of them is no late arrival.
            for fd, _ in self._epoll.poll(wait_s if wait_s > 0.001 and not self._arrived else 0):
                if fd == self.listener.fileno():
                    self._accept()
                else:
                    self._read(self._streams[fd])
            if self._arrived:
                self._begin(*self._arrived.popleft())

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._streams[sock.fileno()] = ScriptedStream(sock)
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _read(self, stream: ScriptedStream) -> None:
        try:
            data = stream.sock.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(stream)
            return
        stream.inbox += data
        head, gap, rest = stream.inbox.partition(b"\r\n\r\n")
        if not gap:
            return
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        if len(rest) < length:
            return
        stream.inbox = rest[length:]
        self._arrived.append((stream, head, rest[:length], time.monotonic()))

    def _begin(self, stream: ScriptedStream, head: bytes, body: bytes, arrived_s: float) -> None:
        path = head.split(b" ", 2)[1]
        if not path.endswith(b"/completions"):
            stream.sock.setblocking(True)
            stream.sock.sendall(self._answer(path))
            stream.sock.setblocking(False)
            return
        asked = json.loads(body)
        script: Script = script_for(str(asked.get("model", "")))
        asked.setdefault("max_tokens", asked.get("max_completion_tokens"))
        stream.name, stream.begun_s, stream.sent_s = " ".join(prompt_of(asked).split()[:2]), arrived_s, []
        stream.steps = iter(script(asked))
        self._plan(stream)

    def _answer(self, path: bytes) -> bytes:
        """To all but completions: the truth, or, for clients that ask, that a server is there."""
        answers: dict[bytes, dict[str, object]] = {
            b"/truth": {"truth": self.truth, "cpu_s": time.process_time()},
            b"/health": {},
            b"/v1/models": {"data": []},
        }
        return whole_body(200 if path in answers else 404, json.dumps(answers.get(path, {})).encode())

    def _plan(self, stream: ScriptedStream) -> None:
        assert stream.steps is not None
        stream.next_step = next(stream.steps, None)
        if stream.next_step is None:
            stream.steps = None
            self._keep(stream)
            return
        heapq.heappush(self._due, (stream.begun_s + stream.next_step[0], next(self._order), stream))

    def _step(self, stream: ScriptedStream) -> None:
        assert stream.next_step is not None
        _, data, is_event = stream.next_step
        if data in (CLOSE, RESET):
            self._keep(stream)
            if data is RESET:
                stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_LINGER)
            self._drop(stream)
            return
        try:
            sent = stream.sock.send(stream.backlog + data)
            stream.backlog = (stream.backlog + data)[sent:]
        except BlockingIOError:
            stream.backlog += data
        except OSError:
            self._drop(stream)
            return
        if is_event:
            stream.sent_s.append(time.monotonic())
        self._plan(stream)

    def _keep(self, stream: ScriptedStream) -> None:
        self._named[stream.name] += 1
        times = self._named[stream.name]
        name = stream.name if times == 1 else f"{stream.name} #{times}"
        self.truth[name] = (stream.begun_s, stream.sent_s)

    def _drop(self, stream: ScriptedStream) -> None:
        stream.steps = None
        self._streams.pop(stream.sock.fileno(), None)
        stream.sock.close()


def main() -> None:
    """Serves until its standard input ends; says its port first."""
    if len(sys.argv) > 2:
        os.sched_setaffinity(0, {int(sys.argv[2])})
    server = Scripted(int(sys.argv[1]))
    print(server.port, flush=True)
    poll = select.poll()
    poll.register(sys.stdin.fileno(), select.POLLHUP | select.POLLIN)
    checked = [0.0]

    def ended() -> bool:
        now = time.monotonic()
        if now - checked[0] < 0.5:
            return False
        checked[0] = now
        return bool(poll.poll(0))

    server.run(ended)


if __name__ == "__main__":
    main()
