"""The start of the simulated server: what it logs, and the ways it dies, in the words of what it stands for.

The text follows vLLM 0.32's own lines, so that the classifier of failures is tried on what it will meet.
"""

from __future__ import annotations

import os
import sys
import time
from typing import NoReturn

from serving.costmodel import memory
from serving.costmodel import quantization as schemes
from serving.costmodel.hardware import GIB
from serving.sim.scheduler import Setup

MIB = 2**20
LINEAR_PER_LAYER = 7
"""Matrix products of a layer: q, k, v, o, gate, up, down."""


def log(text: str, level: str = "INFO", process: str = "APIServer") -> None:
    """One line on stdout, at once, in vLLM's form."""
    print(f"({process} pid={os.getpid()}) {level} {time.strftime('%m-%d %H:%M:%S')} [sim] {text}", flush=True)


def announce(setup: Setup, model: str, version: str) -> None:
    """Says first of all that nothing here is real."""
    sim = setup.sim
    log(
        f"SIMULATED engine {version}: no model runs here, every time is computed for gpu={sim.gpu} "
        f"shape={setup.shape.name} seed={sim.seed} time_scale={sim.time_scale:g} noise={sim.noise:g}"
    )
    log(f"non-default args: model={model!r} {setup.resolved}")


def die(code: int, *lines: str, process: str = "EngineCore") -> NoReturn:
    """Logs the lines as errors and ends the process at once, as a crashed engine does."""
    for line in lines:
        log(line, "ERROR", process)
    sys.stdout.flush()
    os._exit(code)


def die_at_launch(*lines: str) -> NoReturn:
    """The engine core failed while starting; the API server follows."""
    for line in ("EngineCore failed to start.", "Traceback (most recent call last):", *lines):
        log(line, "ERROR", "EngineCore")
    die(
        1,
        "RuntimeError: Engine core initialization failed. See root cause above. "
        "Failed core proc(s): {'EngineCore': 1}",
        process="APIServer",
    )


def die_running(*lines: str) -> NoReturn:
    """The engine core failed under load; the API server follows."""
    for line in ("EngineCore encountered a fatal error.", "Traceback (most recent call last):", *lines):
        log(line, "ERROR", "EngineCore")
    die(
        1,
        "AsyncLLM output_handler failed.",
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. "
        "See stack trace (above) for the root cause.",
        process="APIServer",
    )


def out_of_memory(setup: Setup, wanted: int, free: int) -> str:
    """The line of torch's allocator."""
    total = setup.hardware.memory_bytes
    return (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {wanted / MIB:.2f} MiB. "
        f"GPU 0 has a total capacity of {total / GIB:.2f} GiB of which {free / MIB:.2f} MiB is free. "
        f"Including non-PyTorch memory, this process has {(total - free) / GIB:.2f} GiB memory in use."
    )


def load(setup: Setup, asked_quantization: str) -> int:
    """Loads the model, as it were: logs it, or dies. Returns how many layers were quantized."""
    resolved, budget, fault = setup.resolved, setup.budget, setup.sim.fault
    if fault.name == "bad_flag":
        print("usage: sim_server.py [-h] [--host HOST] [--port PORT] ...", file=sys.stderr)
        print("sim_server.py: error: unrecognized arguments: --no-such-flag", file=sys.stderr, flush=True)
        os._exit(2)
    if fault.name == "crash_at_launch":
        die_at_launch("RuntimeError: CUDA error: an illegal memory access was encountered")
    _check(setup, asked_quantization)
    layers = _quantize(setup, asked_quantization)
    if budget.weights + budget.context > budget.total:
        die_at_launch(out_of_memory(setup, 224 * MIB, 60 * MIB))
    log(f"Model loading took {budget.weights / GIB:.2f} GiB memory and 0.0 seconds", process="EngineCore")
    if fault.name == "oom_at_launch":
        die_at_launch(out_of_memory(setup, 224 * MIB, 60 * MIB))
    refused = memory.refusal(budget, resolved, setup.hardware.device)
    if refused:
        die_at_launch(f"ValueError: {refused}")
    log(f"Available KV cache memory: {budget.available / GIB:.2f} GiB", process="EngineCore")
    kind = "GPU" if setup.hardware.device == "cuda" else "CPU"
    log(
        f"{kind} KV cache size: {budget.kv_tokens:,} tokens, Maximum concurrency for "
        f"{resolved.max_model_len:,} tokens per request: {budget.max_concurrency:.2f}x",
        process="EngineCore",
    )
    if budget.graphs:
        log(f"Graph capturing finished in 0 secs, took {budget.graphs / GIB:.2f} GiB", process="EngineCore")
    return layers


def _check(setup: Setup, quantization: str) -> None:
    """Dies of what vLLM refuses before it loads anything."""
    resolved = setup.resolved
    if resolved.max_num_batched_tokens < resolved.max_num_seqs:
        die(
            1,
            f"ValueError: max_num_batched_tokens ({resolved.max_num_batched_tokens}) must be greater than "
            f"or equal to max_num_seqs ({resolved.max_num_seqs}).",
            process="APIServer",
        )
    scheme = schemes.find(quantization)
    capability = setup.hardware.capability or 999
    minimum = scheme.min_capability if scheme else 0
    if setup.sim.fault.name == "unsupported":
        minimum = capability + 1
    if capability < minimum:
        die_at_launch(
            f"ValueError: The quantization method {quantization} is not supported for the current GPU. "
            f"Minimum capability: {minimum}. Current capability: {capability}."
        )


def _quantize(setup: Setup, quantization: str) -> int:
    scheme = schemes.find(quantization)
    if scheme is None or scheme.weight_bits is None:
        return 0
    layers = 0 if setup.sim.fault.name == "ignores_setting" else setup.shape.layers * LINEAR_PER_LAYER
    log(f"Quantizing {layers} layers with {quantization}", process="EngineCore")
    return layers
