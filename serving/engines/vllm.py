"""vLLM: `vllm serve` from its own environment, on CPU or CUDA."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from serving import wire
from serving.config import ServingConfig
from serving.costmodel import support
from serving.engine import Command
from serving.engines import installed
from serving.install import environments
from serving.launch import ready

TIMEOUT_S = 30.0
RESET_TRIES = 10
RESET_PAUSE_S = 0.2

VALUE_FLAGS = {
    "dtype": "--dtype",
    "kv_cache_dtype": "--kv-cache-dtype",
    "max_model_len": "--max-model-len",
    "max_num_seqs": "--max-num-seqs",
    "max_num_batched_tokens": "--max-num-batched-tokens",
    "gpu_memory_utilization": "--gpu-memory-utilization",
    "kv_cache_bytes": "--kv-cache-memory-bytes",
    "tensor_parallel_size": "--tensor-parallel-size",
    "attention_backend": "--attention-backend",
    "revision": "--revision",
    "tokenizer": "--tokenizer",
}
SWITCHES = {
    "enable_prefix_caching": ("--enable-prefix-caching", "--no-enable-prefix-caching"),
    "enable_chunked_prefill": ("--enable-chunked-prefill", "--no-enable-chunked-prefill"),
    "enforce_eager": ("--enforce-eager", "--no-enforce-eager"),
}
ONLINE = {"fp8": "fp8", "int8": "int8_per_channel_weight_only", "bitsandbytes": "bitsandbytes"}
"""Neutral method -> the value of --quantization. Checkpoints name their method themselves."""

OWNED = frozenset({"host", "port", "model", "served-model-name", "api-key", "trust-remote-code", "config"})
"""Flags that extra_args may not set: servetune sets them, or they would change what is measured unseen."""


class Vllm:
    """Engine protocol (`serving.engine`) over `vllm serve`; docs/engines.md says what was found out."""

    name = "vllm"
    simulated = False
    honours = frozenset(VALUE_FLAGS) | frozenset(SWITCHES) | {"quantization", "extra_args", "env", "attempt"}

    def problems(self, config: ServingConfig) -> list[str]:
        """Not installed, weights missing, a method that does not work there, or a flag it does not have."""
        version = self.version(config)
        environment = environments.find("vllm", config.engine_version, config.device)
        found = installed.problems("vllm", config, environment, version)
        if environment is not None and environment.installed:
            known = environments.flags(environment)
            wanted = [part for part in _arguments(config) if part.startswith("--")]
            found += [f"vllm {version} has no flag {flag}" for flag in wanted if flag not in known]
        if config.kv_cache_bytes and config.gpu_memory_utilization:
            found.append("vllm: gpu_memory_utilization does nothing beside kv_cache_bytes")
        found += [f"extra_args may not set {name}" for name in config.extra_args if _plain(name) in OWNED]
        return found

    def version(self, config: ServingConfig) -> str:
        environment = environments.find("vllm", config.engine_version, config.device)
        return environment.version if environment else config.engine_version or "unknown"

    def command(self, config: ServingConfig, port: int) -> Command:
        program = installed.program("vllm", config, "vllm")
        argv = (program, "serve", installed.weights(config), "--host", "127.0.0.1", "--port", str(port))
        env = {
            "VLLM_SERVER_DEV_MODE": "1",  # opens /reset_prefix_cache; the server listens on loopback only
            "VLLM_DO_NOT_TRACK": "1",
            **environments.NO_TELEMETRY,
        }
        if Path(config.checkpoint or config.model).is_dir():
            env["HF_HUB_OFFLINE"] = "1"
        named = ("--served-model-name", self.served_model(config))
        return Command((*argv, *named, *_arguments(config)), env)

    def served_model(self, config: ServingConfig) -> str:
        return installed.short_name(config.model)

    def effective(self, url: str, config: ServingConfig, log: str) -> dict[str, object]:
        """From /version, /v1/models, the cache_config_info metric, and the engine's own lines in its log."""
        with ready.client(url, config, TIMEOUT_S) as http:
            version = wire.said(http, "/version")
            models = wire.models(wire.said(http, "/v1/models"))
            cache = _cache_config(wire.get_ok(http, "/metrics").decode(errors="replace"))
        if not isinstance(version, dict) or not isinstance(version.get("version"), str):
            raise wire.WireError("/version does not tell a version")
        length = models[0].get("max_model_len") if models else None
        found = _from_log(log)
        found |= {
            "version": wire.line(version["version"], 100),
            "max_model_len": wire.count(length, "max_model_len of /v1/models"),
        }
        found |= {name: cache[label] for name, label in CACHE_LABELS.items() if label in cache}
        if "quantization" in found:
            found["quantization"] = _neutral(str(found["quantization"]), config)
        return found

    def without_effect(
        self, config: ServingConfig, effective: Mapping[str, object], log: str
    ) -> dict[str, str]:
        """An online quantization that found no layer to quantize."""
        line = re.search(r"Quantizing 0 layers[^\n]*", log)
        if config.quantization in support.ONLINE and line:
            return {"quantization": f"the log says: {line[0].strip()}"}
        return {}

    def reset_prefix_cache(self, url: str) -> bool:
        """POST /reset_prefix_cache; again for a while when it says that blocks are still held."""
        for _ in range(RESET_TRIES):
            try:
                answer = httpx.post(f"{url}/reset_prefix_cache", timeout=TIMEOUT_S, trust_env=False)
            except httpx.HTTPError:
                return False
            if answer.status_code != 200:
                return False
            if _emptied(answer.content):
                return True
            time.sleep(RESET_PAUSE_S)
        return False


