"""What a server holds in device memory, in bytes: weights, activations, graphs; the rest is for the KV cache.

The arithmetic of weights and KV cache is exact; activations, graphs and the context are estimates, checked
against launches that others published (tests/launches, docs/sim.md). All figures are for one device: the
fullest of `tensor_parallel_size` x `pipeline_parallel_size`; data parallelism repeats all of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from serving.costmodel.defaults import Resolved
from serving.costmodel.hardware import Hardware
from serving.costmodel.shapes import Shape

BLOCK_TOKENS = 16
"""Tokens in a block of the KV cache on a GPU (vLLM's default)."""
BLOCK_TOKENS_CPU = 128

CONTEXT_BYTES = {"cuda": 100 * 2**20, "cpu": 2200 * 2**20}
"""What is not torch's: on a GPU the libraries' buffers (the driver's context is in place before vLLM takes
its first reading, so it is not counted); on a CPU the interpreter and libraries."""
LINK_BYTES = 100 * 2**20
NVLINK_BYTES = 1000 * 2**20
"""More of it with tensor parallelism: NCCL, and over NVLink the all-reduce's own buffers (assumption)."""
NVLINK_BYTES_PER_S = 100e9
GRAPH_BYTES_PER_LAYER = 170_000
"""One captured graph, one layer."""
HIDDEN_COPIES = 4

ALLOCATION = 2 * 2**20
LARGE_ALLOCATION = 10 * 2**20
KEPT_REMAINDER = 2**20
"""torch's allocator: from 10 MiB on whole multiples of 2 MiB, of which up to 1 MiB left over stays unused."""

SPIKE_BYTES = 350_000_000
SPIKE_SHARE = 0.35
"""Use above what start-up profiled, under full load: fragmentation and workspaces: assumption."""
STARTUP_BYTES = 350 * 2**20
"""In use on an otherwise empty GPU before anything is loaded: assumption."""


@dataclass(frozen=True, slots=True)
class Profiling:
    """How a release of vLLM measures its own need at start-up.

    logit_bytes     at the peak of the sampler's dummy run, for each sequence and entry of the vocabulary
    counts_graphs   the memory of CUDA graphs is taken from what the KV cache may use
    """

    logit_bytes: float
    counts_graphs: bool


SORTS = 38.0
"""torch's top-k/top-p: logits in 16 and 32 bits, a sorted copy, 64-bit indices, probabilities, sort space."""
FILTERS = 14.0
"""A fused kernel for top-k/top-p (FlashInfer, Triton): logits in 16 and 32 bits, probabilities, noise."""
PLAIN = 6.0
"""The second model runner, whose dummy run samples without top-k and top-p: logits in 16 and 32 bits."""

RELEASES: tuple[tuple[tuple[int, int], Profiling], ...] = (
    ((0, 0), Profiling(SORTS, False)),
    ((0, 12), Profiling(FILTERS, False)),
    ((0, 21), Profiling(FILTERS, True)),
    ((0, 30), Profiling(PLAIN, True)),
)
"""From that release on. Graphs are counted since 0.21 (vllm pull request 30515 and `gpu_worker.py` of 0.32);
the sampler's share is read off the launches and the source of 0.32."""
UNKNOWN = Profiling(SORTS, True)
"""The most that any release takes."""


def profiling(release: str | None, fused_sampler: bool = False) -> Profiling:
    """Of a release of vLLM ("0.11.2"); None or unreadable: UNKNOWN. `fused_sampler`: FlashInfer samples."""
    numbers = re.match(r"v?(\d+)\.(\d+)", release or "")
    if numbers is None:
        return UNKNOWN
    version = (int(numbers[1]), int(numbers[2]))
    found = [row for first, row in RELEASES if first <= version][-1]
    if fused_sampler and found.logit_bytes > FILTERS:
        return Profiling(FILTERS, found.counts_graphs)
    return found


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Bytes unless the name says otherwise. `available`: left for the KV cache, negative when overdrawn.

    total        of the device;  allowed  total x gpu_memory_utilization, what the engine may use
    buffers      loaded with the weights: the rotary table, block tables, what torch's allocator rounds up
    graphs       CUDA graphs, where the release counts them
    context      driver and libraries
    kv_tokens    tokens that fit in the KV cache;  max_concurrency  of requests of max_model_len
    """

    weights: int
    buffers: int
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
        return self.weights + self.buffers + self.activations + self.graphs + self.context

    def as_json(self) -> dict[str, float]:
        return asdict(self)


def budget(
    resolved: Resolved, hardware: Hardware, shape: Shape, profiling: Profiling = UNKNOWN
) -> MemoryBudget:
    """The memory of one device. KeyError for a quantization whose physics is not known."""
    tp = resolved.tensor_parallel_size
    cuda = hardware.device == "cuda"
    block = BLOCK_TOKENS if cuda else BLOCK_TOKENS_CPU
    stages = stage_layers(shape.layers, resolved.pipeline_parallel_size)
    layers_share = max(stages) / shape.layers
    weights = _stage_bytes(resolved, shape, stages) // tp
    kv_per_token = shape.kv_bytes_per_token(resolved.kv_cache_dtype, resolved.dtype) / min(tp, shape.kv_heads)
    kv_per_token *= layers_share
    buffers = loaded_bytes(resolved, shape) if cuda else 0
    buffers += resolved.max_num_seqs * -(-resolved.max_model_len // block) * 4
    activations = activation_bytes(resolved, shape, profiling)
    graphs = 0
    if cuda and profiling.counts_graphs and not resolved.enforce_eager:
        graphs = round(graph_bytes(resolved, shape) * layers_share)
    context = CONTEXT_BYTES[hardware.device]
    if cuda and tp * len(stages) > 1:
        context += NVLINK_BYTES if hardware.link_bytes_per_s > NVLINK_BYTES_PER_S else LINK_BYTES
    total = hardware.memory_bytes
    allowed = int(total * resolved.gpu_memory_utilization)
    available = allowed - weights - buffers - activations - graphs - context
    if resolved.kv_cache_bytes is not None:
        available = min(available, resolved.kv_cache_bytes) if available > 0 else available
    kv_tokens = max(0, int(available / (kv_per_token * block))) * block
    return MemoryBudget(
        weights=weights,
        buffers=buffers,
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


def stage_layers(layers: int, stages: int) -> list[int]:
    """Layers of each pipeline stage, as vLLM shares them out (`distributed/utils.py`, `get_pp_indices`):
    those left over go to the stages before the last, which also has the output head."""
    sizes = [layers // stages] * stages
    for place in range(2, layers % stages + 2):
        sizes[-place] += 1
    return sizes


def _stage_bytes(resolved: Resolved, shape: Shape, stages: Sequence[int]) -> int:
    """Weights of the heaviest stage: its layers, and the embeddings or the head at either end."""
    whole = shape.weight_bytes(resolved.quantization, resolved.dtype)
    if len(stages) == 1:
        return whole
    head = shape.head_weights * shape.dtype_bytes(resolved.dtype)
    layers = whole - head * (1 if shape.tied else 2)
    last = len(stages) - 1
    return max(
        round(layers * size / shape.layers) + head * (place in (0, last)) for place, size in enumerate(stages)
    )


def activation_bytes(resolved: Resolved, shape: Shape, profiling: Profiling = UNKNOWN) -> int:
    """Peak of the profiled step: the MLP of a full batch, or after it the sampler with every sequence."""
    tp = resolved.tensor_parallel_size
    each = shape.dtype_bytes(resolved.dtype)
    width = 3 * shape.intermediate / tp + HIDDEN_COPIES * shape.hidden
    step = resolved.max_num_batched_tokens * width * each
    sequences = min(resolved.max_num_seqs, resolved.max_num_batched_tokens)
    hidden = resolved.max_num_batched_tokens * shape.hidden * each
    return round(max(step, hidden + sequences * shape.vocab * profiling.logit_bytes))


def graph_bytes(resolved: Resolved, shape: Shape) -> int:
    """Of the CUDA graphs: one a captured size for prefills, and one for decoding up to max_num_seqs."""
    largest = min(2 * resolved.max_num_seqs, 512)
    sizes = [n for n in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if n <= largest]
    decoding = sum(1 for n in sizes if n <= resolved.max_num_seqs)
    return (len(sizes) + decoding) * shape.layers * GRAPH_BYTES_PER_LAYER


def loaded_bytes(resolved: Resolved, shape: Shape) -> int:
    """What loading takes beside the weights: the rotary table, and what torch's allocator rounds up.

    For weights as they are in the checkpoint; a quantized layer's tensors are not known one by one.
    """
    each = shape.dtype_bytes(resolved.dtype)
    table = shape.context * shape.head_dim * each
    if resolved.quantization != "none" or shape.disk_quantization:
        return table
    tp = resolved.tensor_parallel_size
    width, kv_width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = (
        shape.hidden * (width + 2 * kv_width),
        width * shape.hidden,
        2 * shape.hidden * shape.intermediate,
        shape.hidden * shape.intermediate,
    )
    heads = (shape.head_weights,) * (1 if shape.tied else 2)
    unused = sum(_unused(count * each // tp) for count in layer) * shape.layers
    return table + unused + sum(_unused(count * each // tp) for count in heads)


def _unused(size: int) -> int:
    """Bytes of torch's block for `size` that stay unused."""
    left = -size % ALLOCATION
    return left if size >= LARGE_ALLOCATION and left <= KEPT_REMAINDER else 0


def spike_bytes(budget: MemoryBudget, sequences_share: float, tokens_share: float) -> int:
    """What a step needs beyond the profiled peak, by how full the batch is (shares of the two limits)."""
    return round(SPIKE_BYTES * sequences_share + SPIKE_SHARE * budget.activations * tokens_share)


def refusal(budget: MemoryBudget, resolved: Resolved, device: str) -> str | None:
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
