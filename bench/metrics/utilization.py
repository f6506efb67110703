"""Against the physical limit: how much of the device's memory bandwidth and matrix rate a run has used.

MBU and MFU: model bytes, model operations (what the mathematics needs, not what a kernel does) over what the
device can do. The device's own measured copy and matrix rates are the limit where
`serving.costmodel.hardware` knows them, else its data sheet's. Nothing is told for a CPU (its row is a fit to
one machine), for speculative decoding (a step makes several tokens), for pipeline or data parallelism (a
request meets a part of the devices), or for cached prompts' prefill (nothing is computed).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bench.metrics import latency, throughput
from bench.metrics.view import View
from serving import devices
from serving.config import ServingConfig
from serving.costmodel import quantization, roofline
from serving.costmodel.defaults import of_config
from serving.costmodel.hardware import Hardware

BINDS = 0.5
"""A limit binds where its floor takes at least this share of the window."""


@dataclass(frozen=True, slots=True)
class DeviceLimits:
    """Seconds that physics asks for, at the least. `step_s(n)` is a decode step of n sequences."""

    weights_s: float
    kv_token_s: float
    prompt_s: float
    context_tokens: float

    def step_s(self, sequences: float) -> float:
        """Weights once and every sequence's cache, read at the memory's rate."""
        return self.weights_s + sequences * self.context_tokens * self.kv_token_s


def limits(view: View) -> DeviceLimits | None:
    """Of this run's config, lengths and device; None where they are not known or say nothing."""
    if view.place is None:
        return None
    where, shape = view.place
    config, load = view.run.point.config, view.run.point.load
    if where.device != "cuda" or _speculates(config) or quantization.find(config.quantization) is None:
        return None
    if devices.count(config) != config.tensor_parallel_size:
        return None
    done = latency.complete(view)
    known = view.requests.input_tokens[done], view.requests.tokens[done]
    if not done.any() or any(part.size == 0 or (part != part).any() for part in known):
        return None
    inward, outward = (float(part.mean()) for part in known)
    cost = roofline.costs(of_config(config, where, shape), attained(where), shape, ideal=True)
    cached = load.turns > 1 or load.shared_prefix_tokens or load.trace is not None
    return DeviceLimits(
        weights_s=cost.linear_read_s + cost.head_read_s,
        kv_token_s=cost.kv_token_s,
        prompt_s=0.0 if cached else inward * cost.linear_token_s + cost.pair_s * inward * inward / 2,
        context_tokens=inward + outward / 2,
    )


def attained(where: Hardware) -> Hardware:
    """The device with the rates that plain kernels were seen to reach on it, where that is known."""
    sixteen = where.measured_rate_per_s
    rates = where.rates_per_s if sixteen is None else {**where.rates_per_s, "bf16": sixteen, "fp16": sixteen}
    bandwidth = where.measured_bytes_per_s or where.bandwidth_bytes_per_s
    return replace(where, rates_per_s=rates, bandwidth_bytes_per_s=bandwidth)


def decode_bandwidth_share(view: View) -> float | None:
    """Bytes of one decode step at the mean concurrency / (median TPOT x bandwidth)."""
    found, tpot_ms = limits(view), latency.statistic(latency.values(view, "tpot"), "p50")
    batch = _batch(view)
    if found is None or not tpot_ms or batch is None:
        return None
    return found.step_s(batch) / (tpot_ms / 1e3)


def prefill_compute_share(view: View) -> float | None:
    """Operations of one prompt / (median TTFT from sending x matrix rate): waiting counts against it."""
    found, ttft_ms = limits(view), latency.statistic(latency.values(view, "ttft_sent"), "p50")
    if found is None or not ttft_ms or not found.prompt_s:
        return None
    return found.prompt_s / (ttft_ms / 1e3)


def decode_floor_share(view: View) -> float | None:
    """Time that the window's decode steps need at the memory's rate / the window."""
    found, batch = limits(view), _batch(view)
    tokens_per_s = throughput.output_tokens_per_s(view)
    if found is None or batch is None or tokens_per_s is None:
        return None
    return tokens_per_s / batch * found.step_s(batch)


def prefill_floor_share(view: View) -> float | None:
    """Time that the window's prompts need at the matrix rate / the window."""
    found, requests_per_s = limits(view), throughput.requests_per_s(view)
    if found is None or requests_per_s is None or not found.prompt_s:
        return None
    return requests_per_s * found.prompt_s


def binds(metrics: Mapping[str, float | None]) -> str | None:
    """Which limit binds, in words; None where the shares are not known."""
    decode, prefill = metrics.get("decode_floor_share"), metrics.get("prefill_floor_share")
    if decode is None:
        return None
    parts = {"memory bandwidth in decode": decode, "matrix rate in prefill": prefill or 0.0}
    name, most = max(parts.items(), key=lambda part: part[1])
    if most >= BINDS:
        return f"{name} binds ({most:.0%} of the time)"
    return f"neither limit binds: {1 - sum(parts.values()):.0%} of the time is neither memory nor matrix work"


def _batch(view: View) -> float | None:
    """Sequences that decode together: the mean in flight, at most what the engine takes."""
    flight, most = throughput.concurrency_mean(view), view.run.point.config.max_num_seqs
    if not flight or view.place is None:
        return None
    return max(1.0, min(flight, most or of_config(view.run.point.config, *view.place).max_num_seqs))


def _speculates(config: ServingConfig) -> bool:
    return any("speculative" in name for name in config.extra_args)
