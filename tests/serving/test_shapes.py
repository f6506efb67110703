"""Shapes: bytes by hand and by independent count, folders read with suspicion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.costmodel import quantization, shapes
from serving.costmodel.shapes import SHAPES

COUNTED = {
    "llama-3.1-8b": 8030261248,
    "llama-3.1-70b": 70553706496,
    "llama-3.2-1b": 1235814400,
    "llama-3.2-3b": 3212749824,
    "smollm2-135m": 134515008,
    "smollm2-1.7b": 1711376384,
    "qwen2.5-0.5b": 494032768,
    "qwen2.5-1.5b": 1543714304,
    "qwen2.5-7b": 7615616512,
    "qwen2.5-14b": 14770033664,
    "qwen2.5-32b": 32763876352,
    "mistral-7b-v0.3": 7248023552,
    "qwen3-8b": 8190735360,
}
"""Parameters as transformers 5.23.0 counts them on torch's meta device, model by model."""


def test_every_shape_was_counted() -> None:
    assert {name: shape.parameters for name, shape in SHAPES.items()} == COUNTED


def test_llama_8b_by_hand() -> None:
    llama = SHAPES["llama-3.1-8b"]
    assert llama.weight_bytes() == 16_060_522_496
    assert llama.kv_bytes_per_token() == 2 * 32 * 8 * 128 * 2 == 131_072
    assert llama.kv_bytes_per_token("fp8") == 65_536
    assert llama.weight_bytes(dtype="float32") == 2 * llama.weight_bytes()


def test_smollm_kv_gives_the_tokens_that_vllm_printed() -> None:
    """vLLM 0.32.0 on CPU: 46,592 tokens a GiB in bf16, 93,184 with fp8, in blocks of 128."""
    small = SHAPES["smollm2-135m"]
    assert 2**30 // (small.kv_bytes_per_token() * 128) * 128 == 46_592
    assert 2**30 // (small.kv_bytes_per_token("fp8_e4m3") * 128) * 128 == 93_184


@pytest.mark.parametrize("shape", SHAPES.values(), ids=lambda s: s.name)
def test_fewer_bits_are_fewer_bytes(shape: shapes.Shape) -> None:
    by_bits = sorted(quantization.SCHEMES.items(), key=lambda item: item[1].weight_bits or 16)
    sizes = [shape.weight_bytes(name) for name, _ in by_bits]
    assert sizes == sorted(sizes)
    assert shape.weight_bytes("w4a16") > shape.linear_weights / 2


def test_an_unknown_method_has_no_bytes() -> None:
    with pytest.raises(KeyError):
        SHAPES["llama-3.1-8b"].weight_bytes("magic-2bit")


CONFIG = {
    "model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9,
    "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152,
    "max_position_embeddings": 8192, "tie_word_embeddings": True, "dtype": "bfloat16",
}  # fmt: skip


def folder(tmp_path: Path, **changes: object) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    return tmp_path


def test_a_folder_gives_the_same_shape_as_its_name(tmp_path: Path) -> None:
    (tmp_path / "model-00001-of-00001.safetensors").write_bytes(b"x" * 1000)
    shape, reason = shapes.of_folder(folder(tmp_path))
    assert reason == ""
    assert shape is not None
    assert shape.parameters == COUNTED["smollm2-135m"]
    assert shape.disk_bytes == 1000
    assert shapes.find(str(tmp_path)) == shape


def test_a_quantized_folder_says_so(tmp_path: Path) -> None:
    shape, _ = shapes.of_folder(folder(tmp_path, quantization_config={"quant_method": "compressed-tensors"}))
    assert shape is not None
    assert shape.disk_quantization == "compressed-tensors"
    assert shape.weight_bytes() == 2 * COUNTED["smollm2-135m"]
    (tmp_path / "model.safetensors").write_bytes(b"x" * 5000)
    quantized, _ = shapes.of_folder(tmp_path)
    assert quantized is not None
    assert quantized.weight_bytes() == 5000


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "mixtral"}, "mixtral"),
        ({"model_type": None}, "another structure"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_hidden_layers": -3}, "num_hidden_layers"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"intermediate_size": True}, "intermediate_size"),
        ({"max_position_embeddings": "8k"}, "max_position_embeddings"),
        ({"hidden_size": 8}, "below num_attention_heads"),
    ],
)
def test_what_is_not_known_is_not_guessed(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    shape, reason = shapes.of_folder(folder(tmp_path, **changes))
    assert shape is None
    assert says in reason


@pytest.mark.parametrize("content", ["", "[1]", "{", "null"])
def test_a_broken_config_is_a_reason(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    shape, reason = shapes.of_folder(tmp_path)
    assert shape is None
    assert str(tmp_path) in reason


def test_no_folder_is_a_reason(tmp_path: Path) -> None:
    assert shapes.find(str(tmp_path / "none")) is None
    assert shapes.find(None) is None
    assert shapes.nearest("llama-3.1-9b") == "llama-3.1-8b"


@given(
    st.dictionaries(st.sampled_from(sorted(CONFIG)), st.one_of(st.none(), st.integers(), st.text(max_size=5)))
)
def test_any_config_is_a_shape_or_a_reason(changes: dict[str, object]) -> None:
    shape, reason = shapes.of_config("any", {**CONFIG, **changes})
    assert (shape is None) == bool(reason)
