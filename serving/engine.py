"""The one protocol every engine meets, and what a running one looks like from outside.

HTTP is the only way in: an engine is a command line that becomes an OpenAI-compatible server.
Adding one is a file in `serving/engines/` and a row in `ENGINES`; the conformance suite
(`tests/serving/test_engines.py`) then tests it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from serving.config import ServingConfig


@dataclass(frozen=True)
class Command:
    """How to start a server: argument list, and what is added to its environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Endpoint:
    """A server that answers. `url` has no trailing slash and no /v1.

    `served_model` is the name requests must carry; `effective` is the server's own account of its
    settings (neutral names where they map); `pid` is None for a server we did not start.
    `ready_s`: from process start to the first real token.
    """

    url: str
    served_model: str
    engine: str
    version: str
    simulated: bool = False
    pid: int | None = None
    log: Path | None = None
    api_key_env: str | None = None
    ready_s: float | None = None
    effective: Mapping[str, object] = field(default_factory=dict)


class Engine(Protocol):
    """What servetune must know of an engine; everything else it learns over HTTP."""

    name: str
    simulated: bool
    honours: frozenset[str]
    """Fields of ServingConfig this engine maps to something. Any other non-default field is an error."""

    def problems(self, config: ServingConfig) -> list[str]:
        """Why this config cannot be launched, one sentence each; empty when it can. No side effects.

        Flags are held against the installed version where there is one.
        """
        ...

    def version(self, config: ServingConfig) -> str:
        """Version that would be started (from its lock file or environment); "unknown" for endpoints."""
        ...

    def command(self, config: ServingConfig, port: int) -> Command | None:
        """Argument list that serves `config` on 127.0.0.1:`port`; None when nothing is started."""
        ...

    def served_model(self, config: ServingConfig) -> str:
        """The `model` value that requests carry."""
        ...

    def effective(self, url: str, config: ServingConfig, log: str) -> dict[str, object]:
        """The server's own account of its settings: from /v1/models, /metrics, /version and its log."""
        ...

    def without_effect(
        self, config: ServingConfig, effective: Mapping[str, object], log: str
    ) -> dict[str, str]:
        """Settings that were accepted and did nothing: neutral name -> the evidence."""
        ...

    def reset_prefix_cache(self, url: str) -> bool:
        """Empty the prefix cache between points; False when the engine cannot (prompts then differ)."""
        ...
