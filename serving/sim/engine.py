"""The simulated engine: a server of ours that stands for vLLM on a GPU nobody has here. Never deployable."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import httpx

from serving.config import ServingConfig
from serving.costmodel import hardware, quantization, shapes
from serving.costmodel.defaults import NAMES, of_config
from serving.engine import Command
from serving.sim import settings as sim_settings
from serving.sim.server import tokenizer_file

TIMEOUT_S = 10.0
ASKED = NAMES | {"sim", "model", "checkpoint", "tokenizer"}
"""What the server is told; the rest (environment, device) is not its business."""


class Sim:
    """Engine protocol (`serving.engine`) over `serving.sim.server`; docs/sim.md has the model."""

    name = "sim"
    simulated = True
    honours = NAMES | {"sim", "env"}

    def problems(self, config: ServingConfig) -> list[str]:
        """Wrong `sim` keys, unknown device, shape or quantization, and combinations that vLLM refuses too."""
        found = list(_checked(json.dumps(config.sim, sort_keys=True, default=str)) if config.sim else ())
        if found:
            return found
        device = hardware.find(str(config.sim.get("gpu", "h200")))
        named = str(config.sim.get("shape") or config.checkpoint or config.model)
        shape = _shape(named)
        if device is None:
            found.append(_unknown("gpu", str(config.sim["gpu"]), hardware.HARDWARE, hardware.nearest))
        if shape is None:
            found.append(_unknown("shape", named, shapes.SHAPES, shapes.nearest))
        scheme = quantization.find(config.quantization)
        if scheme is None:
            known = ", ".join(quantization.SCHEMES)
            found.append(f"sim: no cost model for quantization {config.quantization!r}; known: {known}")
        try:
            tokenizer_file({"tokenizer": config.tokenizer, "model": config.model})
        except ValueError as error:
            found.append(f"sim: {error}; tokenizer: none counts words")
        if device is None or shape is None or scheme is None:
            return found
        return found + _combination(config, device, shape, scheme)

    def version(self, config: ServingConfig) -> str:
        return sim_settings.VERSION

    def command(self, config: ServingConfig, port: int) -> Command:
        python = Path(sys.executable)
        if sim_settings.settings(config.sim).fault.name == "not_installed":
            python = python.with_name("sim-engine-that-is-not-installed")
        asked = {name: value for name, value in config.settings.items() if name in ASKED}
        words = tokenizer_file({"tokenizer": config.tokenizer, "model": config.model})
        if words is not None:  # the server has a working directory of its own
            asked["tokenizer"] = str(words.parent.resolve())
        settings = json.dumps({"model": config.model, **asked}, sort_keys=True)
        module = "serving.sim.server"
        return Command((str(python), "-m", module, "--port", str(port), "--settings", settings), config.env)

    def served_model(self, config: ServingConfig) -> str:
        return config.model

    def effective(self, url: str, config: ServingConfig, log: str) -> dict[str, object]:
        """From GET /server_info: every setting as it is in force, `simulated`, KV tokens, weight bytes."""
        info = httpx.get(f"{url}/server_info", timeout=TIMEOUT_S, trust_env=False).raise_for_status().json()
        memory = info["memory"]
        return {
            **info["settings"],
            "simulated": info["simulated"],
            "gpu": info["gpu"],
            "shape": info["shape"],
            "seed": info["seed"],
            "time_scale": info["time_scale"],
            "noise": info["noise"],
            "launch_factor": info["launch_factor"],
            "quantized_layers": info["quantized_layers"],
            "kv_cache_tokens": memory["kv_tokens"],
            "weights_bytes": memory["weights"],
        }

    def without_effect(
        self, config: ServingConfig, effective: Mapping[str, object], log: str
    ) -> dict[str, str]:
        """A quantization that the log or the server's account says was not applied."""
        if config.quantization == "none":
            return {}
        line = re.search(r"Quantizing 0 layers.*", log)
        if line:
            return {"quantization": f"the log says: {line[0]}"}
        if effective.get("quantization") not in (None, config.quantization):
            return {"quantization": f"/server_info says quantization={effective['quantization']}"}
        return {}

    def reset_prefix_cache(self, url: str) -> bool:
        try:
            answer = httpx.post(f"{url}/reset_prefix_cache", timeout=TIMEOUT_S, trust_env=False)
        except httpx.TransportError:  # it died meanwhile: whoever watches the process says why
            return False
        return answer.status_code == 200


@lru_cache(maxsize=256)
def _checked(sim: str) -> tuple[str, ...]:
    return tuple(sim_settings.check(json.loads(sim)))


@lru_cache(maxsize=64)
def _shape(name: str) -> shapes.Shape | None:
    return shapes.find(name)


def _unknown(what: str, name: str, known: Mapping[str, object], nearest: Callable[[str], str | None]) -> str:
    close = nearest(name)
    hint = f" (did you mean {close!r}?)" if close else ""
    return f"sim: unknown {what} {name!r}{hint}; known: {', '.join(known)}"


def _combination(
    config: ServingConfig, device: hardware.Hardware, shape: shapes.Shape, scheme: quantization.Scheme
) -> list[str]:
    found = []
    if scheme.min_capability > (device.capability or 999):
        found.append(
            f"{config.quantization} needs compute capability {scheme.min_capability / 10:.1f}; "
            f"{device.name} has {(device.capability or 0) / 10:.1f}"
        )
    if config.dtype == "bfloat16" and device.rate_per_s("bf16") is None:
        found.append(f"{device.name} has no bfloat16; dtype float16")
    tp = config.tensor_parallel_size
    if shape.heads % tp:
        found.append(f"tensor_parallel_size {tp} does not divide the {shape.heads} attention heads")
    if tp > 1 and device.device == "cpu":
        found.append("tensor_parallel_size above 1 is not simulated on a CPU")
    resolved = of_config(config, device, shape)
    if resolved.max_num_batched_tokens < resolved.max_num_seqs:
        found.append(
            f"max_num_batched_tokens ({resolved.max_num_batched_tokens}) is below max_num_seqs "
            f"({resolved.max_num_seqs}): a step must hold one token of every sequence"
        )
    if not resolved.enable_chunked_prefill and resolved.max_num_batched_tokens < resolved.max_model_len:
        found.append(
            f"max_num_batched_tokens ({resolved.max_num_batched_tokens}) is below max_model_len "
            f"({resolved.max_model_len}) while chunked prefill is off: long prompts would never run"
        )
    if resolved.max_model_len > shape.context:
        found.append(f"max_model_len {resolved.max_model_len} is above the model's {shape.context}")
    return found
