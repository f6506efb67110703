"""Files that a kill cannot spoil: whole files, and logs that lose at most the line being written."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from serving.errors import BrokenRunError

_RESUMED = b'"event":"resumed"'
_APPENDING = threading.Lock()


def write_whole(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    """`path` is the old file or all of `content` (text is UTF-8), synced, whatever happens in between.

    A function writes to the path it is given. A device or a pipe (/dev/stdout) has no old content to save
    and is written directly. OSError as the system raises it.
    """
    if path.exists() and not path.is_file():
        _fill(path, content)
        return
    # Two processes may write the same file, as the calibration in .cache: each has a part of its own.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        _fill(part, content)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@dataclass
class Log:
    """An append-only file of one JSON object a line.

    sync_s  0: a line is on disk before `append` returns. Else lines are synced at most so often, and by
            `sync`: a power cut may take the last of them, a kill of this process takes none
    escape  characters beyond ASCII are escaped, which also holds text that is no valid Unicode
    """

    path: Path
    sync_s: float = 0.0
    escape: bool = True
    _synced: float = field(default_factory=lambda: time.monotonic(), init=False, repr=False)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Adds one line. OSError when the disk is full; what is torn then is cut off by the next append."""
        text = json.dumps(entry, separators=(",", ":"), ensure_ascii=self.escape, default=str)
        with _APPENDING, self.path.open("a+b") as file:
            _mend(file)
            file.write(text.encode() + b"\n")
            file.flush()
            if not self.sync_s or time.monotonic() - self._synced > self.sync_s:
                self._sync(file)

    def sync(self) -> None:
        """What was appended is on disk when this returns."""
        with self.path.open("ab") as file:
            self._sync(file)

    def _sync(self, file: BinaryIO) -> None:
        os.fsync(file.fileno())
        self._synced = time.monotonic()


def read(path: Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The entries of a log from byte `start` on, each with the byte that follows it; none without a file.

    A line torn by a kill or a full disk is passed over at the end, and before the event "resumed".
    BrokenRunError with line and byte for any other damage.
    """
    if not path.exists():
        return
    torn: tuple[int, bytes] | None = None
    at = start
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            begin, at = at, at + len(line)
            if not line.strip():
                continue
            if torn is not None and _RESUMED not in line:
                raise _damage(path, *torn)
            torn, entry = None, _entry(line)
            if entry is None:
                torn = begin, line
            else:
                yield at, entry


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _damage(path: Path, begin: int, line: bytes) -> BrokenRunError:
    number = path.read_bytes().count(b"\n", 0, begin) + 1
    shown = line[:60].decode(errors="replace")
    return BrokenRunError(
        f"{path}:{number}: at byte {begin}: not an event: {shown!r}",
        "copy the file, then delete this line",
    )


def _mend(file: BinaryIO) -> None:
    """Ends the last line: cut off where it is torn, completed where only its line break is missing."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    content = file.read()
    last = content.rfind(b"\n") + 1
    if _entry(content[last:]) is None:
        file.truncate(last)
    else:
        file.write(b"\n")


def _fill(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
