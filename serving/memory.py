"""What a server holds in device memory, in bytes: weights, activations, graphs; the rest is for the KV cache.

The arithmetic of weights and KV cache is exact; activations, graphs and the context are estimates, checked
against vLLM's own log lines (docs/sim.md). All figures are for one device of `tensor_parallel_size`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from serving.hardware import Hardware
from serving.resolved import Resolved
from serving.shapes import Shape

BLOCK_TOKENS = 16
"""Tokens in a block of the KV cache on a GPU (vLLM's default)."""
BLOCK_TOKENS_CPU = 128

CONTEXT_BYTES = {"cuda": 550 * 2**20, "cpu": 2200 * 2**20}
"""Driver context, communicator buffers, interpreter and libraries: assumption."""
GRAPH_BYTES_PER_LAYER = 250_000
"""One captured batch size, one layer: 67 sizes of 32 layers are then 0.54 GB, as vLLM logs for an 8B."""
HIDDEN_COPIES = 4
LOGIT_COPIES = 3
SPIKE_BYTES = 350_000_000
SPIKE_SHARE = 0.35
"""Use above what start-up profiled, under full load: fragmentation and workspaces: assumption."""
STARTUP_BYTES = 350 * 2**20
"""In use on an otherwise empty GPU before anything is loaded: assumption."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes unless the name says otherwise. `available`: left for the KV cache, negative when overdrawn.

    total        of the device;  allowed  total x gpu_memory_utilization, what the engine may use
    context      driver and libraries
    kv_tokens    tokens that fit in the KV cache;  max_concurrency  of requests of max_model_len
    """

    weights: int
    activations: int
    graphs: int
    context: int
    kv_per_token: float
    total: int
    allowed: int
    available: int
    kv_tokens: int
    needed_tokens: int
    max_concurrency: float
    block_tokens: int

    @property
    def used(self) -> int:
        """Everything but the KV cache."""
        return self.weights + self.activations + self.graphs + self.context

    def as_json(self) -> dict[str, float]:
        return asdict(self)


def budget(resolved: Resolved, hardware: Hardware, shape: Shape) -> Budget:
    """The memory of one device. KeyError for a quantization whose physics is not known."""
    tp = resolved.tensor_parallel_size
    weights = shape.weight_bytes(resolved.quantization, resolved.dtype) // tp
    kv_per_token = shape.kv_bytes_per_token(resolved.kv_cache_dtype, resolved.dtype) / min(tp, shape.kv_heads)
    activations = activation_bytes(resolved, shape)
    graphs = 0
    if not resolved.enforce_eager and hardware.device == "cuda":
        sizes = min(resolved.max_num_seqs, 512) // 8 + 3
        graphs = sizes * shape.layers * GRAPH_BYTES_PER_LAYER
    context = CONTEXT_BYTES[hardware.device]
    total = hardware.memory_bytes
    allowed = int(total * resolved.gpu_memory_utilization)
    available = allowed - weights - activations - graphs - context
    if resolved.kv_cache_bytes is not None:
        available = min(available, resolved.kv_cache_bytes) if available > 0 else available
    block = BLOCK_TOKENS if hardware.device == "cuda" else BLOCK_TOKENS_CPU
    kv_tokens = max(0, int(available / (kv_per_token * block))) * block
    return Budget(
        weights=weights,
        activations=activations,
        graphs=graphs,
        context=context,
        kv_per_token=kv_per_token,
        total=total,
        allowed=allowed,
        available=available,
        kv_tokens=kv_tokens,
        needed_tokens=resolved.max_model_len,
        max_concurrency=kv_tokens / resolved.max_model_len,
        block_tokens=block,
    )


def activation_bytes(resolved: Resolved, shape: Shape) -> int:
    """Peak of one profiled step: MLP and residual of a full batch, and fp32 logits of every sequence."""
    tp = resolved.tensor_parallel_size
    width = 3 * shape.intermediate / tp + HIDDEN_COPIES * shape.hidden
    step = resolved.max_num_batched_tokens * width * shape.dtype_bytes(resolved.dtype)
    logits = resolved.max_num_seqs * shape.vocab * 4 * LOGIT_COPIES
    return round(step + logits)


def spike_bytes(budget: Budget, sequences_share: float, tokens_share: float) -> int:
    """What a step needs beyond the profiled peak, by how full the batch is (shares of the two limits)."""
    return round(SPIKE_BYTES * sequences_share + SPIKE_SHARE * budget.activations * tokens_share)


def refusal(budget: Budget, resolved: Resolved, device: str) -> str | None:
    """Why the engine would not start for want of memory, in vLLM's words; None when it would."""
    gib = 2**30
    if device == "cuda" and budget.allowed > budget.total - STARTUP_BYTES:
        free = (budget.total - STARTUP_BYTES) / gib
        return (
            f"Free memory on device cuda:0 ({free:.2f}/{budget.total / gib:.2f} GiB) on startup is less "
            f"than desired GPU memory utilization ({resolved.gpu_memory_utilization}, "
            f"{budget.allowed / gib:.2f} GiB). Decrease GPU memory utilization or reduce GPU memory used by "
            "other processes."
        )
    if budget.available <= 0:
        return (
            "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
            "initializing the engine."
        )
    if budget.kv_tokens < budget.needed_tokens:
        needed = budget.needed_tokens * budget.kv_per_token / gib
        return (
            f"To serve at least one request with the model's max seq len ({budget.needed_tokens}), "
            f"({needed:.2f} GiB KV cache is needed, which is larger than the available KV cache memory "
            f"({budget.available / gib:.2f} GiB). Based on the available memory, the estimated maximum model "
            f"length is {budget.kv_tokens}. Try increasing `gpu_memory_utilization` or decreasing "
            "`max_model_len` when initializing the engine."
        )
    return None
