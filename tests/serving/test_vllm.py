"""vLLM: settings to flags, the installed version's parser, and its own account of what it runs."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from serving.config import ServingConfig
from serving.engines import vllm
from serving.engines.vllm import Vllm
from serving.install import environments
from serving.install.environment import Environment
from serving.install.environments import FLAGS

LOGS = Path(__file__).parents[1] / "logs"
METRICS = """\
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="128",cache_dtype="fp8",enable_prefix_caching="False",engine="0",\
gpu_memory_utilization="0.92",kv_cache_memory_bytes="1073741824",kv_cache_size_tokens="93184",\
num_gpu_blocks="728",sliding_window="None"} 1.0
"""


def config(**settings: object) -> ServingConfig:
    return ServingConfig.model_validate({"engine": "vllm", "model": "org/name", **settings})


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment that claims to be whole and knows a few flags."""
    lock = tmp_path / "vllm-0.32.0-cpu.txt"
    lock.write_text("# nothing\n")
    environment = Environment("vllm", "0.32.0", "cpu", tmp_path / "vllm-0.32.0", lock)
    environment.folder.mkdir()
    (environment.folder / FLAGS).write_text(
        "\n".join([*vllm.VALUE_FLAGS.values(), *(f for pair in vllm.SWITCHES.values() for f in pair),
                   "--quantization", "--seed", "--async-scheduling"])
    )  # fmt: skip
    monkeypatch.setattr(Environment, "installed", True)
    monkeypatch.setattr(environments, "find", lambda name, version, device: environment)
    return environment


def arguments(**settings: object) -> list[str]:
    return vllm._arguments(config(**settings))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"dtype": "auto"}, []),
        ({"dtype": "float16"}, ["--dtype", "float16"]),
        ({"max_num_seqs": 8, "max_model_len": 512}, ["--max-model-len", "512", "--max-num-seqs", "8"]),
        ({"kv_cache_bytes": 2**30}, ["--kv-cache-memory-bytes", "1073741824"]),
        ({"enable_prefix_caching": True}, ["--enable-prefix-caching"]),
        ({"enable_prefix_caching": False}, ["--no-enable-prefix-caching"]),
        ({"enable_chunked_prefill": False}, ["--no-enable-chunked-prefill"]),
        ({"enforce_eager": True}, ["--enforce-eager"]),
        ({"quantization": "fp8"}, ["--quantization", "fp8"]),
        ({"quantization": "int8"}, ["--quantization", "int8_per_channel_weight_only"]),
        ({"quantization": "w8a8", "checkpoint": "org/name-w8a8"}, []),
        ({"kv_cache_dtype": "fp8", "tensor_parallel_size": 2},
         ["--kv-cache-dtype", "fp8", "--tensor-parallel-size", "2"]),
        ({"extra_args": {"seed": 3, "async_scheduling": False, "x": None}},
         ["--seed", "3", "--no-async-scheduling"]),
    ],
)  # fmt: skip
def test_settings_become_flags(settings: dict[str, object], expected: list[str]) -> None:
    assert arguments(**settings) == expected


def test_every_honoured_setting_reaches_the_command_line_or_environment() -> None:
    examples = {
        "dtype": "float16", "kv_cache_dtype": "fp8", "max_model_len": 9, "max_num_seqs": 9,
        "max_num_batched_tokens": 9, "gpu_memory_utilization": 0.5, "kv_cache_bytes": 9,
        "tensor_parallel_size": 2, "attention_backend": "FLASH_ATTN", "revision": "abc", "tokenizer": "org/t",
        "enable_prefix_caching": False, "enable_chunked_prefill": False, "enforce_eager": True,
        "quantization": "fp8", "extra_args": {"seed": 1},
    }  # fmt: skip
    assert set(examples) == Vllm.honours - {"env", "attempt"}
    for name, value in examples.items():
        assert arguments(**{name: value}), name


