"""What cannot fit, before anything is launched: the memory of a config against the device.

The arithmetic is `serving.costmodel.memory`, which the simulated engine runs on too. An estimate never
refuses alone: `does_not_fit` is said only when the most optimistic reading fails (the weights and the KV
cache of one request, nothing else), or when earlier launches have shown how far the estimate is off
(`MemoryCalibration`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from bench.plan.target import UNCALIBRATED, MemoryCalibration, Target, place
from serving.config import ServingConfig
from serving.costmodel import memory, quantization
from serving.costmodel.defaults import Resolved, asked_by, of_config, resolve
from serving.costmodel.hardware import GIB, Hardware
from serving.costmodel.memory import MemoryBudget, Profiling
from serving.costmodel.shapes import Shape
from serving.install import environments

MemoryVerdict = Literal["fits", "does_not_fit", "unknown"]

WEIGHTS_MARGIN = 0.02
"""How far the weights may be off their arithmetic, either way (padding, scales, biases)."""
BESIDE_MARGIN = 2.0
"""The most that activations, graphs and context may be, as a multiple of the estimate, uncalibrated."""
ENOUGH_LAUNCHES = 3
"""Launches after which a calibration may refuse."""
CALIBRATED_MARGIN = 0.10
"""How far the next launch may lie outside what earlier ones showed, as a share."""


@dataclass(frozen=True, slots=True)
class Feasibility:
    """The verdict, why, and the memory it rests on (None where it cannot be told)."""

    verdict: MemoryVerdict
    reason: str
    budget: MemoryBudget | None = None

    def as_json(self) -> dict[str, Any]:
        budget = None if self.budget is None else self.budget.as_json()
        return {"verdict": self.verdict, "reason": self.reason, "budget": budget}


def budget_of(config: ServingConfig, where: Hardware, shape: Shape) -> MemoryBudget:
    """The memory a config would take. KeyError for a quantization whose bytes are not known."""
    return memory.budget(of_config(config, where, shape), where, shape, profiling_of(config))


def profiling_of(config: ServingConfig) -> Profiling:
    """How the vLLM that would serve takes its own measure; the hungriest release for other engines."""
    if config.engine != "vllm":
        return memory.UNKNOWN
    return _profiling(config.engine_version, config.device)


@lru_cache(maxsize=64)
def _profiling(version: str | None, device: str) -> Profiling:
    found = environments.find("vllm", version, device)
    return memory.profiling(found.version if found else version)


def fits(config: ServingConfig, target: Target) -> Feasibility:
    """Can this config start there? See the module for when the answer is no."""
    if config.engine == "endpoint":
        return Feasibility("unknown", "the memory of a running server is its own affair")
    where, shape = place(config, target)
    if where is None:
        return Feasibility("unknown", "no figures of this device in serving.costmodel.hardware")
    if shape is None:
        return Feasibility("unknown", f"no shape of {config.model}: name one as model.shape")
    if quantization.find(config.quantization) is None:
        return Feasibility("unknown", f"the bytes of quantization {config.quantization} are not known")
    calibration = UNCALIBRATED if config.engine == "sim" else target.calibration
    asked = tuple(asked_by(config).items())
    return _fits(asked, config.engine == "transformers", where, shape, calibration, profiling_of(config))


@lru_cache(maxsize=4096)
def _fits(
    asked: tuple[tuple[str, Any], ...],
    grows: bool,
    where: Hardware,
    shape: Shape,
    calibration: MemoryCalibration,
    profiling: Profiling,
) -> Feasibility:
    resolved = resolve(dict(asked), where, shape)
    budget = memory.budget(resolved, where, shape, profiling)
    return judge_growing(budget) if grows else judge(budget, resolved, calibration)


def judge(
    budget: MemoryBudget, resolved: Resolved, calibration: MemoryCalibration = UNCALIBRATED
) -> Feasibility:
    """For an engine that reserves its KV cache at the start and demands max_model_len tokens of it (vLLM)."""
    one = budget.needed_tokens * budget.kv_per_token
    asked = resolved.kv_cache_bytes
    needed, limit = (one, budget.allowed) if asked is None else (max(one, asked), budget.total)

    def no(reason: str) -> Feasibility:
        return Feasibility("does_not_fit", reason, budget)

    least = budget.weights * (1 - WEIGHTS_MARGIN)
    if least > budget.total:
        return no(_too_heavy(budget))
    if asked is not None and asked < one:
        return no(f"kv_cache_bytes ({_gib(asked)}) holds less than one request of {_request(budget, one)}")
    if least + needed > limit:
        share = f" ({resolved.gpu_memory_utilization:.0%} of the device)" if asked is None else ""
        what = f"one request of {_request(budget, one)}" if asked is None else f"{_gib(needed)} of KV cache"
        return no(f"the weights ({_gib(budget.weights)}) and {what} exceed {_gib(limit)}{share}")
    beside, most = budget.used - budget.weights, BESIDE_MARGIN
    if calibration.launches >= ENOUGH_LAUNCHES:
        most = calibration.high * (1 + CALIBRATED_MARGIN)
        seen = least + beside * calibration.low * (1 - CALIBRATED_MARGIN)
        if seen + needed > limit:
            return no(
                f"as {calibration.launches} launches showed, at least {_gib(seen)} are taken beside the KV "
                f"cache, and {_gib(needed)} of it exceed {_gib(limit)}"
            )
    largest = budget.weights * (1 + WEIGHTS_MARGIN) + beside * most
    if largest + needed <= limit:
        return Feasibility("fits", "", budget)
    return Feasibility(
        "unknown", f"too close to tell: up to {_gib(largest + needed)} of {_gib(limit)}", budget
    )


def judge_growing(budget: MemoryBudget) -> Feasibility:
    """For an engine that reserves nothing (transformers): only the weights are sure to be needed."""
    if budget.weights * (1 - WEIGHTS_MARGIN) > budget.total:
        return Feasibility("does_not_fit", _too_heavy(budget), budget)
    one = budget.needed_tokens * budget.kv_per_token
    beside = (budget.used - budget.weights) * BESIDE_MARGIN
    if budget.weights * (1 + WEIGHTS_MARGIN) + beside + one <= budget.total:
        return Feasibility("fits", "", budget)
    return Feasibility("unknown", "its KV cache grows as requests come", budget)


def calibrate(launches: Iterable[tuple[MemoryBudget, int]]) -> MemoryCalibration:
    """From launches that started: what was predicted, and the KV tokens that the engine then reported.

    Give only launches whose KV cache took what was left over (no kv_cache_bytes): the others tell nothing.
    """
    ratios = [
        (b.allowed - b.weights - tokens * b.kv_per_token) / (b.used - b.weights)
        for b, tokens in launches
        if tokens > 0
    ]
    return MemoryCalibration(len(ratios), min(ratios), max(ratios)) if ratios else UNCALIBRATED


def _too_heavy(budget: MemoryBudget) -> str:
    return f"the weights alone take {_gib(budget.weights)}, the device has {_gib(budget.total)}"


def _request(budget: MemoryBudget, one: float) -> str:
    return f"max_model_len {budget.needed_tokens:,} tokens ({_gib(one)} of KV cache)"


def _gib(value: float) -> str:
    return f"{value / GIB:.1f} GiB"
