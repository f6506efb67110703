"""Where a command's data goes: `--json FILE|-`. Data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from bench.store import write_whole


def write_json(data: Any, target: str) -> None:
    """`data` as JSON to stdout ("-") or to a file, whole or not at all. Infinite and NaN become null."""
    text = json.dumps(_finite(data), indent=2, default=str, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    write_whole(Path(target), text)


def _finite(data: Any) -> Any:
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return data