@pytest.mark.usefixtures("installed")
def test_flags_are_held_against_the_installed_parser() -> None:
    problems = Vllm().problems(config(extra_args={"no-such-flag": 1}))
    assert problems == ["vllm 0.32.0 has no flag --no-such-flag"]
    assert Vllm().problems(config(max_num_seqs=8, extra_args={"seed": 1})) == []


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quantization": "int8"}, "0 layers"),
        ({"quantization": "bitsandbytes"}, "0.28"),
        ({"quantization": "w8a8"}, "needs `checkpoint`"),
        ({"checkpoint": "org/x"}, "quantization is none"),
        ({"quantization": "bnb-4bit"}, "vllm has no bnb-4bit"),
        ({"model": "./no/such/folder"}, "no config.json"),
        ({"extra_args": {"port": 1}}, "may not set port"),
        ({"extra_args": {"no_trust_remote_code": True}}, "may not set"),
        ({"kv_cache_bytes": 1, "gpu_memory_utilization": 0.5}, "does nothing beside"),
    ],
)
def test_what_cannot_be_launched_is_said_beforehand(settings: dict[str, object], said: str) -> None:
    problems = Vllm().problems(config(**settings))
    assert any(said in text for text in problems), problems


@pytest.mark.usefixtures("installed")
def test_an_attempt_may_fail_on_purpose() -> None:
    assert Vllm().problems(config(quantization="int8", attempt=True)) == []


def test_cache_settings_come_from_the_metrics() -> None:
    found = vllm._cache_config(METRICS)
    assert found["cache_dtype"] == "fp8"
    assert found["enable_prefix_caching"] is False
    assert found["kv_cache_memory_bytes"] == 2**30
    assert found["gpu_memory_utilization"] == 0.92
    assert "sliding_window" not in found
    assert vllm._cache_config("") == {}


def test_settings_come_from_the_engines_own_log() -> None:
    found = vllm._from_log((LOGS / "vllm-0.32.0-cpu-kill9.log").read_text())
    assert found["dtype"] == "bfloat16"
    assert found["enforce_eager"] is True
    assert found["max_num_seqs"] == 8
    assert vllm._from_log("") == {}


@pytest.mark.parametrize(
    ("asked", "reported", "neutral"),
    [
        ({}, "None", "none"),
        ({"quantization": "int8"}, "int8_per_channel_weight_only", "int8"),
        ({"quantization": "w8a8", "checkpoint": "x"}, "compressed-tensors", "w8a8"),
        ({"quantization": "awq", "checkpoint": "x"}, "awq_marlin", "awq"),
        ({"quantization": "awq", "checkpoint": "x"}, "gptq", "gptq"),
        ({"quantization": "fp8"}, "None", "none"),
        ({}, "compressed-tensors", "compressed-tensors"),
    ],
)
def test_methods_are_compared_under_neutral_names(
    asked: dict[str, object], reported: str, neutral: str
) -> None:
    assert vllm._neutral(reported, config(**asked)) == neutral


@pytest.mark.parametrize(
    ("answers", "done"),
    [
        ([(200, b"")], True),
        ([(200, b'{"success": true}')], True),
        ([(200, b'{"success": false}'), (200, b'{"success": true}')], True),
        ([(200, b'{"success": false}')] * vllm.RESET_TRIES, False),
        ([(404, b"")], False),
    ],
)
def test_the_prefix_cache_is_reset_or_said_not_to_be(
    answers: list[tuple[int, bytes]], done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(answers)
    monkeypatch.setattr(vllm, "RESET_PAUSE_S", 0)

    def answer(url: str, **given: object) -> httpx.Response:
        status, content = next(left)
        return httpx.Response(status, content=content)

    monkeypatch.setattr(httpx, "post", answer)
    assert Vllm().reset_prefix_cache("http://127.0.0.1:1") is done


def test_a_server_that_is_gone_cannot_be_reset() -> None:
    assert Vllm().reset_prefix_cache("http://127.0.0.1:9") is False


def test_a_quantization_of_nothing_is_found_in_the_log() -> None:
    log = (LOGS / "vllm-0.32.0-cpu-int8.log").read_text()
    idle = Vllm().without_effect(config(quantization="int8"), {}, log)
    assert "Quantizing 0 layers" in idle["quantization"]
    assert Vllm().without_effect(config(), {}, log) == {}
    assert Vllm().without_effect(config(quantization="fp8"), {}, "Quantizing 210 layers of types: X") == {}
