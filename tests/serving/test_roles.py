"""Every field of ServingConfig says what it is to the rest of the program; the lists made of that are right."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from bench import summary
from bench.accuracy import cache
from bench.plan import estimate, planning
from bench.records.folder import RunFolder
from bench.scenario import scenariofile
from search import space
from search.searchers import first_guesses
from servetune.deploy import diff
from servetune.deploy.exporters import reading
from servetune.report import labels, plan_table
from serving import config
from serving.config import ROLES, ServingConfig
from serving.costmodel import defaults
from serving.engine import Engine
from serving.engines import ENGINES, engine
from serving.roles import Role, roles_of, scalar_type

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "cpu-smollm2-135m"


def test_every_field_has_one_role() -> None:
    assert list(ROLES) == list(ServingConfig.model_fields)


def test_a_field_without_a_role_is_named() -> None:
    class Without(BaseModel):
        good: Annotated[int, Role(kind="setting")] = 1
        bad: Annotated[int | None, Field(ge=1)] = None

    class Twice(BaseModel):
        bad: Annotated[int, Role(kind="setting"), Role(kind="model")] = 1

    for model in (Without, Twice):
        with pytest.raises(TypeError, match=r"field bad has [02] roles"):
            roles_of(model.model_fields)


SETTINGS = {
    "quantization", "dtype", "kv_cache_dtype", "kv_cache_bytes", "max_model_len", "max_num_seqs",
    "max_num_batched_tokens", "gpu_memory_utilization", "enable_prefix_caching", "enable_chunked_prefill",
    "enforce_eager", "tensor_parallel_size", "attention_backend", "continuous_batching",
}  # fmt: skip
WHAT = {"engine", "engine_version", "device", "model", "revision", "checkpoint", "tokenizer"}
QUALITY, CAPACITY = {"quantization", "dtype", "kv_cache_dtype"}, "capacity"

LISTS: dict[str, tuple[Any, Any]] = {
    "settings": (set(config.SETTINGS), SETTINGS),
    "may hold secrets": (set(config.MAY_HOLD_SECRETS), {"url", "extra_args", "env", "sim"}),
    "secrets by name": (set(config.SECRETS_BY_NAME), {"env", "extra_args"}),
    "not named in the label": (
        {name for name, role in ROLES.items() if role.label != "named"},
        WHAT - {"engine_version"} | {"quantization", "url", "attempt"},
    ),
    "every engine honours": (planning.COMMON, WHAT),
    "own place in a scenario": (set(scenariofile.ELSEWHERE), WHAT - {"tokenizer"}),
    "not flags of a spec": (reading.NOT_FLAGS, WHAT - {"tokenizer"} | {"attempt"}),
    "heads of the plan": (set(plan_table.WHO), WHAT - {"checkpoint"} | {"quantization"}),
    "in no table": (labels.HIDDEN, ("checkpoint", "attempt")),
    "shown bare": (labels.BARE, ("engine", "quantization")),
    "same output": (
        cache.WITHOUT_EFFECT,
        {
            "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization", "kv_cache_bytes",
            "enable_chunked_prefill", "enable_prefix_caching", "api_key_env", "gpus", "attempt",
        },
    ),
    "cost model": (defaults.NAMES, SETTINGS - {"attention_backend", "continuous_batching"}),
    "step time": (
        estimate._TIMED,
        (
            "quantization", "dtype", "kv_cache_dtype", "max_model_len", "enforce_eager", "tensor_parallel_size",
            "pipeline_parallel_size",
        ),
    ),
    "later columns": (
        summary._LATER,
        tuple(
            n
            for n in ServingConfig.model_fields
            if n not in ("engine", "device", "quantization", "engine_version")
        ),
    ),
    # `gpus` was missing among the whole numbers: two GPUs of a server elsewhere were 2.0.
    "numbers and switches that may be left out": (
        summary._KINDS,
        dict.fromkeys(
            ("kv_cache_bytes", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "gpus"), "Int64"
        )
        | dict.fromkeys(
            ("enable_prefix_caching", "enable_chunked_prefill", "enforce_eager", "continuous_batching"),
            "boolean",
        )
        | {"gpu_memory_utilization": "Float64"},
    ),
    "shares": (space.SHARES, ("gpu_memory_utilization",)),
    "eight bits": (
        first_guesses.EIGHT_BIT,
        {
            "quantization": ("fp8", "w8a8", "int8", "fp8_per_tensor", "fp8_per_channel", "w8a16"),
            "kv_cache_dtype": ("fp8", "fp8_e4m3"),
        },
    ),
    "devices": (first_guesses.DEVICES, "tensor_parallel_size"),
    "risks of a change": (
        {name: diff.risk(f"parameters.{name}") for name in SETTINGS},
        {name: "quality" if name in QUALITY else CAPACITY for name in SETTINGS} | {"max_model_len": "api"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_what_it_was_when_it_was_written_out(name: str) -> None:
    found, before = LISTS[name]
    assert found == before


def test_what_the_cost_model_reads_is_a_field_of_resolved() -> None:
    assert set(defaults.Resolved.__dataclass_fields__) == defaults.NAMES | {"pipeline_parallel_size"}


def test_every_setting_is_honoured_by_an_engine() -> None:
    engines: list[Engine] = [engine(name) for name in ENGINES]
    honoured = frozenset[str]().union(*(one.honours for one in engines))
    assert set(ROLES) - planning.COMMON <= honoured


def test_keys_of_a_stored_run_are_as_then() -> None:
    with (REFERENCE / "summary.csv").open(encoding="utf-8") as file:
        stored = {row["point"]: row["config"] for row in csv.DictReader(file)}
    found = {run.point.key: run.point.config.key for run in RunFolder(REFERENCE).runs()}
    assert found == stored
    assert found["cd0e70961920"] == "e7af5bf21d49"


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, int),
        (Annotated[int, Field(ge=1)] | None, int),
        (bool | None, bool),
        (dict[str, int], None),
        (int | float, None),
    ],
)
def test_type_beside_none(annotation: Any, expected: type | None) -> None:
    assert scalar_type(annotation) is expected
