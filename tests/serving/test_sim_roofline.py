"""The step cost: monotonic as physics is, bounded by its ideal, near what engines were measured at."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.costmodel import hardware, memory, quantization, roofline, shapes
from serving.costmodel.defaults import Resolved, resolve

GPUS = [row for row in hardware.HARDWARE.values() if row.device == "cuda"]
devices = st.sampled_from(list(hardware.HARDWARE.values()))
models = st.sampled_from(list(shapes.SHAPES.values()))
methods = st.sampled_from(sorted(quantization.SCHEMES))
counts = st.integers(1, 2000)


def made(device: hardware.Hardware, shape: shapes.Shape, **asked: object) -> roofline.Costs:
    return roofline.costs(resolve(asked, device, shape), device, shape)


@given(devices, models, methods, counts, counts, st.integers(0, 30_000), st.integers(0, 500))
@settings(deadline=None)
def test_more_work_is_never_faster(
    device: hardware.Hardware,
    shape: shapes.Shape,
    method: str,
    tokens: int,
    seqs: int,
    behind: int,
    more: int,
) -> None:
    cost = made(device, shape, quantization=method)
    seqs = min(seqs, tokens)

    def step(tokens: int, behind: int) -> float:
        return roofline.step_time_s(cost, tokens=tokens, sequences=seqs, sampled=seqs, kv_tokens=behind,
                                    pairs=float(behind))  # fmt: skip

    assert 0 < step(tokens, behind) <= step(tokens + more, behind) <= step(tokens + more, behind + more)
    assert roofline.decode_time_s(cost, seqs, behind) <= roofline.decode_time_s(cost, seqs + more, behind)


@given(devices, models, methods, counts, st.floats(1.0, 10.0))
@settings(deadline=None)
def test_a_better_device_is_never_slower(
    device: hardware.Hardware, shape: shapes.Shape, method: str, seqs: int, factor: float
) -> None:
    asked = {"quantization": method}
    better = replace(
        device,
        bandwidth_bytes_per_s=device.bandwidth_bytes_per_s * factor,
        rates_per_s={fmt: rate * factor for fmt, rate in device.rates_per_s.items()},
    )
    now = roofline.decode_time_s(made(device, shape, **asked), seqs, 500)
    assert roofline.decode_time_s(made(better, shape, **asked), seqs, 500) <= now * (1 + 1e-9)


@given(devices, models, methods, counts)
@settings(deadline=None)
def test_the_ideal_bounds_the_real(
    device: hardware.Hardware, shape: shapes.Shape, method: str, seqs: int
) -> None:
    resolved = resolve({"quantization": method}, device, shape)
    ideal = roofline.costs(resolved, device, shape, ideal=True)
    real = roofline.costs(resolved, device, shape)
    assert roofline.decode_time_s(ideal, seqs, 300) < roofline.decode_time_s(real, seqs, 300)
    assert roofline.prefill_time_s(ideal, seqs) < roofline.prefill_time_s(real, seqs)


def test_a_single_stream_is_bound_by_reading_the_weights() -> None:
    h200, llama = hardware.HARDWARE["h200"], shapes.SHAPES["llama-3.1-8b"]
    cost = roofline.costs(resolve({}, h200, llama), h200, llama, ideal=True)
    read = 2 * (llama.linear_weights + llama.head_weights)
    assert roofline.decode_time_s(cost, 1, 0) == pytest.approx(read / 4.8e12)


def test_a_long_prompt_is_bound_by_arithmetic() -> None:
    h200, llama = hardware.HARDWARE["h200"], shapes.SHAPES["llama-3.1-8b"]
    cost = roofline.costs(resolve({}, h200, llama), h200, llama, ideal=True)
    linear = 2 * llama.linear_weights * 8192 / 989.5e12
    attention = llama.attention_flops_per_pair * 8192 * 8193 / 2 / 989.5e12
    head = 2 * llama.head_weights / 4.8e12
    assert roofline.prefill_time_s(cost, 8192) == pytest.approx(linear + attention + head)


def test_weight_only_methods_win_alone_and_lose_in_crowds() -> None:
    h200, llama = hardware.HARDWARE["h200"], shapes.SHAPES["llama-3.1-8b"]
    plain, awq, fp8 = (made(h200, llama, quantization=q) for q in ("none", "awq", "fp8"))
    assert roofline.decode_time_s(awq, 1, 100) < roofline.decode_time_s(fp8, 1, 100)
    assert roofline.decode_time_s(fp8, 1, 100) < roofline.decode_time_s(plain, 1, 100)
    assert roofline.prefill_time_s(awq, 4096) > roofline.prefill_time_s(plain, 4096)
    assert roofline.prefill_time_s(fp8, 4096) < roofline.prefill_time_s(plain, 4096)


def test_eager_costs_most_where_steps_are_short() -> None:
    h200 = hardware.HARDWARE["h200"]
    for name in ("smollm2-135m", "llama-3.1-8b"):
        shape = shapes.SHAPES[name]
        graphs, eager = made(h200, shape), made(h200, shape, enforce_eager=True)
        gain = roofline.decode_time_s(eager, 1, 100) / roofline.decode_time_s(graphs, 1, 100)
        assert gain > (4 if name == "smollm2-135m" else 1.5)
    assert roofline.prefill_time_s(eager, 8192) == roofline.prefill_time_s(graphs, 8192)


def test_tensor_parallelism_helps_but_not_by_its_number() -> None:
    h100, big = hardware.HARDWARE["h100-sxm"], shapes.SHAPES["llama-3.1-70b"]
    one, four = made(h100, big), made(h100, big, tensor_parallel_size=4)
    gain = roofline.decode_time_s(one, 8, 500) / roofline.decode_time_s(four, 8, 500)
    assert 2 < gain < 4


def test_fp8_without_units_for_it_is_no_faster_at_arithmetic() -> None:
    a100, llama = hardware.HARDWARE["a100-80g"], shapes.SHAPES["llama-3.1-8b"]
    fp8, plain = made(a100, llama, quantization="fp8"), made(a100, llama)
    assert roofline.decode_time_s(fp8, 1, 100) < roofline.decode_time_s(plain, 1, 100)
    assert roofline.prefill_time_s(fp8, 4096) >= roofline.prefill_time_s(plain, 4096)


@pytest.mark.parametrize(
    ("asked", "alone", "eight"),
    [
        ({}, 28, 150),
        ({"quantization": "w8a8"}, 32.5, 161.5),
        ({"quantization": "w4a16"}, 23.5, 93),
        ({"quantization": "fp8"}, None, 12),
        ({"dtype": "float16"}, None, 24),
        ({"dtype": "float32"}, None, 83),
        ({"kv_cache_dtype": "fp8"}, None, 142),
        ({"enforce_eager": False}, None, 178),
    ],
)
def test_the_cpu_row_is_near_what_vllm_was_measured_at(
    asked: dict[str, object], alone: float | None, eight: float
) -> None:
    """Output tokens/s of vLLM 0.32.0 on two cores, SmolLM2-135M, at concurrency 1 and 8: within 20%."""
    device, shape = hardware.HARDWARE["cpu-2core"], shapes.SHAPES["smollm2-135m"]
    cost = made(device, shape, **{"max_model_len": 512, "enforce_eager": True, **asked})
    assert 8 / roofline.decode_time_s(cost, 8, 40) == pytest.approx(eight, rel=0.20)
    if alone:
        assert 1 / roofline.decode_time_s(cost, 1, 40) == pytest.approx(alone, rel=0.20)


def test_memory_is_near_what_vllm_logged_on_an_h100() -> None:
    """vllm pull request 10511: Llama-3-8B, 79.22 GiB x 0.9: weights 14.96, activations 1.26, KV 53.29 GiB."""
    h100, llama = hardware.HARDWARE["h100-sxm"], shapes.SHAPES["llama-3.1-8b"]
    asked = {"max_model_len": 8192, "max_num_seqs": 256, "max_num_batched_tokens": 8192}
    budget = memory.budget(resolve({**asked, "gpu_memory_utilization": 0.9}, h100, llama), h100, llama)
    assert budget.weights / 2**30 == pytest.approx(14.96, abs=0.01)
    assert budget.activations / 2**30 == pytest.approx(1.26, rel=0.05)
    assert budget.available / 2**30 == pytest.approx(53.29, rel=0.05)


@given(st.sampled_from(GPUS), models, methods, st.integers(1, 1024), st.floats(0.3, 1.0))
@settings(deadline=None)
def test_memory_adds_up_and_more_never_leaves_more(
    device: hardware.Hardware, shape: shapes.Shape, method: str, seqs: int, share: float
) -> None:
    asked = {"quantization": method, "max_num_seqs": seqs, "gpu_memory_utilization": share}
    budget = memory.budget(resolve(asked, device, shape), device, shape)
    assert budget.available == budget.allowed - budget.used
    assert budget.kv_tokens % budget.block_tokens == 0
    assert budget.kv_tokens * budget.kv_per_token <= max(0, budget.available)
    fuller = memory.budget(resolve({**asked, "max_num_seqs": seqs + 64}, device, shape), device, shape)
    assert fuller.available < budget.available
    halved = memory.budget(resolve({**asked, "kv_cache_dtype": "fp8"}, device, shape), device, shape)
    assert halved.kv_tokens >= budget.kv_tokens


def test_defaults_are_those_of_vllm() -> None:
    llama = shapes.SHAPES["llama-3.1-8b"]
    for gpu, seqs, tokens in (("h200", 1024, 8192), ("a100-80g", 256, 2048), ("l4", 256, 2048)):
        resolved = resolve({}, hardware.HARDWARE[gpu], llama)
        assert (resolved.max_num_seqs, resolved.max_num_batched_tokens) == (seqs, tokens)
        assert resolved.max_model_len == 131072
    assert resolve({}, hardware.HARDWARE["t4"], llama).dtype == "float16"
    assert resolve({"dtype": None, "max_num_seqs": None}, hardware.HARDWARE["h200"], llama) == Resolved(
        max_model_len=131072, max_num_seqs=1024, max_num_batched_tokens=8192
    )
