"""transformers: `transformers serve` from its own environment, with bitsandbytes, on CPU or CUDA."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from serving.config import ServingConfig
from serving.engine import Command
from serving.engines import installed
from serving.install import environments

VALUE_FLAGS = {"dtype": "--dtype", "attention_backend": "--attn-implementation"}
QUANTIZATIONS = frozenset({"bnb-4bit", "bnb-8bit"})
PLACEMENT = {"cpu": "cpu", "cuda": "cuda"}
BATCHING_ONLY = "cb-"

OWNED = frozenset({"host", "port", "device", "quantization", "continuous-batching", "trust-remote-code"})
"""Flags that extra_args may not set: servetune sets them, or they would change what is measured unseen."""


class Transformers:
    """Engine protocol (`serving.engine`) over `transformers serve`; docs/engines.md has what was found."""

    name = "transformers"
    simulated = False
    honours = frozenset(VALUE_FLAGS) | {
        "quantization",
        "revision",
        "continuous_batching",
        "enforce_eager",
        "max_num_batched_tokens",
        "gpu_memory_utilization",
        "extra_args",
        "env",
        "attempt",
    }

    def problems(self, config: ServingConfig) -> list[str]:
        """Not installed, weights missing, an unknown method, or an option of batching without batching."""
        version = self.version(config)
        environment = environments.find("transformers", config.engine_version, config.device)
        found = installed.problems("transformers", config, environment, version)
        if environment is not None and environment.installed:
            known = environments.flags(environment)
            wanted = [part for part in _arguments(config) if part.startswith("--")]
            found += [f"transformers {version} has no flag {flag}" for flag in wanted if flag not in known]
        found += [f"extra_args may not set {name}" for name in config.extra_args if _plain(name) in OWNED]
        if not config.continuous_batching:
            for name in ("max_num_batched_tokens", "gpu_memory_utilization"):
                if getattr(config, name) is not None:
                    found.append(f"transformers: {name} does nothing without continuous_batching: true")
            batching = [name for name in config.extra_args if _plain(name).startswith(BATCHING_ONLY)]
            found += [f"transformers: {name} does nothing without continuous_batching" for name in batching]
        return found

    def version(self, config: ServingConfig) -> str:
        environment = environments.find("transformers", config.engine_version, config.device)
        return environment.version if environment else config.engine_version or "unknown"

    def command(self, config: ServingConfig, port: int) -> Command:
        program = installed.program("transformers", config, "transformers")
        serve = (program, "serve", self.served_model(config), "--host", "127.0.0.1", "--port", str(port))
        env = dict(environments.NO_TELEMETRY)
        if Path(config.checkpoint or config.model).is_dir():
            env["HF_HUB_OFFLINE"] = "1"
            env["HF_HUB_CACHE"] = "."  # /v1/models lists the hub's cache, not what is served: empty here
        return Command((*serve, "--device", PLACEMENT[config.device], *_arguments(config)), env)

    def served_model(self, config: ServingConfig) -> str:
        """The server is pinned to the text it was started with: a folder, or a hub id and its revision."""
        weights = installed.weights(config)
        return f"{weights}@{config.revision}" if config.revision else weights

    def effective(self, url: str, config: ServingConfig, log: str) -> dict[str, object]:
        """What little it says: the model it loaded. Its own account has no settings, so none are claimed."""
        loaded = re.search(r"Loading (\S+)", log)
        return {"model": loaded[1]} if loaded else {}

    def without_effect(
        self, config: ServingConfig, effective: Mapping[str, object], log: str
    ) -> dict[str, str]:
        """Continuous batching that the server says it fell back from."""
        line = re.search(r"[^\n]*[Cc]ontinuous batching[^\n]*(not supported|[Ff]alling back)[^\n]*", log)
        if config.continuous_batching and line:
            return {"continuous_batching": f"the log says: {line[0].strip()}"}
        return {}

    def reset_prefix_cache(self, url: str) -> bool:
        """It keeps no prefixes between requests, so there is nothing to reset; batching's cannot be."""
        return False


def _arguments(config: ServingConfig) -> list[str]:
    found: list[str] = []
    for name, flag in VALUE_FLAGS.items():
        value = config.settings.get(name)
        if value not in (None, "auto"):
            found += [flag, str(value)]
    if config.quantization in QUANTIZATIONS:
        found += ["--quantization", config.quantization]
    if config.enforce_eager is False:
        found.append("--compile")
    if config.continuous_batching:
        found.append("--continuous-batching")
        if config.max_num_batched_tokens is not None:
            found += ["--cb-max-batch-tokens", str(config.max_num_batched_tokens)]
        if config.gpu_memory_utilization is not None:
            found += ["--cb-max-memory-percent", str(config.gpu_memory_utilization)]
    return found + installed.extra_flags(config)


def _plain(name: str) -> str:
    return name.lstrip("-").replace("_", "-").removeprefix("no-")
