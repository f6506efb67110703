"""How fast at best, and how long at a guess: a bound on throughput that cannot be beaten, and a plan's time.

The bound is physics without mercy (peak rates, no host time); the time is an estimate for people and budgets,
and never enters a result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from bench.plan.feasibility import WEIGHTS_MARGIN
from bench.plan.target import Target, place
from bench.point import Load, Point
from serving import devices
from serving.config import ServingConfig, fields_where
from serving.costmodel import memory, quantization, roofline
from serving.costmodel.defaults import asked_by, of_config, resolve
from serving.costmodel.hardware import Hardware
from serving.costmodel.shapes import Shape

READY_S = {
    ("vllm", "cpu", True): 38.0,
    ("vllm", "cpu", False): 120.0,
    ("vllm", "cuda", True): 40.0,
    ("vllm", "cuda", False): 75.0,
    ("transformers", "cpu", False): 15.0,
    ("transformers", "cuda", False): 20.0,
    ("sim", "cpu", False): 0.3,
}
"""Seconds from start to first token by engine, device, eager. CPU: seen on two cores; CUDA: assumptions."""
UNKNOWN_READY_S = 60.0
READ_BYTES_PER_S = 1.5e9
"""Speed at which weights reach a GPU from disk: assumption."""
POINT_S = 1.5
"""Start and end of a load process, telemetry around it."""
UNKNOWN_STEP_S = 0.05
UNKNOWN_POINT_S = 60.0
OPEN_BATCH = 8
"""Sequences assumed to run together where the load does not say."""

_TIMED = (*fields_where(lambda role: role.step_time), "pipeline_parallel_size")


class LaunchPoints(Protocol):
    """What `estimate_s` needs of a `bench.plan.planning.Launch`."""

    @property
    def config(self) -> ServingConfig: ...

    @property
    def points(self) -> Sequence[Point]: ...


def throughput_bound(config: ServingConfig, load: Load, where: Hardware, shape: Shape) -> float:
    """Output tokens per second that no engine on this device exceeds under this load.

    Peak rates, no host time, every byte but the weights given to the KV cache; a shared prefix and earlier
    turns count as cached. Open loop: nor more than arrives. Holds over whole requests: a window that leaves
    their prompts out can show more. KeyError for an unknown quantization.
    """
    ranks = _ranks(config)
    resolved = of_config(config, where, shape)
    cost = roofline.costs(resolved, where, shape, ideal=True)
    budget = memory.budget(resolved, where, shape)
    room_bytes = budget.allowed - budget.weights * (1 - WEIGHTS_MARGIN)
    if resolved.kv_cache_bytes is not None:
        room_bytes = min(room_bytes, resolved.kv_cache_bytes)
    stages = resolved.pipeline_parallel_size
    batch = resolved.max_num_seqs * stages
    if load.concurrency is not None:
        batch = min(batch, -(-load.concurrency // ranks))
    fresh = 1
    if load.turns == 1 and not load.shared_prefix_tokens:
        fresh = load.input_tokens
        batch = max(1, min(batch, int(room_bytes / budget.kv_per_token / load.input_tokens)))
    prefill_s = fresh * cost.linear_token_s + cost.head_token_s + cost.pair_s * fresh * fresh / 2
    steps = max(0, load.output_tokens - 1)
    decode_s = steps * roofline.decode_time_s(cost, batch, fresh)
    most = ranks * stages * batch * load.output_tokens / (batch * prefill_s + decode_s)
    if load.rate_per_s is not None and load.ramp_to_per_s is None:
        most = min(most, load.rate_per_s * load.output_tokens * OPEN_SLACK)
    return most


def _ranks(config: ServingConfig) -> int:
    """Data-parallel replicas behind one server: each has a batch of its own."""
    sizes = devices.of_config(config)
    return sizes.data if sizes else 1


OPEN_SLACK = 1.5
"""A window of an open-loop load may see more arrivals than its mean rate: drains and bursts."""


def estimate_s(launches: Iterable[LaunchPoints], target: Target) -> float:
    """Seconds that launches and points will take together."""
    total = 0.0
    for launch in launches:
        total += ready_s(launch.config, target)
        for point in launch.points:
            total += point_s(point, target)
    return total


def ready_s(config: ServingConfig, target: Target) -> float:
    """Seconds until a server answers: by engine, and reading the weights on a GPU."""
    if config.engine == "endpoint":
        return 0.0
    device = "cpu" if config.engine == "sim" else config.device
    eager = bool(config.enforce_eager) and config.engine == "vllm"
    fixed = READY_S.get((config.engine, device, eager), UNKNOWN_READY_S)
    if device == "cpu" or target.shape is None:
        return fixed
    return fixed + target.shape.parameters * 2 / READ_BYTES_PER_S


def point_s(point: Point, target: Target) -> float:
    """Seconds of one point: its duration or its requests at the roofline's speed, warm-up included."""
    load, config = point.load, point.config
    ranks = _ranks(config)
    together = max(1, min(-(-(load.concurrency or OPEN_BATCH) // ranks), config.max_num_seqs or 256))
    where, shape = place(config, target)
    if (
        config.engine == "endpoint"
        or where is None
        or shape is None
        or not quantization.find(config.quantization)
    ):
        one_s = load.output_tokens * UNKNOWN_STEP_S
    else:
        wanted = asked_by(config)
        asked = tuple([wanted[name] for name in _TIMED])
        one_s = _request_s(asked, where, shape, together, load.input_tokens, load.output_tokens)
        if config.engine == "sim":
            one_s *= float(str(config.sim.get("time_scale", 1.0)))
    ends = []
    if load.duration_s is not None:
        ends.append(load.duration_s)
    if load.requests is not None:
        ends.append(load.requests / (load.rate_per_s or ranks * together / one_s))
    warmup_s = -(-load.warmup_requests // together) * one_s
    return (min(ends) + one_s if ends else UNKNOWN_POINT_S) + warmup_s + POINT_S


@lru_cache(maxsize=4096)
def _request_s(
    asked: tuple[Any, ...], where: Hardware, shape: Shape, together: int, tokens_in: int, tokens_out: int
) -> float:
    """Seconds of one request among `together`: its steps, and everyone's prefill in between."""
    cost = roofline.costs(resolve(dict(zip(_TIMED, asked, strict=True)), where, shape), where, shape)
    step_s = roofline.decode_time_s(cost, together, tokens_in + tokens_out / 2)
    return tokens_out * step_s + together * roofline.prefill_time_s(cost, tokens_in)
