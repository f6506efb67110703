"""YAML with the line of every key, so that an error can point at it. Only safe loading, no duplicates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from serving.errors import ScenarioError

Path_ = tuple[str | int, ...]
MAX_DEPTH, MAX_KEYS = 20, 100_000


def read(file: Path) -> tuple[dict[str, Any], dict[Path_, int]]:
    """The mapping in `file`, and the 1-based line of every path in it.

    ScenarioError: not readable, not YAML, not a mapping, or a key given twice.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(file, None, "file", str(error), "a readable UTF-8 YAML file") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Path_, int] = {}
        _walk(node, (), lines, file)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ScenarioError(file, line, "yaml", str(error.problem), "well-formed YAML") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ScenarioError(file, None, "yaml", str(error), "well-formed YAML") from error
    if not isinstance(data, dict):
        raise ScenarioError(file, 1, "file", type(data).__name__, "a mapping of keys")
    return data, lines


def _walk(node: yaml.Node | None, path: Path_, lines: dict[Path_, int], file: Path) -> None:
    if len(path) > MAX_DEPTH or len(lines) > MAX_KEYS:
        # An alias inside itself, or aliases of aliases: small files that never end.
        allowed = f"{MAX_KEYS:,} keys, {MAX_DEPTH} deep"
        raise ScenarioError(file, lines.get(path[:1]), str(path[0]), "aliases without end", allowed)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            line = key.start_mark.line + 1
            if here in lines:
                first = lines[here]
                raise ScenarioError(
                    file, line, str(key.value), f"the key twice (first on line {first})", "each key once"
                )
            lines[here] = line
            _walk(value, here, lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = value.start_mark.line + 1
            _walk(value, (*path, index), lines, file)


def line_of(path: Path_, lines: dict[Path_, int]) -> int | None:
    """Line of the deepest part of `path` that the file holds."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None
