"""Resolved: a config with every default filled in for one device and model, as vLLM fills them.

Light on purpose (no pydantic): the simulated server starts from it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from serving import devices
from serving.costmodel.hardware import GIB, Hardware
from serving.costmodel.shapes import Shape

if TYPE_CHECKING:
    from serving.config import ServingConfig

DEFAULT_UTILIZATION = 0.92
"""vLLM 0.20.2 to 0.32 (`config/cache.py`)."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the engine would run with. Names are those of ServingConfig; only `kv_cache_bytes` may be None."""

    quantization: str = "none"
    dtype: str = "bfloat16"
    kv_cache_dtype: str = "auto"
    kv_cache_bytes: int | None = None
    max_model_len: int = 2048
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    gpu_memory_utilization: float = DEFAULT_UTILIZATION
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    enforce_eager: bool = False
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1


NAMES = frozenset(field.name for field in fields(Resolved)) - {"pipeline_parallel_size"}
"""Those that are settings of ServingConfig; the pipeline's size is a flag in extra_args."""


def resolve(asked: Mapping[str, Any], hardware: Hardware, shape: Shape) -> Resolved:
    """Fills in what `asked` (neutral names) leaves out or leaves to the engine (None, dtype auto)."""
    known = NAMES | {"pipeline_parallel_size"}
    given = {key: value for key, value in asked.items() if key in known and value is not None}
    length = given.setdefault("max_model_len", shape.context)
    seqs, tokens = _batch_defaults(hardware, given.get("tensor_parallel_size", 1))
    given["dtype"] = _dtype(given.get("dtype", "auto"), hardware, shape)
    if "max_num_seqs" not in given:
        given["max_num_seqs"] = min(seqs, given.get("max_num_batched_tokens", seqs))
    if "max_num_batched_tokens" not in given:
        if not given.get("enable_chunked_prefill", True):
            tokens = max(tokens, length)
        given["max_num_batched_tokens"] = max(
            min(tokens, given["max_num_seqs"] * length), given["max_num_seqs"]
        )
    return Resolved(**given)


def of_config(config: ServingConfig, hardware: Hardware, shape: Shape) -> Resolved:
    """The same for a ServingConfig."""
    return resolve(asked_by(config), hardware, shape)


def asked_by(config: ServingConfig) -> dict[str, Any]:
    """What a config asks for by these names, the sizes of its parallelism wherever they stand."""
    asked = {name: getattr(config, name) for name in sorted(NAMES)}
    sizes = devices.of_config(config) or devices.Parallel(config.tensor_parallel_size)
    return {**asked, "tensor_parallel_size": sizes.tensor, "pipeline_parallel_size": sizes.pipeline}


def _batch_defaults(hardware: Hardware, tensor_parallel_size: int) -> tuple[int, int]:
    """max_num_seqs and max_num_batched_tokens of `vllm serve` (0.32, `engine/arg_utils.py`)."""
    if hardware.device == "cpu":
        return 128 * tensor_parallel_size, 2048 * tensor_parallel_size
    if hardware.memory_bytes >= 160 * GIB:
        return 1024, 16384
    if hardware.memory_bytes >= 70 * GIB and hardware.name != "a100-80g":
        return 1024, 8192
    return 256, 2048


def _dtype(asked: str, hardware: Hardware, shape: Shape) -> str:
    """`auto` is the checkpoint's, float32 served as 16 bits; a GPU without bf16 falls back to float16."""
    if asked != "auto":
        return asked
    dtype = "bfloat16" if shape.dtype == "float32" else shape.dtype
    return "float16" if dtype == "bfloat16" and hardware.rate_per_s("bf16") is None else dtype
