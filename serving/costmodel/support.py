"""Which quantization works on which engine and device: data in one place, with the reason where it does not.

`works` was seen to work, or is documented by the engine for this device (the reason says which); `fails`
was seen to fail or to do nothing: planning drops it, unless a config says `attempt`; what has no row is
unknown to the engine, and dropped too. `untested` is launched: nobody here has tried it.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal

SupportStatus = Literal["works", "fails", "untested"]

CHECKPOINTS = frozenset({"w8a8", "w4a16", "w8a16", "fp8-checkpoint", "awq", "gptq"})
"""Methods that are a checkpoint of their own: ServingConfig.checkpoint must name its folder or hub id."""

ONLINE = frozenset({"fp8", "int8", "bitsandbytes", "bnb-4bit", "bnb-8bit"})
"""Methods that quantize the unquantized weights while they are loaded."""

METHODS = ("none", *sorted(ONLINE), *sorted(CHECKPOINTS))


@dataclass(frozen=True)
class SupportRow:
    """One method on one engine and device. `versions`: from (included) until (excluded), None is open.

    `min_capability`: first NVIDIA compute capability, times ten.
    """

    engine: str
    device: str
    method: str
    status: SupportStatus
    reason: str
    since: str | None = None
    until: str | None = None
    min_capability: int = 0


VLLM_CPU = "measured with vLLM 0.32.0 for CPU on SmolLM2-135M"
VLLM_DOCS = "vLLM's table of quantization methods and hardware"
BNB = "bitsandbytes left vLLM's core at 0.28 (plugin vllm-bnb-plugin, which is not installed)"

SUPPORT: tuple[SupportRow, ...] = (
    SupportRow("vllm", "cpu", "none", "works", VLLM_CPU),
    SupportRow("vllm", "cpu", "w8a8", "works", VLLM_CPU),
    SupportRow("vllm", "cpu", "w4a16", "works", f"{VLLM_CPU}; slower than bf16"),
    SupportRow("vllm", "cpu", "fp8-checkpoint", "works", f"{VLLM_CPU}; a twelfth of the speed of bf16"),
    SupportRow(
        "vllm",
        "cpu",
        "w8a16",
        "fails",
        "the CPU build has no kernel for 8-bit weights with 16-bit activations",
    ),
    SupportRow(
        "vllm",
        "cpu",
        "fp8",
        "fails",
        "the CPU build lacks the kernel that quantizes weights to fp8 on loading",
    ),
    SupportRow(
        "vllm", "cpu", "int8", "fails", "accepted, and quantizes 0 layers: what runs is the unquantized model"
    ),
    SupportRow("vllm", "cpu", "bitsandbytes", "fails", BNB, since="0.28"),
    SupportRow("vllm", "cpu", "awq", "untested", "documented for x86 CPUs; not tried here"),
    SupportRow("vllm", "cpu", "gptq", "untested", "documented for x86 CPUs; not tried here"),
    SupportRow("vllm", "cuda", "none", "works", VLLM_DOCS),
    SupportRow("vllm", "cuda", "fp8", "works", f"{VLLM_DOCS}; below 8.9 weights only", min_capability=75),
    SupportRow("vllm", "cuda", "int8", "untested", "online, weights only; not tried here", min_capability=75),
    SupportRow("vllm", "cuda", "w8a8", "works", VLLM_DOCS, min_capability=75),
    SupportRow("vllm", "cuda", "w4a16", "works", f"{VLLM_DOCS} (Marlin)", min_capability=75),
    SupportRow("vllm", "cuda", "w8a16", "works", f"{VLLM_DOCS} (Marlin)", min_capability=75),
    SupportRow(
        "vllm", "cuda", "fp8-checkpoint", "works", f"{VLLM_DOCS}; below 8.9 weights only", min_capability=75
    ),
    SupportRow("vllm", "cuda", "awq", "works", VLLM_DOCS, min_capability=75),
    SupportRow("vllm", "cuda", "gptq", "works", VLLM_DOCS, min_capability=70),
    SupportRow("vllm", "cuda", "bitsandbytes", "works", VLLM_DOCS, until="0.28", min_capability=70),
    SupportRow("vllm", "cuda", "bitsandbytes", "fails", BNB, since="0.28"),
    *(
        SupportRow(
            "transformers",
            device,
            method,
            "works",
            "transformers serve, bitsandbytes 0.50",
            min_capability=low,
        )
        for device in ("cpu", "cuda")
        for method, low in (("none", 0), ("bnb-4bit", 60), ("bnb-8bit", 75))
    ),
)

ANYTHING = frozenset({"endpoint", "sim"})
"""Engines that are not asked here: one runs elsewhere, the other checks its own cost models."""


def find(engine: str, version: str, device: str, method: str) -> SupportRow | None:
    """The row that applies to this version; None when the engine does not know the method there."""
    for row in SUPPORT:
        if (row.engine, row.device, row.method) == (engine, device, method) and _within(row, version):
            return row
    return None


def supported(
    engine: str, version: str, device: str, quantization: str, capability: int | None = None
) -> str | None:
    """Why the pair cannot be planned; None when it can (it works, or nobody has tried).

    `capability`: the GPU's compute capability times ten, None when unknown (then it is not checked).
    """
    if engine in ANYTHING:
        return None
    if quantization not in METHODS:
        near = difflib.get_close_matches(quantization, METHODS, n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        return f"unknown quantization {quantization!r}{meant}; known: {', '.join(METHODS)}"
    row = find(engine, version, device, quantization)
    if row is None:
        able = [m for m in METHODS if (r := find(engine, version, device, m)) and r.status != "fails"]
        return f"{engine} has no {quantization} on {device}; it has {', '.join(able) or 'nothing there'}"
    if row.status == "fails":
        return f"{quantization} on {engine} {version} for {device}: {row.reason}"
    if capability is not None and capability < row.min_capability:
        return (
            f"{quantization} on {engine} needs compute capability {row.min_capability / 10:.1f}, "
            f"this GPU has {capability / 10:.1f}"
        )
    return None


def _within(row: SupportRow, version: str) -> bool:
    numbers = _numbers(version)
    if not numbers:
        return row.until is None
    return (row.since is None or numbers >= _numbers(row.since)) and (
        row.until is None or numbers < _numbers(row.until)
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0])[:3])
