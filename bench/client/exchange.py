"""Exchange: one request's bytes as they came, with the stamp of every read. Written raw, parsed later."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

_HEAD = struct.Struct("<qqddddII")
_NONE = -1.0
LEFT_OPEN = "the server left its stream open after [DONE]; the connection was given up"


@dataclass(slots=True, eq=False)
class Exchange:
    """Stamps are CLOCK_MONOTONIC seconds; `parts[i]` was read at `stamps[i]`.

    error: a `RequestError` value the connection saw ("" when it ended in order); `closed_s` is its end.
    """

    index: int
    planned_s: float
    session: int = -1
    sent_s: float | None = None
    connected_s: float | None = None
    closed_s: float | None = None
    stamps: list[float] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    error: str = ""
    detail: str = ""
    asked_tokens: int = 0
    """Output tokens asked for, by which its deadline goes; not written down."""
    done_s: float | None = None
    """When [DONE] came, of a body that has not ended then; not written down."""

    def write(self, file: BinaryIO) -> None:
        error, detail = self.error.encode(), self.detail.encode(errors="replace")[:2000]
        times = [_NONE if t is None else t for t in (self.sent_s, self.connected_s, self.closed_s)]
        file.write(
            _HEAD.pack(
                self.index,
                self.session,
                self.planned_s,
                *times,
                len(self.parts),
                len(error) << 16 | len(detail),
            )
        )
        file.write(error + detail)
        file.write(struct.pack(f"<{len(self.stamps)}d", *self.stamps))
        file.write(struct.pack(f"<{len(self.parts)}I", *map(len, self.parts)))
        file.write(b"".join(self.parts))


def read(path: Path) -> Iterator[Exchange]:
    """Every whole exchange of a file; one torn by a kill at its end is left out."""
    data = memoryview(path.read_bytes())
    at = 0
    while at + _HEAD.size <= len(data):
        index, session, planned, sent, connected, closed, count, lengths = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        error_length, detail_length = lengths >> 16, lengths & 0xFFFF
        sizes_at = at + error_length + detail_length + 8 * count
        if sizes_at + 4 * count > len(data):
            return
        sizes = struct.unpack_from(f"<{count}I", data, sizes_at)
        body = sizes_at + 4 * count
        if body + sum(sizes) > len(data):
            return
        error = bytes(data[at : at + error_length]).decode()
        detail = bytes(data[at + error_length : at + error_length + detail_length]).decode(errors="replace")
        stamps = list(struct.unpack_from(f"<{count}d", data, at + error_length + detail_length))
        parts = []
        for size in sizes:
            parts.append(bytes(data[body : body + size]))
            body += size
        at = body
        yield Exchange(
            index,
            planned,
            session,
            _known(sent),
            _known(connected),
            _known(closed),
            stamps,
            parts,
            error,
            detail,
        )


def _known(stamp: float) -> float | None:
    return None if stamp == _NONE else stamp
