"""Quantities as people write them: "500ms", "1GiB". A number alone is in the unit the key names."""

from __future__ import annotations

import re

SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
BYTES = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*")


def seconds(value: str | float) -> float:
    """A duration in seconds. ValueError names the units allowed."""
    return _quantity(value, SECONDS, "s")


def size_bytes(value: str | float) -> int:
    """A size in bytes; decimal and binary prefixes are kept apart (GB is not GiB)."""
    return round(_quantity(value, BYTES, "B"))


def _quantity(value: str | float, units: dict[str, float] | dict[str, int], default: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"a quantity like 5{default}, not {value!r}")  # noqa: TRY004 -- pydantic reads it
    if isinstance(value, (int, float)):
        return float(value)
    match = _QUANTITY.fullmatch(value)
    if match is None or (match[2] and match[2] not in units):
        raise ValueError(f"a number with a unit of {', '.join(units)}, not {value!r}")
    return float(match[1]) * units[match[2] or default]


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def share(by: float) -> str:
    """A share as %, whole from ten on: what is missed by a little is never missed "by 0%"."""
    return f"{by:.0%}" if by >= 0.1 else f"{100 * by:.2g}%"
