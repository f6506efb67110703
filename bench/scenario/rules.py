"""Rules that drop combinations: key -> value, list of values, or a comparison such as "< concurrency"."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "!=": operator.ne, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_COMPARISON = re.compile(r"\s*(<=|>=|!=|<|>)\s*(\S+)\s*")


def matches(drop: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether every condition holds. A key the combination does not have (or None) never matches."""
    return all(_holds(condition, facts.get(key), facts) for key, condition in drop.items())


def unknown_keys(drop: Mapping[str, Any], known: set[str]) -> list[str]:
    """Keys named by a rule, on either side of a comparison, that no combination has."""
    named = list(drop)
    for condition in drop.values():
        match = _COMPARISON.fullmatch(condition) if isinstance(condition, str) else None
        if match and _number(match[2]) is None and match[1] != "!=":
            named.append(match[2])
    return [name for name in named if name not in known]


def _holds(condition: Any, value: Any, facts: Mapping[str, Any]) -> bool:
    if value is None:
        return False
    if isinstance(condition, list):
        return value in condition
    match = _COMPARISON.fullmatch(condition) if isinstance(condition, str) else None
    if match is None:
        return bool(value == condition)
    number = _number(match[2])
    other = number if number is not None else facts.get(match[2], match[2] if match[1] == "!=" else None)
    return other is not None and OPERATORS[match[1]](value, other)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
