"""The two files that a search leaves in its run folder, and how the answer is written and read.

`study.jsonl` is the log of the study (`search.resume`), `study.json` its answer, written when the search has
ended (docs/search.md). They are here because a spec, which may know no search, is made of the answer too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.store import write_whole
from serving.errors import BrokenRunError, UserError

LOG, ANSWER = "study.jsonl", "study.json"
AGAIN = "servetune search ... --resume writes it again"


def is_study(folder: Path) -> bool:
    """Whether a search, not a plan, made this run folder."""
    return (folder / LOG).is_file() or (folder / ANSWER).is_file()


def answer(folder: Path) -> dict[str, Any] | None:
    """The answer; None while there is none. BrokenRunError when the file is no JSON object."""
    file = folder / ANSWER
    if not file.is_file():
        return None
    try:
        loaded = json.loads(file.read_bytes())
    except ValueError as error:
        raise BrokenRunError(f"{file} is not JSON: {error}", AGAIN) from error
    if not isinstance(loaded, dict):
        raise BrokenRunError(f"{file} holds no answer of a search", AGAIN)
    return loaded


def ended_answer(folder: Path) -> dict[str, Any] | None:
    """The answer of a search; None for a run that is no study. UserError while the search has not ended."""
    found = answer(folder)
    if found is None and is_study(folder):
        raise UserError(
            f"the search in {folder} has not ended: it has no answer yet",
            "servetune search SCENARIO --resume; or name a point with --point KEY",
        )
    return found


def write_answer(folder: Path, written: Mapping[str, Any]) -> None:
    """Writes `study.json`, whole or not at all. Infinite and NaN become null."""
    text = json.dumps(finite(written), indent=2, default=str, allow_nan=False) + "\n"
    write_whole(folder / ANSWER, text)


def finite(data: Any) -> Any:
    """`data` with null for every number that JSON cannot hold."""
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    return data
