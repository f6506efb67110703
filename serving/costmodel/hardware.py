"""HARDWARE: the devices whose figures are known, each with its source. Nothing here is measured at run time.

Peak rates are dense (sheets print them with sparsity: halved here). `memory_bytes` is what an engine sees
(`torch.cuda` total), a little below what `nvidia-smi` prints.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

GIB = 2**30
TERA = 10**12


@dataclass(frozen=True, slots=True)
class Hardware:
    """One device. Rates are operations per second at peak, by format of the operands.

    bandwidth_bytes_per_s  device memory
    vector_per_s           operations outside the matrix units (fp32): unpacking of weights runs there
    reach_bandwidth, reach_rate   share of the peaks that serving kernels get
    step_s                 host work of one engine step;  sequence_s  more of it for each sequence
    layer_s, layer_eager_s host work of one layer, with and without graphs or compilation
    overlaps        host work runs beside the device's (a GPU), or before it (a CPU)
    tile_tokens     tokens for which one unpacking of packed weights serves
    link_bytes_per_s       to a second device, for tensor parallelism (0: none)
    measured_bytes_per_s, measured_rate_per_s  copy (read plus written) and bf16 matrix product as seen on it
    capability             NVIDIA compute capability times ten; None on a CPU
    """

    name: str
    device: str
    memory_bytes: int
    bandwidth_bytes_per_s: float
    rates_per_s: Mapping[str, float] = field(hash=False)
    vector_per_s: float
    capability: int | None
    source: str
    date: str
    reach_bandwidth: float = 0.85
    reach_rate: float = 0.70
    step_s: float = 0.0006
    sequence_s: float = 6e-6
    layer_s: float = 18e-6
    layer_eager_s: float = 230e-6
    overlaps: bool = True
    tile_tokens: int = 64
    link_bytes_per_s: float = 0.0
    link_s: float = 12e-6
    measured_bytes_per_s: float | None = None
    measured_rate_per_s: float | None = None

    def rate_per_s(self, fmt: str) -> float | None:
        """Peak rate for operands of `fmt` (bf16, fp16, fp32, fp8, int8); None: no such unit."""
        return self.rates_per_s.get(fmt)


def _gpu(
    name: str,
    memory_gib: float,
    bandwidth_gb_per_s: float,
    rates: dict[str, float],
    vector: float,
    capability: int,
    source: str,
    link_gb_per_s: float,
    measured: tuple[float, float] | None = None,
) -> Hardware:
    return Hardware(
        name=name,
        device="cuda",
        memory_bytes=int(memory_gib * GIB),
        bandwidth_bytes_per_s=bandwidth_gb_per_s * 1e9,
        rates_per_s={fmt: rate * TERA for fmt, rate in rates.items()},
        vector_per_s=vector * TERA,
        capability=capability,
        source=source,
        date="2026-11-23",
        link_bytes_per_s=link_gb_per_s * 1e9,
        measured_bytes_per_s=measured[0] if measured else None,
        measured_rate_per_s=measured[1] if measured else None,
    )


HARDWARE: dict[str, Hardware] = {
    "h200": _gpu(
        "h200", 139.7, 4800, {"bf16": 989.5, "fp16": 989.5, "fp32": 67, "fp8": 1979, "int8": 1979}, 67, 90,
        "NVIDIA H200 SXM data sheet (141 GB, 4.8 TB/s; 1,979 bf16, 3,958 fp8 and int8 with sparsity)", 450,
        (4.3e12, 790e12),
    ),
    "h100-sxm": _gpu(
        "h100-sxm", 79.11, 3350, {"bf16": 989.5, "fp16": 989.5, "fp32": 67, "fp8": 1979, "int8": 1979}, 67,
        90,
        "NVIDIA H100 SXM data sheet (80 GB, 3.35 TB/s); memory as torch prints it in vllm issue 27508", 450,
    ),
    "a100-80g": _gpu(
        "a100-80g", 79.15, 2039, {"bf16": 312, "fp16": 312, "fp32": 19.5, "int8": 624}, 19.5, 80,
        "NVIDIA A100 80 GB SXM data sheet (2,039 GB/s; 312 bf16, 624 int8 dense; no fp8)", 300,
    ),
    "l40s": _gpu(
        "l40s", 44.42, 864, {"bf16": 362.05, "fp16": 362.05, "fp32": 91.6, "fp8": 733, "int8": 733}, 91.6, 89,
        "NVIDIA L40S data sheet (48 GB, 864 GB/s; 362.05 bf16, 733 fp8 dense)", 25,
    ),
    "l4": _gpu(
        "l4", 22.03, 300, {"bf16": 121, "fp16": 121, "fp32": 30.3, "fp8": 242.5, "int8": 242.5}, 30.3, 89,
        "NVIDIA L4 data sheet (24 GB, 300 GB/s; 242 bf16, 485 fp8 and int8 with sparsity)", 25,
    ),
    "t4": _gpu(
        "t4", 14.75, 320, {"fp16": 65, "fp32": 8.1, "int8": 130}, 8.1, 75,
        "NVIDIA T4 data sheet (16 GB, 320 GB/s; 65 fp16, 130 int8; no bf16); memory from an Open-Sora log",
        12,
    ),
    "cpu-2core": Hardware(
        name="cpu-2core",
        device="cpu",
        memory_bytes=23 * GIB,
        bandwidth_bytes_per_s=24e9,
        rates_per_s={"bf16": 0.21e12, "fp16": 0.0103e12, "fp32": 0.05e12, "fp8": 0.0038e12, "int8": 0.2e12},
        vector_per_s=6.2e9,
        capability=None,
        source="fitted to vLLM 0.32.0 for CPU serving SmolLM2-135M on two Xeon cores with AMX (docs/sim.md)",
        date="2026-11-23",
        step_s=0.006,
        sequence_s=0.0016,
        layer_s=0.00017,
        layer_eager_s=0.00053,
        overlaps=False,
        tile_tokens=4,
    ),
}  # fmt: skip

ALIASES = {
    "h100": "h100-sxm",
    "a100": "a100-80g",
    "a100-sxm": "a100-80g",
    "a100-sxm4-80gb": "a100-80g",
    "cpu": "cpu-2core",
}


def find(name: str) -> Hardware | None:
    """The row of that name or alias, upper and lower case alike; None when there is none."""
    key = name.strip().lower()
    return HARDWARE.get(ALIASES.get(key, key))


def nearest(name: str) -> str | None:
    """The known name that `name` was probably meant to be."""
    close = difflib.get_close_matches(name.lower(), [*HARDWARE, *ALIASES], n=1)
    return close[0] if close else None


def of_driver_name(name: str, memory_bytes: int | None = None) -> Hardware | None:
    """The row for a GPU as its driver names it ("NVIDIA H100 80GB HBM3"), with its own memory; None: unknown.

    A form factor whose figures differ (PCIe, NVL, an A100 of 40 GB) is unknown rather than guessed.
    """
    words = re.findall(r"[a-z0-9]+", name.lower())
    if {"pcie", "nvl", "mig"} & set(words) and not {"l4", "l40s", "t4"} & set(words):
        return None
    for word in words:
        row = find(word)
        if row is None or row.device != "cuda":
            continue
        if memory_bytes is None:
            return row
        if not 0.9 < memory_bytes / row.memory_bytes < 1.1:
            return None
        return replace(row, memory_bytes=min(memory_bytes, row.memory_bytes))
    return None


def cpu(memory_bytes: int) -> Hardware:
    """The CPU row with this host's memory. Its speed is that of two cores: a bound for no larger machine."""
    return replace(HARDWARE["cpu-2core"], memory_bytes=memory_bytes)
