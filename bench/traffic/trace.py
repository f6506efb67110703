"""Recorded traffic: arrival time, input and output tokens of each request, and shared prefix blocks.

Two forms are read, plain or gzipped:
- CSV with a header: arrival in seconds (arrival_s, timestamp_s, or an ISO TIMESTAMP as Azure's), input
  tokens (input_tokens, ContextTokens, ...), output tokens (output_tokens, GeneratedTokens, ...);
- JSONL as Mooncake's: timestamp in ms, input_length, output_length, hash_ids of 512-token prefix blocks,
  each row an object with these names or a list in this order.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from serving.errors import UserError

BLOCK_TOKENS = 512
"""Tokens that one hash id of a Mooncake trace stands for."""
TIMES = ("arrival_s", "arrival", "timestamp_s", "timestamp", "TIMESTAMP", "time_s")
INPUTS = ("input_tokens", "ContextTokens", "input_length", "prompt_tokens", "request_tokens")
OUTPUTS = ("output_tokens", "GeneratedTokens", "output_length", "completion_tokens", "response_tokens")


MOONCAKE = ("timestamp", "input_length", "output_length", "hash_ids")
Sizes = tuple[float, int, int, tuple[int, ...]]
"""Arrival in seconds, input tokens, output tokens, prefix blocks."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One recorded request; `blocks` name prefix blocks: equal ids, equal tokens."""

    at_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


def read(path: Path, *, requests: int | None = None, duration_s: float | None = None) -> list[Arrival]:
    """Arrivals from the first on (time 0), sorted, cut at `requests` or `duration_s`.

    UserError with file and line for what cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"trace {path}: {error.strerror}", "name a CSV or JSONL file of arrivals") from error
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    json_lines = ".jsonl" in path.suffixes or text.lstrip().startswith("{")
    rows = _jsonl(text, path) if json_lines else _csv(text, path)
    if not rows:
        raise UserError(f"trace {path}: no arrivals in it")
    rows.sort(key=lambda row: row.at_s)
    first = rows[0].at_s
    shifted = [Arrival(r.at_s - first, r.input_tokens, r.output_tokens, r.blocks) for r in rows]
    if duration_s is not None:
        shifted = [r for r in shifted if r.at_s < duration_s]
    return shifted[:requests]


def _csv(text: str, path: Path) -> list[Arrival]:
    reader = csv.DictReader(io.StringIO(text))
    names = reader.fieldnames or []
    columns = []
    for what, known in (("arrival time", TIMES), ("input tokens", INPUTS), ("output tokens", OUTPUTS)):
        found = next((name for name in known if name in names), None)
        if found is None:
            raise UserError(
                f"{path}:1: no column of {what}; found {', '.join(names)}",
                f"name it one of {', '.join(known)}",
            )
        columns.append(found)
    when, came, went = columns
    return [
        _arrival(path, number, row, lambda r: (_seconds(r[when]), int(r[came]), int(r[went]), ()))
        for number, row in enumerate(reader, 2)
    ]


def _jsonl(text: str, path: Path) -> list[Arrival]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}:{number}: not JSON: {error}") from error
            rows.append(_arrival(path, number, row, _mooncake))
    return rows


def _mooncake(row: Any) -> Sizes:
    named = dict(zip(MOONCAKE, row, strict=False)) if isinstance(row, list) else row
    at_ms, came, went = (named[name] for name in MOONCAKE[:3])
    return float(at_ms) / 1000, int(came), int(went), tuple(map(int, named.get("hash_ids") or ()))


def _arrival(path: Path, number: int, row: Any, make: Callable[[Any], Sizes]) -> Arrival:
    try:
        at_s, came, went, blocks = make(row)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}:{number}: {error!r} in {row!r}"[:300]) from error
    if came < 1 or went < 1:
        raise UserError(f"{path}:{number}: {came} input and {went} output tokens; at least 1 each")
    return Arrival(at_s, came, went, blocks)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        # Azure writes seven decimals; Python reads six.
        whole, _, fraction = text.partition(".")
        return datetime.fromisoformat(f"{whole}.{fraction[:6] or 0}").timestamp()
