"""Server-sent events out of bytes, however the bytes were cut (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """`data` is the data lines joined by newlines; `kind` the event field, "message" without one."""

    kind: str
    data: bytes


class Splitter:
    """Feed bytes, get the events that became complete. Lines may end in LF, CRLF or CR."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._kind = ""

    def feed(self, data: bytes) -> list[Event]:
        """Events whose closing blank line is in `data` (with what was left from before)."""
        buffer = self._rest + data
        lines = buffer.splitlines(keepends=True) if b"\r" in buffer else buffer.split(b"\n")
        if b"\r" in buffer:
            # A CR at the very end may be half of a CRLF: wait for the next bytes.
            complete = [line for line in lines if line.endswith((b"\n", b"\r"))]
            if buffer.endswith(b"\r"):
                complete = complete[:-1]
            self._rest = buffer[sum(map(len, complete)) :]
            lines = [line.rstrip(b"\r\n") for line in complete]
        else:
            self._rest = lines.pop()
        return [event for line in lines if (event := self._line(line)) is not None]

    @property
    def pending(self) -> bool:
        """Bytes of an event that has no end yet."""
        return bool(self._rest.strip() or self._data)

    def _line(self, line: bytes) -> Event | None:
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            return None
        if line:
            if line.startswith(b"event:"):
                self._kind = line[6:].strip().decode(errors="replace")
            return None
        if not self._data:
            self._kind = ""
            return None
        event = Event(self._kind or "message", b"\n".join(self._data))
        self._data, self._kind = [], ""
        return event
