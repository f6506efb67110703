"""SCHEMES: what a quantization does to bytes, arithmetic and output. What runs where is in
serving.costmodel.support.

Every figure that is not format arithmetic is an assumption, named here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to keep the linear layers (embeddings, norms and the output head stay as they are).

    weight_bits     per weight, scales and zero points included
    operands        format of the matrix product: 16 (the model's own), fp8, int8
    unpack          vector operations to unpack one weight once (0: consumed as it is)
    expand_bytes    device-memory traffic per weight when it is unpacked into memory first (bitsandbytes)
    slowdown        factor on matrix-product time (mixed-precision decomposition)
    min_capability  first NVIDIA generation that runs it, times ten
    native_capability  below it the operands fall back to 16 bits and weights are unpacked
    loss            share of greedy tokens that differ from the unquantized model: simulated quality
    """

    weight_bits: float | None
    operands: str = "16"
    unpack: float = 0.0
    expand_bytes: float = 0.0
    slowdown: float = 1.0
    min_capability: int = 0
    native_capability: int = 0
    loss: float = 0.0


SCHEMES: dict[str, Scheme] = {
    "none": Scheme(None),
    "fp8": Scheme(8.02, "fp8", min_capability=75, native_capability=89, loss=0.012),
    "int8": Scheme(8.02, "int8", min_capability=75, loss=0.015),
    "w8a8": Scheme(8.02, "int8", min_capability=75, loss=0.012),
    "w8a16": Scheme(8.13, unpack=1.0, min_capability=75, loss=0.006),
    "w4a16": Scheme(4.16, unpack=1.0, min_capability=75, loss=0.045),
    "awq": Scheme(4.16, unpack=1.0, min_capability=75, loss=0.035),
    "gptq": Scheme(4.16, unpack=1.0, min_capability=75, loss=0.040),
    "bitsandbytes": Scheme(4.5, expand_bytes=4.0, min_capability=70, loss=0.050),
    "bnb-4bit": Scheme(4.5, expand_bytes=4.0, min_capability=70, loss=0.050),
    "bnb-8bit": Scheme(8.02, "int8", slowdown=3.0, min_capability=75, loss=0.008),
}

SAME = {
    "int8_per_channel_weight_only": "w8a16",
    "fp8_per_tensor": "fp8",
    "fp8_per_channel": "fp8",
    "fp8_per_block": "fp8",
    "fp8-checkpoint": "fp8",
    "gptq_marlin": "gptq",
    "awq_marlin": "awq",
    "auto_awq": "awq",
    "auto_gptq": "gptq",
}
"""Other spellings of the same physics."""

KV_LOSS = {"fp8": 0.006, "fp8_e4m3": 0.006, "fp8_e5m2": 0.012}
"""Share of greedy tokens that an 8-bit KV cache changes: simulated quality."""


def find(quantization: str) -> Scheme | None:
    """The scheme of a method by any of its names; None when its physics is not known."""
    return SCHEMES.get(SAME.get(quantization, quantization))
