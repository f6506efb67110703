"""ENGINES: name -> "module:Class", resolved only when chosen."""

from __future__ import annotations

import difflib
from pkgutil import resolve_name

from serving.engine import Engine
from serving.errors import UserError

ENGINES: dict[str, str] = {
    "vllm": "serving.engines.vllm:Vllm",
    "transformers": "serving.engines.transformers:Transformers",
    "endpoint": "serving.engines.endpoint:RunningEndpoint",
    "sim": "serving.sim.engine:Sim",
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
