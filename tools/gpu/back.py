"""Brings results back in few files of limited size: what is new since the last time, the small and vital first.

Each call makes one compressed archive, cut in pieces: `cat NAME.tar.xz.* | tar -xJ -C results`, in the order of
the names, puts any number of them together. What does not fit comes with the next call.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PIECE_BYTES, MOST_PIECES = 16 * 2**20, 7
FIRST = (".json", ".jsonl", ".yaml", ".log", ".txt", ".md", ".csv")
DERIVED = frozenset({"report.html", "summary.csv", "summary.parquet"})
"""`servetune report` makes them again."""
MADE = "brought.json"

Mark = tuple[int, int]
"""Size and time of change, nanoseconds."""


def fresh(results: Path, brought: Mapping[str, Mark]) -> list[Path]:
    """Files that changed since, in the order of worth: logs and journals, then the rest by name."""
    found = [
        file for file in sorted(results.rglob("*")) if file.is_file() and not file.is_symlink()
        and file.name not in DERIVED and brought.get(str(file.relative_to(results))) != mark(file)
    ]  # fmt: skip
    return sorted(found, key=lambda file: file.suffix not in FIRST)


def mark(file: Path) -> Mark:
    known = file.stat()
    return known.st_size, known.st_mtime_ns


def fitting(files: Iterable[Path], room_bytes: int) -> list[Path]:
    """From the front of `files`, what surely fits even if it cannot be compressed."""
    kept = []
    for file in files:
        takes = file.stat().st_size + 2048
        if takes <= room_bytes:
            kept.append(file)
            room_bytes -= takes
    return kept


def bring(results: Path, out: Path, *, piece_bytes: int = PIECE_BYTES, most: int = MOST_PIECES) -> int:
    """Writes the pieces into `out`; how many files are left for the next call."""
    state = results.parent / MADE
    before: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {"calls": 0, "files": {}}
    brought: dict[str, Mark] = {name: (size, at) for name, (size, at) in before["files"].items()}
    new = fresh(results, brought)
    chosen = fitting(new, piece_bytes * most - piece_bytes // 4)
    if not chosen:
        return len(new)
    marks = {str(file.relative_to(results)): mark(file) for file in chosen}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=1) as tar:
        for file in chosen:
            tar.add(file, str(file.relative_to(results)), recursive=False)
    data, calls = buffer.getvalue(), before["calls"] + 1
    out.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(data), piece_bytes)):
        (out / f"results-{calls:02d}.tar.xz.{number}").write_bytes(data[start : start + piece_bytes])
    state.write_text(json.dumps({"calls": calls, "files": brought | marks}))
    return len(new) - len(chosen)
