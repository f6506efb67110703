"""Shares of the physical limit, held against a run whose bytes and operations are counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.metrics import METRICS
from bench.metrics.utilization import attained, binds
from bench.metrics.view import View
from bench.plan.target import recorded
from bench.records.model import Run
from serving.costmodel.hardware import HARDWARE
from serving.costmodel.shapes import SHAPES
from tests.support.synthetic import point, record

H200, LLAMA = HARDWARE["h200"], SHAPES["llama-3.1-8b"]
TPOT_S, TTFT_S, TOKENS = 0.010, 0.1, 20


def run(**changes: object) -> Run:
    """Fourteen and a half requests in flight, 128 tokens in, 20 out, 10 ms a token."""
    records = tuple(record(i, i * 0.02) for i in range(700))
    made = point(arrivals="constant", rate_per_s=50, requests=700)
    config = made.config.model_copy(update={"quantization": "none", **changes})
    return Run(point=replace(made, config=config), records=records, load_end_s=14.0)


def shares(view: View) -> dict[str, float | None]:
    return {name: METRICS[name].of(view) for name in METRICS if name.split("_")[0] in ("decode", "prefill")}


def test_shares_are_bytes_and_operations_over_what_the_device_can():
    found = shares(View(run(), place=(H200, LLAMA)))
    flight, context = 14.5, 128 + 10
    weights = (LLAMA.linear_weights + LLAMA.head_weights) * 2
    cache = flight * context * LLAMA.kv_bytes_per_token()
    step_s = (weights + cache) / 4.3e12
    prompt = 128 * 2 * LLAMA.linear_weights + LLAMA.attention_flops_per_pair * 128 * 128 / 2
    assert found["decode_bandwidth_share"] == pytest.approx(step_s / TPOT_S, rel=0.01)
    assert found["prefill_compute_share"] == pytest.approx(prompt / 790e12 / TTFT_S, rel=0.01)
    assert found["decode_floor_share"] == pytest.approx(1000 / flight * step_s, rel=0.02)
    assert found["prefill_floor_share"] == pytest.approx(50 * prompt / 790e12, rel=0.02)


def test_fewer_bits_are_fewer_bytes():
    whole = shares(View(run(), place=(H200, LLAMA)))["decode_bandwidth_share"]
    half = shares(View(run(quantization="fp8"), place=(H200, LLAMA)))["decode_bandwidth_share"]
    assert whole is not None
    assert half is not None
    assert 0.5 < half / whole < 0.6, "the head and the cache keep their sixteen bits"


@pytest.mark.parametrize(
    "view",
    [
        View(run()),
        View(run(), place=(HARDWARE["cpu-2core"], LLAMA)),
        View(run(quantization="unheard-of"), place=(H200, LLAMA)),
        View(run(extra_args={"speculative-config": "{}"}), place=(H200, LLAMA)),
        View(replace(run(), records=()), place=(H200, LLAMA)),
    ],
    ids=["no device", "a CPU", "unknown bytes", "several tokens a step", "nothing measured"],
)
def test_nothing_is_said_where_the_limit_is_not_known(view: View):
    assert set(shares(view).values()) == {None}
    assert binds(shares(view)) is None


def test_what_binds_is_named_and_overhead_is_not_physics():
    assert binds({"decode_floor_share": 0.7, "prefill_floor_share": 0.1}) == (
        "memory bandwidth in decode binds (70% of the time)"
    )
    assert "matrix rate in prefill binds" in str(
        binds({"decode_floor_share": 0.1, "prefill_floor_share": 0.6})
    )
    assert "80%" in str(binds({"decode_floor_share": 0.2, "prefill_floor_share": None}))


def test_a_device_without_measured_rates_is_held_against_its_data_sheet():
    assert attained(HARDWARE["l4"]) == HARDWARE["l4"]
    assert attained(H200).bandwidth_bytes_per_s < H200.bandwidth_bytes_per_s


def test_the_device_is_that_of_the_run_not_of_this_machine(model_of_scenario):
    gpus = [{"name": "NVIDIA H200", "memory_bytes": H200.memory_bytes}]
    there = recorded({"device": "cuda", "environment": {"gpus": gpus}}, model_of_scenario)
    assert there.hardware is not None
    assert there.hardware.name == "h200"
    assert recorded({"device": "cpu", "environment": {"gpus": gpus}}, model_of_scenario).hardware is None
    assert recorded({}, model_of_scenario).hardware is None


@pytest.fixture
def model_of_scenario():
    from bench.scenario.model import Model

    return Model(name="m", path="nowhere", shape="llama-3.1-8b")
