"""Where a command's data goes: `--json FILE|-`. Data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench.records.study import finite
from bench.store import write_whole


def write_json(data: Any, target: str) -> None:
    """`data` as JSON to stdout ("-") or to a file, whole or not at all. Infinite and NaN become null."""
    text = json.dumps(finite(data), indent=2, default=str, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    write_whole(Path(target), text)
