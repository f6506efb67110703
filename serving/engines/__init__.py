"""ENGINES: name -> "module:Class", resolved only when chosen."""

from __future__ import annotations

import difflib
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from serving.errors import UserError

if (
    TYPE_CHECKING
):  # the simulated server is in this package, and starts in a tenth of a second without pydantic
    from serving.engine import Engine

ENGINES: dict[str, str] = {
    "vllm": "serving.engines.vllm:Vllm",
    "transformers": "serving.engines.transformers:Transformers",
    "endpoint": "serving.engines.endpoint:RunningEndpoint",
    "sim": "serving.engines.sim:Sim",
}


def engine(name: str) -> Engine:
    """The engine of that name. An unknown name lists the known ones and the nearest."""
    if name not in ENGINES:
        near = difflib.get_close_matches(name, ENGINES, n=1)
        raise UserError(
            f"unknown engine {name!r}; known: {', '.join(ENGINES)}",
            f"did you mean {near[0]!r}?" if near else "",
        )
    found: Engine = resolve_name(ENGINES[name])()
    return found