CACHE_LABELS = {
    "enable_prefix_caching": "enable_prefix_caching",
    "gpu_memory_utilization": "gpu_memory_utilization",
    "kv_cache_dtype": "cache_dtype",
    "kv_cache_bytes": "kv_cache_memory_bytes",
    "kv_cache_tokens": "kv_cache_size_tokens",
    "num_gpu_blocks": "num_gpu_blocks",
    "block_size": "block_size",
}
"""Neutral name -> label of vllm:cache_config_info."""

LOGGED = {
    "dtype": r"\bdtype=torch\.(\w+)",
    "quantization": r"\bquantization=([\w.-]+)",
    "tensor_parallel_size": r"\btensor_parallel_size=(\d+)",
    "enforce_eager": r"\benforce_eager=(True|False)",
    "enable_chunked_prefill": r"\b(?:enable_chunked_prefill|chunked_prefill_enabled)=(True|False)",
    "seed": r"\bseed=(\d+)",
    "load_format": r"\bload_format=(\w+)",
}
ARGUMENTS = {
    "max_num_seqs": r"'max_num_seqs': (\d+)",
    "max_num_batched_tokens": r"'max_num_batched_tokens': (\d+)",
}


def _arguments(config: ServingConfig) -> list[str]:
    """Flags of every setting that departs from its default, then extra_args."""
    asked = config.settings
    found: list[str] = []
    for name, flag in VALUE_FLAGS.items():
        if name in asked and asked[name] != "auto":
            found += [flag, installed.place(str(asked[name])) if name == "tokenizer" else str(asked[name])]
    for name, (on, off) in SWITCHES.items():
        if asked.get(name) is not None:
            found.append(on if asked[name] else off)
    if config.quantization in ONLINE:
        found += ["--quantization", ONLINE[config.quantization]]
    return found + installed.extra_flags(config)


def _from_log(log: str) -> dict[str, object]:
    """What the engine core wrote when it started, and the arguments that the server parsed."""
    core = re.search(r"Initializing a V\d LLM engine \([^)]*\) with config: ([^\n]*)", log)
    asked = re.search(r"non-default args: (\{[^\n]*)", log)
    found: dict[str, object] = {}
    for text, patterns in ((core, LOGGED), (asked, ARGUMENTS)):
        for name, pattern in patterns.items():
            value = re.search(pattern, text[1]) if text else None
            if value:
                found[name] = value[1] if name == "quantization" else _value(value[1])
    backend = re.search(r"Using (\w+) (?:attention )?backend|Using AttentionBackendEnum\.(\w+)", log)
    if backend:
        found["attention_backend"] = backend[1] or backend[2]
    return found


def _cache_config(metrics: str) -> dict[str, object]:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        for family in text_string_to_metric_families(metrics):
            if family.name == "vllm:cache_config_info" and family.samples:
                labels = family.samples[0].labels
                return {k: v for k, text in labels.items() if (v := _value(text)) is not None}
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise wire.WireError(f"/metrics is not in the Prometheus text format: {error}") from error
    return {}


def _emptied(body: bytes) -> bool:
    """Whether /reset_prefix_cache says that it did; versions before 0.32 say nothing, and have."""
    if not body:
        return True
    try:
        said = wire.loads(body)
    except wire.WireError:
        return False
    return isinstance(said, dict) and bool(said.get("success", True))


def _neutral(reported: str, config: ServingConfig) -> str:
    """The engine's name of a method as the neutral one: the one asked for when it is that, else its own."""
    if reported == "None":
        return "none"
    if config.quantization in ONLINE and reported in (ONLINE[config.quantization], "online"):
        return config.quantization
    if config.quantization in support.CHECKPOINTS and reported in CHECKPOINT_FORMATS[config.quantization]:
        return config.quantization
    return reported


CHECKPOINT_FORMATS = {
    **dict.fromkeys(("w8a8", "w4a16", "w8a16", "fp8-checkpoint"), ("compressed-tensors", "fp8")),
    "awq": ("awq", "awq_marlin", "auto_awq", "compressed-tensors"),
    "gptq": ("gptq", "gptq_marlin", "auto_gptq", "compressed-tensors"),
}


def _value(text: str) -> object:
    """A printed value as a scalar; None for the text None."""
    fixed: dict[str, object] = {"True": True, "False": False, "None": None}
    if text in fixed:
        return fixed[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _plain(name: str) -> str:
    return name.lstrip("-").replace("_", "-").removeprefix("no-")
