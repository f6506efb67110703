"""ServingConfig: every setting of an engine under one neutral name, with its type, unit and check.

The engine files map these names to flags (`serving/engines/`); a name not listed here is an error,
and so is one that the chosen engine does not honour. `None` means "the engine's own default".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from serving import masking

Device = Literal["cpu", "cuda"]
Scalar = str | int | float | bool | None
PositiveInt = Annotated[int, Field(ge=1)]


MAY_HOLD_SECRETS = ("url", "extra_args", "env", "sim")


class ServingConfig(BaseModel):
    """What is launched. Two configs with the same `key` are the same server.

    Fields hold secrets as they are, for the engine; every dump, the key and the label hold them masked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    engine: Annotated[str, Field(description="row of ENGINES: vllm, transformers, endpoint, sim")]
    engine_version: Annotated[str | None, Field(description="which .engines/<name>-<version>")] = None
    device: Device = "cpu"

    model: Annotated[str, Field(description="folder or hub id of the weights")]
    revision: Annotated[str | None, Field(description="hub commit; folders have none")] = None
    checkpoint: Annotated[
        str | None, Field(description="folder of an already quantized checkpoint, served in place of model")
    ] = None
    tokenizer: Annotated[str | None, Field(description="folder or hub id, when not the model's own")] = None

    quantization: Annotated[str, Field(description="a method of serving.costmodel.support, or none")] = "none"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2", "bfloat16"] = "auto"
    kv_cache_bytes: Annotated[PositiveInt | None, Field(description="KV-cache memory, bytes (CPU)")] = None
    max_model_len: Annotated[PositiveInt | None, Field(description="tokens, prompt plus output")] = None
    max_num_seqs: Annotated[PositiveInt | None, Field(description="sequences in one batch")] = None
    max_num_batched_tokens: Annotated[PositiveInt | None, Field(description="tokens in one step")] = None
    gpu_memory_utilization: Annotated[
        float | None, Field(gt=0, le=1, description="share of device memory")
    ] = None
    enable_prefix_caching: bool | None = None
    enable_chunked_prefill: bool | None = None
    enforce_eager: Annotated[bool | None, Field(description="true: no compilation, no graphs")] = None
    tensor_parallel_size: PositiveInt = 1
    attention_backend: str | None = None
    continuous_batching: Annotated[bool | None, Field(description="transformers serve")] = None

    attempt: Annotated[
        bool,
        Field(
            description="launch even what serving.costmodel.support says fails: the failure is what is wanted"
        ),
    ] = False

    url: Annotated[str | None, Field(description="endpoint: base URL of a running server")] = None
    gpus: Annotated[
        PositiveInt | None,
        Field(description="endpoint: GPUs of that server, which cannot be counted"),
    ] = None
    api_key_env: Annotated[
        str | None, Field(description="name of the environment variable that holds the key; never the key")
    ] = None
    sim: Annotated[dict[str, Scalar], Field(description="sim: gpu, shape, seed, time_scale, faults")] = {}
    extra_args: Annotated[
        dict[str, Scalar], Field(description="further engine flags by their own long name, without --")
    ] = {}
    env: Annotated[dict[str, str], Field(description="further environment variables of the engine")] = {}

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """As pydantic's, secrets masked."""
        found = super().model_dump(**options)
        return {n: masking.shown(n, v) if n in MAY_HOLD_SECRETS else v for n, v in found.items()}

    def model_dump_json(self, **options: Any) -> str:
        """As pydantic's, secrets masked."""
        return json.dumps(self.model_dump(mode="json", **options))

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return list(self.settings.items())

    def shown(self, name: str) -> Any:
        """One setting as it may be shown."""
        value = getattr(self, name)
        return masking.shown(name, value) if name in MAY_HOLD_SECRETS else value

    @property
    def masked(self) -> list[str]:
        """Settings whose secrets are not there, as in the copy of a scenario that a run keeps."""
        found = []
        for name in MAY_HOLD_SECRETS:
            value = getattr(self, name)
            inner = value if isinstance(value, Mapping) else {"": value}
            found += [f"{name} {key}".strip() for key, one in inner.items() if masking.is_masked(one)]
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for: every field that departs from its default, neutral names, secrets masked."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @cached_property
    def key(self) -> str:
        """Content key, 12 hex digits: equal settings, equal key, on any machine."""
        text = json.dumps(self.settings, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, without the key of the original, which it would copy along."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("key", None)
        return copied

    @property
    def label(self) -> str:
        """Short name for a table: engine, quantization and whatever else departs from default."""
        hidden = {
            "engine",
            "model",
            "revision",
            "device",
            "quantization",
            "checkpoint",
            "tokenizer",
            "url",
            "attempt",
        }
        rest = [f"{k}={_short(v)}" for k, v in self.settings.items() if k not in hidden]
        return " ".join([self.engine, self.quantization, *rest])


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return ",".join(f"{k}:{v}" for k, v in value.items())
    return str(value)
