"""Times and bounds of a plan by hand: what each engine takes to be ready, and how long a point is said to last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from bench.plan.estimate import estimate_s, point_s, ready_s, throughput_bound
from bench.plan.feasibility import budget_of
from bench.plan.target import Target
from bench.point import Load, Point
from serving.config import ServingConfig
from serving.costmodel import hardware, roofline, shapes
from serving.costmodel.defaults import of_config

QWEN = shapes.SHAPES["qwen2.5-7b"]
L4 = hardware.HARDWARE["l4"]
HERE = Target("cuda", L4, QWEN)
NOWHERE = Target("cpu", None, None)


def config(**more: Any) -> ServingConfig:
    return ServingConfig(**{"engine": "vllm", "model": "m", "device": "cuda", "max_model_len": 4096, **more})


def load(**more: Any) -> Load:
    return Load(**{"workload": "chat", "input_tokens": 512, "output_tokens": 100, **more})


@pytest.mark.parametrize(
    ("engine", "device", "eager", "seconds"),
    [
        ("vllm", "cpu", True, 38.0),
        ("vllm", "cpu", False, 120.0),
        ("transformers", "cpu", False, 15.0),
        ("transformers", "cpu", True, 15.0),
        ("sim", "cpu", False, 0.3),
    ],
)
def test_seconds_until_a_server_on_a_cpu_answers(
    engine: str, device: str, eager: bool, seconds: float
) -> None:
    assert ready_s(config(engine=engine, device=device, enforce_eager=eager), HERE) == seconds


@pytest.mark.parametrize(("eager", "fixed"), [(True, 40.0), (False, 75.0)])
def test_a_gpu_also_reads_its_weights_from_disk(eager: bool, fixed: float) -> None:
    """Two bytes a parameter at 1.5 GB/s."""
    asked = config(enforce_eager=eager)
    assert ready_s(asked, HERE) == pytest.approx(fixed + QWEN.parameters * 2 / 1.5e9)
    assert ready_s(asked, Target("cuda", L4, None)) == fixed
    assert ready_s(config(engine="transformers"), Target("cuda", L4, None)) == 20.0
    assert ready_s(config(engine="sim", device="cuda"), HERE) == 0.3, "the simulated engine runs on the CPU"


def endpoint(load: Load, target: Target = HERE) -> float:
    """Seconds of a point on a running server, of which nothing is known: 100 tokens x 0.05 s = 5 s a request."""
    return point_s(
        Point(config(engine="endpoint", url="http://127.0.0.1:1", max_num_seqs=None), load), target
    )


def test_a_point_of_an_unknown_server_by_hand() -> None:
    """Requests in rounds of the concurrency, one request to drain, 1.5 s around."""
    assert endpoint(load(concurrency=4, requests=40)) == pytest.approx(40 / (4 / 5) + 5 + 1.5)
    assert endpoint(load(arrivals="poisson", rate_per_s=2.0, requests=40)) == pytest.approx(20 + 5 + 1.5)
    assert endpoint(load(concurrency=4, duration_s=30.0)) == pytest.approx(30 + 5 + 1.5)
    assert endpoint(load(concurrency=4, duration_s=30.0, requests=8)) == pytest.approx(10 + 5 + 1.5)
    assert endpoint(load(concurrency=4, requests=40, warmup_requests=9)) == pytest.approx(50 + 5 + 15 + 1.5)


def test_eight_requests_are_taken_to_run_together_where_the_load_does_not_say() -> None:
    asked = load(arrivals="poisson", rate_per_s=2.0, requests=40, warmup_requests=8)
    assert endpoint(asked) == pytest.approx(20 + 5 + 5 + 1.5)
    more = load(arrivals="poisson", rate_per_s=2.0, requests=40, warmup_requests=9)
    assert endpoint(more) == pytest.approx(20 + 5 + 10 + 1.5)


@pytest.mark.parametrize(
    ("changed", "target"),
    [
        ({}, NOWHERE),
        ({}, Target("cuda", None, QWEN)),
        ({}, Target("cuda", L4, None)),
        ({"quantization": "magic"}, HERE),
    ],
)
def test_what_is_not_known_takes_a_twentieth_of_a_second_a_token(
    changed: dict[str, Any], target: Target
) -> None:
    point = Point(config(**changed), load(concurrency=4, requests=40))
    assert point_s(point, target) == pytest.approx(50 + 5 + 1.5)


def test_no_more_run_together_than_the_engine_takes() -> None:
    few = Point(
        config(engine="endpoint", url="http://127.0.0.1:1", max_num_seqs=2), load(concurrency=8, requests=40)
    )
    assert point_s(few, HERE) == pytest.approx(40 / (2 / 5) + 5 + 1.5)


def test_a_request_by_the_roofline() -> None:
    """100 steps of four sequences at their middle length, and four prompts that are read in between."""
    resolved = of_config(config(), L4, QWEN)
    cost = roofline.costs(resolved, L4, QWEN)
    one_s = 100 * roofline.decode_time_s(cost, 4, 512 + 50) + 4 * roofline.prefill_time_s(cost, 512)
    point = Point(config(), load(concurrency=4, requests=40))
    assert point_s(point, HERE) == pytest.approx(10 * one_s + one_s + 1.5)


@dataclass
class Launch:
    config: ServingConfig
    points: tuple[Point, ...]


def test_a_plan_is_its_launches_and_points_one_after_the_other() -> None:
    points = tuple(Point(config(), load(concurrency=n, requests=40)) for n in (1, 4))
    launches = [Launch(config(), points), Launch(config(enforce_eager=True), points[:1])]
    by_hand = ready_s(launches[0].config, HERE) + ready_s(launches[1].config, HERE)
    by_hand += point_s(points[0], HERE) * 2 + point_s(points[1], HERE)
    assert estimate_s(launches, HERE) == pytest.approx(by_hand)


# --- the bound ------------------------------------------------------------------------------------


def by_hand(batch: int, fresh: int, output: int, asked: ServingConfig) -> float:
    cost = roofline.costs(of_config(asked, L4, QWEN), L4, QWEN, ideal=True)
    prefill_s = fresh * cost.linear_token_s + cost.head_token_s + cost.pair_s * fresh**2 / 2
    return batch * output / (batch * prefill_s + (output - 1) * roofline.decode_time_s(cost, batch, fresh))


def test_the_bound_takes_as_many_as_the_load_sends() -> None:
    assert throughput_bound(config(), load(concurrency=4), L4, QWEN) == pytest.approx(
        by_hand(4, 512, 100, config())
    )


def test_the_bound_takes_as_many_as_fit_beside_the_lightest_weights() -> None:
    asked = config(max_num_seqs=10_000)
    budget = budget_of(asked, L4, QWEN)
    most = int((budget.allowed - 0.98 * budget.weights) / budget.kv_per_token / 512)
    assert 1 < most < 10_000
    assert throughput_bound(asked, load(concurrency=10_000), L4, QWEN) == pytest.approx(
        by_hand(most, 512, 100, asked)
    )


def test_a_cache_of_a_given_size_bounds_what_runs_together() -> None:
    asked = config(max_num_seqs=10_000)
    per_request = budget_of(asked, L4, QWEN).kv_per_token * 512
    three = config(max_num_seqs=10_000, kv_cache_bytes=int(3.5 * per_request))
    assert throughput_bound(three, load(concurrency=64), L4, QWEN) == pytest.approx(
        by_hand(3, 512, 100, three)
    )
    none = config(max_num_seqs=10_000, kv_cache_bytes=int(0.5 * per_request))
    assert throughput_bound(none, load(concurrency=64), L4, QWEN) == pytest.approx(by_hand(1, 512, 100, none))


@pytest.mark.parametrize("cached", [{"turns": 3}, {"shared_prefix_tokens": 256}])
def test_what_may_be_cached_costs_nothing(cached: dict[str, int]) -> None:
    asked = config(max_num_seqs=64)
    found = throughput_bound(asked, load(concurrency=64, **cached), L4, QWEN)
    assert found == pytest.approx(by_hand(64, 1, 100, asked))


def test_no_more_leaves_than_one_and_a_half_times_what_arrives() -> None:
    slow = load(arrivals="poisson", rate_per_s=0.5)
    assert throughput_bound(config(), slow, L4, QWEN) == pytest.approx(0.5 * 100 * 1.5)
    ramp = load(arrivals="ramp", rate_per_s=0.5, ramp_to_per_s=40.0, duration_s=30.0)
    assert throughput_bound(config(max_num_seqs=32), ramp, L4, QWEN) > 100


def test_answers_of_one_token_have_no_decode_step() -> None:
    found = throughput_bound(config(), load(concurrency=2, output_tokens=1), L4, QWEN)
    assert found == pytest.approx(by_hand(2, 512, 1, config()))
