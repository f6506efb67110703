"""Shapes of models: layers and widths, from which bytes and operations follow. By name or from config.json.

Dense decoder-only transformers with grouped-query attention and a gated MLP. Anything else (experts, latent
attention, state spaces) is `None` with a reason: its bytes would be a guess.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serving.costmodel import quantization as schemes

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
KV_BYTES = {"fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Shape:
    """One architecture. `context`: longest sequence it was made for, tokens. `dtype`: of its checkpoint.

    `disk_bytes`: size of the checkpoint's safetensors, where a folder was read; `disk_quantization`: the
    method its config.json declares.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    context: int
    tied: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    dtype: str = "bfloat16"
    disk_bytes: int | None = None
    disk_quantization: str | None = None

    @property
    def linear_weights(self) -> int:
        """Weights of the layers' matrix products: what quantization touches."""
        width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.hidden * (width + 2 * kv_width) + width * self.hidden
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head_weights(self) -> int:
        """Weights of the output head (shared with the embeddings when tied)."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All weights, counted once: linear layers, embeddings, head, norms, biases."""
        norms = self.layers * 2 * self.hidden + self.hidden
        biases = self.layers * (self.heads + 2 * self.kv_heads) * self.head_dim if self.qkv_bias else 0
        qk = self.layers * 2 * self.head_dim if self.qk_norm else 0
        return self.linear_weights + self.head_weights * (1 if self.tied else 2) + norms + biases + qk

    def weight_bytes(self, quantization: str = "none", dtype: str = "auto") -> int:
        """Bytes of the weights in device memory. KeyError for a method whose physics is not known.

        A checkpoint that is itself quantized (its config.json says so) takes what it takes on disk.
        """
        each = self.dtype_bytes(dtype)
        scheme = schemes.find(quantization)
        if scheme is None:
            raise KeyError(quantization)
        if scheme.weight_bits is None:
            whole = self.parameters * each
            return min(whole, self.disk_bytes) if self.disk_quantization and self.disk_bytes else whole
        rest = (self.parameters - self.linear_weights) * each
        return rest + round(self.linear_weights * scheme.weight_bits / 8)

    def kv_bytes_per_token(self, kv_cache_dtype: str = "auto", dtype: str = "auto") -> int:
        """Bytes of keys and values of one token, all layers."""
        each = KV_BYTES.get(kv_cache_dtype, self.dtype_bytes(dtype))
        return 2 * self.layers * self.kv_heads * self.head_dim * each

    def dtype_bytes(self, dtype: str = "auto") -> int:
        """Bytes of one unquantized weight."""
        return DTYPE_BYTES[self.dtype if dtype == "auto" else dtype]

    @property
    def attention_flops_per_pair(self) -> int:
        """Operations for one token attending to one other: scores and weighted sum."""
        return 4 * self.layers * self.heads * self.head_dim


def _llama(name: str, layers: int, hidden: int, heads: int, kv: int, mlp: int, vocab: int, context: int,
           *, head_dim: int | None = None, tied: bool = False, bias: bool = False,
           norm: bool = False) -> Shape:  # fmt: skip
    return Shape(name, layers, hidden, heads, kv, head_dim or hidden // heads, mlp, vocab, context,
                 tied=tied, qkv_bias=bias, qk_norm=norm)  # fmt: skip


SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        _llama("smollm2-135m", 30, 576, 9, 3, 1536, 49152, 8192, tied=True),
        _llama("smollm2-1.7b", 24, 2048, 32, 32, 8192, 49152, 8192, tied=True),
        _llama("llama-3.2-1b", 16, 2048, 32, 8, 8192, 128256, 131072, tied=True),
        _llama("llama-3.2-3b", 28, 3072, 24, 8, 8192, 128256, 131072, tied=True),
        _llama("llama-3.1-8b", 32, 4096, 32, 8, 14336, 128256, 131072),
        _llama("llama-3.1-70b", 80, 8192, 64, 8, 28672, 128256, 131072),
        _llama("qwen2.5-0.5b", 24, 896, 14, 2, 4864, 151936, 32768, tied=True, bias=True),
        _llama("qwen2.5-1.5b", 28, 1536, 12, 2, 8960, 151936, 32768, tied=True, bias=True),
        _llama("qwen2.5-7b", 28, 3584, 28, 4, 18944, 152064, 32768, bias=True),
        _llama("qwen2.5-14b", 48, 5120, 40, 8, 13824, 152064, 32768, bias=True),
        _llama("qwen2.5-32b", 64, 5120, 40, 8, 27648, 152064, 32768, bias=True),
        _llama("qwen3-8b", 36, 4096, 32, 8, 12288, 151936, 40960, head_dim=128, norm=True),
        _llama("mistral-7b-v0.3", 32, 4096, 32, 8, 14336, 32768, 32768),
    )
}

KNOWN = ("llama", "mistral", "qwen2", "qwen3")
"""`model_type` of a config.json whose layers are those of Shape."""
NEEDED = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
OPTIONAL = ("num_key_value_heads", "head_dim", "max_position_embeddings")


def find(name: str | None) -> Shape | None:
    """A shape by name, or from the folder of a model; None when neither is known."""
    if not name:
        return None
    return SHAPES.get(name.lower()) or of_folder(Path(name))[0]


def nearest(name: str) -> str | None:
    """The known name that `name` was probably meant to be."""
    close = difflib.get_close_matches(name.lower(), SHAPES, n=1)
    return close[0] if close else None


def of_folder(folder: Path) -> tuple[Shape | None, str]:
    """Shape of a model's folder from its config.json and safetensors; None with the reason."""
    try:
        read = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        return None, f"no readable config.json in {folder} ({type(error).__name__})"
    if not isinstance(read, dict):
        return None, f"{folder}/config.json is not an object"
    shape, reason = of_config(folder.name, read)
    if shape is None:
        return None, f"{folder}/config.json: {reason}"
    return _with_disk(shape, folder, read), ""


def of_config(name: str, config: Mapping[str, Any]) -> tuple[Shape | None, str]:
    """Shape from the content of a config.json; None with the reason."""
    kind = config.get("model_type")
    if kind not in KNOWN:
        return None, f"model_type {kind!r} has another structure; known: {', '.join(KNOWN)}"
    wrong = [key for key in NEEDED if not _positive(config.get(key))]
    wrong += [key for key in OPTIONAL if config.get(key) is not None and not _positive(config[key])]
    if wrong:
        return None, f"no positive number for {', '.join(wrong)}"
    heads = int(config["num_attention_heads"])
    if not config.get("head_dim") and heads > int(config["hidden_size"]):
        return None, f"hidden_size {config['hidden_size']} is below num_attention_heads {heads}"
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    return Shape(
        name=name,
        layers=int(config["num_hidden_layers"]),
        hidden=int(config["hidden_size"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or int(config["hidden_size"]) // heads),
        intermediate=int(config["intermediate_size"]),
        vocab=int(config["vocab_size"]),
        context=int(config.get("max_position_embeddings") or 2048),
        tied=bool(config.get("tie_word_embeddings", False)),
        dtype=dtype if dtype in DTYPE_BYTES else "bfloat16",
        qkv_bias=kind == "qwen2",
        qk_norm=kind == "qwen3",
    ), ""


def _positive(value: object) -> bool:
    return type(value) is int and value >= 1


def _with_disk(shape: Shape, folder: Path, config: Mapping[str, Any]) -> Shape:
    sizes = [file.stat().st_size for file in folder.glob("*.safetensors")]
    quantization = config.get("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    return replace(shape, disk_bytes=sum(sizes) or None, disk_quantization=str(method) if method else None)
