"""How long one engine step takes: the one formula that the simulated engine and the feasibility bounds share.

A step processes `tokens` (prompt chunks and one token for every decoding sequence). Its parts add up:

    linear     max(weight bytes / bandwidth, flops / rate + unpacking)     layers' matrix products
    head       max(head bytes / bandwidth, flops / rate)                   for the sampled tokens
    attention  max(KV bytes read / bandwidth, flops / rate)
    links      two all-reduces a layer, with tensor parallelism
    host       layers x launch time: hidden behind the device work on a GPU, added on a CPU
    + a fixed cost a step and a small one a sequence

Williams et al., "Roofline: an insightful visual performance model", CACM 2009. Peaks are those of
`serving.costmodel.hardware`, lowered by the reach of real kernels; `ideal` leaves both the reach and the host
out, which makes the time a lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass

from serving.costmodel import quantization
from serving.costmodel.defaults import Resolved
from serving.costmodel.hardware import Hardware
from serving.costmodel.shapes import Shape

FORMATS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of each unit of work for one config on one device; `step_time_s` puts them together."""

    linear_read_s: float
    linear_token_s: float
    expand_s: float
    unpack_s: float
    tile_tokens: int
    head_read_s: float
    head_token_s: float
    kv_token_s: float
    pair_s: float
    link_s: float
    link_token_s: float
    host_s: float
    overlaps: bool
    step_s: float
    sequence_s: float


def costs(resolved: Resolved, hardware: Hardware, shape: Shape, *, ideal: bool = False) -> Costs:
    """The unit costs. KeyError for a quantization whose physics is not known.

    A format the device has no units for runs at the rate of the model's own dtype, weights unpacked.
    """
    scheme = quantization.find(resolved.quantization)
    if scheme is None:
        raise KeyError(resolved.quantization)
    tp = resolved.tensor_parallel_size
    bandwidth = hardware.bandwidth_bytes_per_s * tp * (1.0 if ideal else hardware.reach_bandwidth)
    reach = tp * (1.0 if ideal else hardware.reach_rate)
    own = (hardware.rate_per_s(FORMATS[resolved.dtype]) or hardware.rates_per_s["fp32"]) * reach
    each = shape.dtype_bytes(resolved.dtype)
    bits = scheme.weight_bits if scheme.weight_bits is not None else 8.0 * each
    rate, unpack = own, scheme.unpack
    if scheme.operands != "16":
        native = hardware.rate_per_s(scheme.operands)
        if native is None or (hardware.capability or 999) < scheme.native_capability:
            unpack = max(unpack, 1.0)
        else:
            rate = native * reach
    links = 0 if tp == 1 or hardware.link_bytes_per_s <= 0 else 2 * shape.layers
    return Costs(
        linear_read_s=shape.linear_weights * bits / 8 / bandwidth,
        linear_token_s=2 * shape.linear_weights / rate * (1.0 if ideal else scheme.slowdown),
        expand_s=0.0 if ideal else shape.linear_weights * scheme.expand_bytes / bandwidth,
        unpack_s=0.0 if ideal else shape.linear_weights * unpack / (hardware.vector_per_s * tp),
        tile_tokens=hardware.tile_tokens,
        head_read_s=shape.head_weights * each / bandwidth,
        head_token_s=2 * shape.head_weights / own,
        kv_token_s=shape.kv_bytes_per_token(resolved.kv_cache_dtype, resolved.dtype) / bandwidth,
        pair_s=shape.attention_flops_per_pair / own,
        link_s=0.0 if ideal else links * hardware.link_s,
        link_token_s=0.0
        if ideal or not links
        else links * 2 * shape.hidden * each / hardware.link_bytes_per_s,
        host_s=0.0
        if ideal
        else shape.layers * (hardware.layer_eager_s if resolved.enforce_eager else hardware.layer_s),
        overlaps=hardware.overlaps,
        step_s=0.0 if ideal else hardware.step_s,
        sequence_s=0.0 if ideal else hardware.sequence_s,
    )


def step_time_s(
    cost: Costs, *, tokens: int, sequences: int, sampled: float, kv_tokens: float, pairs: float
) -> float:
    """Seconds of one step.

    tokens     processed in the step;  sequences  taking part;  sampled  that get an output token
    kv_tokens  cached tokens read, over all sequences;  pairs  token-to-token attentions computed
    """
    tiles = -(-tokens // cost.tile_tokens)
    linear = max(
        cost.linear_read_s + (cost.expand_s if tokens > 1 else 0.0),
        tokens * cost.linear_token_s + tiles * cost.unpack_s,
    )
    head = max(cost.head_read_s, sampled * cost.head_token_s) if sampled else 0.0
    attention = max(kv_tokens * cost.kv_token_s, pairs * cost.pair_s)
    work = linear + head + attention + cost.link_s + tokens * cost.link_token_s
    busy = max(work, cost.host_s) if cost.overlaps else work + cost.host_s
    return busy + cost.step_s + sequences * cost.sequence_s


def decode_time_s(cost: Costs, sequences: int, context_tokens: float) -> float:
    """Seconds of a step in which `sequences` decode, each with `context_tokens` behind it."""
    behind = sequences * context_tokens
    return step_time_s(cost, tokens=sequences, sequences=sequences, sampled=sequences, kv_tokens=behind,
                       pairs=behind)  # fmt: skip


def prefill_time_s(cost: Costs, tokens: int, behind: int = 0) -> float:
    """Seconds of a step that computes a prompt chunk of `tokens` after `behind` cached ones."""
    return step_time_s(cost, tokens=tokens, sequences=1, sampled=1, kv_tokens=behind + tokens,
                       pairs=tokens * behind + tokens * (tokens + 1) / 2)  # fmt: skip
