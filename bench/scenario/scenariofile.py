"""Reads a scenario file: a checked Scenario, or one ScenarioError with file, line, key, found and allowed."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bench.point import Load
from bench.scenario import rules, yamlfile
from bench.scenario.model import Range, Scenario
from serving import masking
from serving.config import SECRETS_BY_NAME, Scalar, ServingConfig, fields_where
from serving.engines import ENGINES
from serving.errors import ScenarioError
from serving.units import size_bytes

ELSEWHERE = fields_where(lambda role: role.own_place)
"""Fields of ServingConfig that have a place of their own in a scenario, outside settings and grid."""


def load(file: Path) -> Scenario:
    """The scenario in `file`. ScenarioError for the first thing wrong, before anything starts."""
    data, lines = yamlfile.read(file)
    for reserved in ("file", "sha256"):
        if reserved in data:
            raise ScenarioError(
                file, lines[(reserved,)], reserved, "the key", ", ".join(_keys(Scenario, ())) or "-"
            )
    sha256 = hashlib.sha256(masking.document(file.read_bytes(), SECRETS_BY_NAME)).hexdigest()
    try:
        scenario = Scenario.model_validate({**data, "file": file, "sha256": sha256})
    except ValidationError as error:
        raise _first(error, lines, file, Scenario) from error
    _check_engines(scenario, lines)
    _check_rules(scenario, lines)
    return scenario


def _check_rules(scenario: Scenario, lines: dict[yamlfile.Path_, int]) -> None:
    known = {*ServingConfig.model_fields, *Load.__dataclass_fields__}
    for index, rule in enumerate(scenario.rules):
        for key in rules.unknown_keys(rule.drop, known):
            where: yamlfile.Path_ = ("rules", index, "drop", key)
            raise _unknown((scenario.file, lines), where, sorted(known))


def _check_engines(scenario: Scenario, lines: dict[yamlfile.Path_, int]) -> None:
    """Engine names, and every value of settings and grid against its field of ServingConfig."""
    for index, part in enumerate(scenario.engines):
        place: yamlfile.Path_ = ("engines", index)
        if part.engine not in ENGINES:
            where = (*place, "engine")
            raise _at(scenario.file, lines, where, repr(part.engine), ", ".join(ENGINES))
        twice = sorted(part.settings.keys() & part.grid.keys())
        if twice:
            raise _at(
                scenario.file, lines, (*place, "grid", twice[0]), "it in settings too", "one of the two"
            )
        values: list[tuple[str, str, tuple[int | str, ...], Any]] = [
            ("settings", k, (), v) for k, v in part.settings.items()
        ]
        for key, choices in part.grid.items():
            if not choices:
                raise _at(scenario.file, lines, (*place, "grid", key), "an empty list", "one value or more")
            values += [("grid", key, (i,), v) for i, v in enumerate(choices)]
        for key, given in part.space.items():
            if key in part.settings or key in part.grid:
                raise _at(scenario.file, lines, (*place, "space", key), "it elsewhere too", "one place")
            listed = (
                enumerate(given)
                if isinstance(given, list)
                else zip(("low", "high"), _ends(given), strict=True)
            )
            values += [("space", key, (i,), v) for i, v in listed]
        for section, key, rest, value in values:
            where = (*place, section, key, *rest)
            if key in ELSEWHERE:
                raise _at(scenario.file, lines, where, "the key here", "its own place in the scenario")
            if key not in ServingConfig.model_fields:
                raise _unknown((scenario.file, lines), where[:4], _settings())
            try:
                ServingConfig.model_validate({"engine": part.engine, "model": "-", key: quantity(key, value)})
            except ValidationError as error:
                found = _first(error, {}, scenario.file, ServingConfig)
                raise _at(
                    scenario.file,
                    lines,
                    where,
                    found.found if found.key != key else _said(key, value),
                    found.allowed,
                ) from error
            except ValueError as error:
                raise _at(scenario.file, lines, where, _said(key, value), str(error)) from error


def _ends(given: Range) -> tuple[float, float]:
    """Both ends of a range, whole numbers as such."""
    low, high = (int(v) if v.is_integer() else v for v in (given.low, given.high))
    return low, high


def quantity(key: str, value: Scalar | dict[str, Any]) -> Any:
    """A setting's value with its unit resolved: `kv_cache_bytes: 1GiB` becomes bytes."""
    return size_bytes(value) if key.endswith("_bytes") and isinstance(value, str) else value


def _at(
    file: Path, lines: dict[yamlfile.Path_, int], where: yamlfile.Path_, found: str, allowed: str
) -> ScenarioError:
    return ScenarioError(file, yamlfile.line_of(where, lines), _dotted(where), found, allowed)


def _unknown(
    place: tuple[Path, dict[yamlfile.Path_, int]], where: yamlfile.Path_, known: list[str]
) -> ScenarioError:
    near = difflib.get_close_matches(str(where[-1]), known, n=1)
    file, lines = place
    return ScenarioError(
        file,
        yamlfile.line_of(where, lines),
        _dotted(where),
        "an unknown key",
        ", ".join(known),
        f"did you mean {near[0]!r}?" if near else "",
    )


def _said(name: str, value: object) -> str:
    """A wrong value as the message shows it."""
    return repr(masking.shown(name, value))


def _settings() -> list[str]:
    return [name for name in ServingConfig.model_fields if name not in ELSEWHERE]


def _dotted(path: yamlfile.Path_) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".") or "scenario"


def _first(
    error: ValidationError,
    lines: dict[yamlfile.Path_, int],
    file: Path,
    top: type[BaseModel],
) -> ScenarioError:
    """The first pydantic complaint as one ScenarioError that says what is allowed."""
    complaints = error.errors()
    # An unknown key comes first: a misspelt required key would else be reported as missing.
    first = next((e for e in complaints if e["type"] == "extra_forbidden"), complaints[0])
    path = tuple(first["loc"])
    key = _dotted(path)
    line = yamlfile.line_of(path, lines)
    if first["type"] == "extra_forbidden":
        return _unknown((file, lines), path, _keys(top, path[:-1]))
    if first["type"] == "missing":
        return ScenarioError(file, line, key, "nothing", "a value (the key is required)")
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    message = message.split(", unable to parse")[0]
    return ScenarioError(file, line, key, _said(str(path[-1]) if path else "", first["input"])[:120], message)


def _keys(top: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """Field names at `path` below `top`, as the file writes them."""
    here = top
    for part in path:
        if isinstance(part, int):
            continue
        field = here.model_fields.get(part)
        inner = _model_in(field.annotation) if field else None
        if inner is None:
            return []
        here = inner
    hidden = {"file", "sha256"}
    return [f.alias or name for name, f in here.model_fields.items() if name not in hidden]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
