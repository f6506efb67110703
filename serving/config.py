"""ServingConfig: every setting of an engine under one neutral name, with its type, unit and check.

The engine files map these names to flags (`serving/engines/`); a name not listed here is an error,
and so is one that the chosen engine does not honour. `None` means "the engine's own default". What a field
is to the rest of the program is its `Role`, declared with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from serving import masking
from serving.roles import Role, roles_of, scalar_type

Device = Literal["cpu", "cuda"]
Scalar = str | int | float | bool | None
PositiveInt = Annotated[int, Field(ge=1)]


class ServingConfig(BaseModel):
    """What is launched. Two configs with the same `key` are the same server.

    Fields hold secrets as they are, for the engine; every dump, the key and the label hold them masked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    engine: Annotated[
        str,
        Role(kind="engine", own_place=True, label="value", tables="head"),
        Field(description="row of ENGINES: vllm, transformers, endpoint, sim"),
    ]
    engine_version: Annotated[
        str | None,
        Role(kind="engine", own_place=True, tables="head"),
        Field(description="which .engines/<name>-<version>"),
    ] = None
    device: Annotated[Device, Role(kind="engine", own_place=True, label="none", tables="head")] = "cpu"

    model: Annotated[
        str,
        Role(kind="model", own_place=True, output="differs", label="none", tables="head"),
        Field(description="folder or hub id of the weights"),
    ]
    revision: Annotated[
        str | None,
        Role(kind="model", own_place=True, output="differs", label="none", tables="head"),
        Field(description="hub commit; folders have none"),
    ] = None
    checkpoint: Annotated[
        str | None,
        Role(kind="model", own_place=True, output="differs", label="none", tables="never"),
        Field(description="folder of an already quantized checkpoint, served in place of model"),
    ] = None
    tokenizer: Annotated[
        str | None,
        Role(kind="model", output="differs", label="none", tables="head"),
        Field(description="folder or hub id, when not the model's own"),
    ] = None

    quantization: Annotated[
        str,
        Role(
            kind="setting",
            output="differs",
            cost_model=True,
            step_time=True,
            eight_bit=("fp8", "w8a8", "int8", "fp8_per_tensor", "fp8_per_channel", "w8a16"),
            label="value",
            tables="head",
        ),
        Field(description="a method of serving.costmodel.support, or none"),
    ] = "none"
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        Role(kind="setting", output="differs", cost_model=True, step_time=True),
    ] = "auto"
    kv_cache_dtype: Annotated[
        Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2", "bfloat16"],
        Role(
            kind="setting",
            output="differs",
            cost_model=True,
            step_time=True,
            eight_bit=("fp8", "fp8_e4m3"),
        ),
    ] = "auto"
    kv_cache_bytes: Annotated[
        PositiveInt | None,
        Role(kind="setting", output="same", cost_model=True),
        Field(description="KV-cache memory, bytes (CPU)"),
    ] = None
    max_model_len: Annotated[
        PositiveInt | None,
        Role(kind="setting", api=True, cost_model=True, step_time=True),
        Field(description="tokens, prompt plus output"),
    ] = None
    max_num_seqs: Annotated[
        PositiveInt | None,
        Role(kind="setting", output="same", cost_model=True),
        Field(description="sequences in one batch"),
    ] = None
    max_num_batched_tokens: Annotated[
        PositiveInt | None,
        Role(kind="setting", output="same", cost_model=True),
        Field(description="tokens in one step"),
    ] = None
    gpu_memory_utilization: Annotated[
        float | None,
        Role(kind="setting", output="same", cost_model=True),
        Field(gt=0, le=1, description="share of device memory"),
    ] = None
    enable_prefix_caching: Annotated[bool | None, Role(kind="setting", output="same", cost_model=True)] = None
    enable_chunked_prefill: Annotated[bool | None, Role(kind="setting", output="same", cost_model=True)] = (
        None
    )
    enforce_eager: Annotated[
        bool | None,
        Role(kind="setting", cost_model=True, step_time=True),
        Field(description="true: no compilation, no graphs"),
    ] = None
    tensor_parallel_size: Annotated[
        PositiveInt, Role(kind="setting", cost_model=True, step_time=True, parallel=True)
    ] = 1
    attention_backend: Annotated[str | None, Role(kind="setting")] = None
    continuous_batching: Annotated[
        bool | None, Role(kind="setting"), Field(description="transformers serve")
    ] = None

    attempt: Annotated[
        bool,
        Role(kind="intent", output="same", label="none", tables="never"),
        Field(
            description="launch even what serving.costmodel.support says fails: the failure is what is wanted"
        ),
    ] = False

    url: Annotated[
        str | None,
        Role(kind="server", masked="value", label="none"),
        Field(description="endpoint: base URL of a running server"),
    ] = None
    gpus: Annotated[
        PositiveInt | None,
        Role(kind="server", output="same"),
        Field(description="endpoint: GPUs of that server, which cannot be counted"),
    ] = None
    api_key_env: Annotated[
        str | None,
        Role(kind="server", output="same"),
        Field(description="name of the environment variable that holds the key; never the key"),
    ] = None
    sim: Annotated[
        dict[str, Scalar],
        Role(kind="table", masked="value"),
        Field(description="sim: gpu, shape, seed, time_scale, faults"),
    ] = {}
    extra_args: Annotated[
        dict[str, Scalar],
        Role(kind="table", masked="names"),
        Field(description="further engine flags by their own long name, without --"),
    ] = {}
    env: Annotated[
        dict[str, str],
        Role(kind="table", masked="names"),
        Field(description="further environment variables of the engine"),
    ] = {}

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
        """Settings whose secrets are not there, as in the copy of a scenario in a results folder."""
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
        rest = [f"{k}={_short(v)}" for k, v in self.settings.items() if ROLES[k].label == "named"]
        return " ".join([self.engine, self.quantization, *rest])


ROLES: dict[str, Role] = roles_of(ServingConfig.model_fields)
"""Field -> its role, in the order of the fields."""
TYPES = {name: scalar_type(field.annotation) for name, field in ServingConfig.model_fields.items()}
"""Field -> int, float, bool, str or dict; None: a choice of several texts."""


def fields_where(test: Callable[[Role], bool]) -> tuple[str, ...]:
    """The fields whose role passes, in their order."""
    return tuple(name for name, role in ROLES.items() if test(role))


SETTINGS = fields_where(lambda role: role.kind == "setting")
"""Settings of the engine: compared with the server's own account, and parameters of a spec."""
MAY_HOLD_SECRETS = fields_where(lambda role: role.masked != "none")
SECRETS_BY_NAME = fields_where(lambda role: role.masked == "names")


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return ",".join(f"{k}:{v}" for k, v in value.items())
    return str(value)
