"""The memory plan at its margins: the last byte that fits, and the first that does not, by hand.

One device of 100,000 bytes of which the engine may use 90,000; weights 50,000, 4,000 beside them; a request of 100
tokens at 10 bytes each. The weights may be 2% off, what is beside them twice the estimate.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.plan.feasibility import calibrate, judge, judge_growing
from bench.plan.target import UNCALIBRATED, MemoryCalibration
from serving.costmodel.defaults import Resolved
from serving.costmodel.memory import MemoryBudget

BUDGET = MemoryBudget(
    weights=50_000,
    buffers=500,
    activations=2_000,
    graphs=1_000,
    context=500,
    kv_per_token=10.0,
    total=100_000,
    allowed=90_000,
    available=36_000,
    kv_tokens=3_600,
    needed_tokens=100,
    max_concurrency=36.0,
    block_tokens=16,
)
PLAIN = Resolved()


def vllm(tokens: int, calibration: MemoryCalibration = UNCALIBRATED, **budget: int) -> str:
    return judge(replace(BUDGET, needed_tokens=tokens, **budget), PLAIN, calibration).verdict


def test_fits_needs_room_for_heavier_weights_and_twice_what_is_beside() -> None:
    """90,000 - 1.02 x 50,000 - 2 x 4,000 = 31,000 bytes: 3,100 tokens."""
    assert vllm(3_100) == "fits"
    assert vllm(3_101) == "unknown"


def test_a_refusal_grants_lighter_weights_and_nothing_beside() -> None:
    """90,000 - 0.98 x 50,000 = 41,000 bytes: 4,100 tokens."""
    assert vllm(4_100) == "unknown"
    assert vllm(4_101) == "does_not_fit"


def test_what_lies_between_is_said_with_both_figures() -> None:
    found = judge(replace(BUDGET, needed_tokens=3_500, kv_per_token=10.0 * 2**30, weights=50_000 * 2**30,
                          buffers=500 * 2**30, activations=2_000 * 2**30, graphs=1_000 * 2**30,
                          context=500 * 2**30, total=100_000 * 2**30, allowed=90_000 * 2**30), PLAIN)  # fmt: skip
    assert found.verdict == "unknown"
    assert found.reason == "too close to tell: up to 94000.0 GiB of 90000.0 GiB"


def test_weights_that_exceed_the_device_are_too_heavy_whatever_is_allowed() -> None:
    """2% lighter weights just fill the device: then it is one request that is too much, not the weights."""
    over = judge(replace(BUDGET, weights=103_000), PLAIN)
    assert over.verdict == "does_not_fit"
    assert over.reason.startswith("the weights alone take")
    just = judge(replace(BUDGET, weights=100_000, total=98_000), PLAIN)
    assert just.verdict == "does_not_fit"
    assert "one request of max_model_len 100 tokens" in just.reason


def test_a_cache_of_a_given_size_must_hold_one_request_and_fit_the_device() -> None:
    """100,000 - 49,000 = 51,000 bytes of KV cache are refused from the next byte on; a request of 1,000 needs as much."""

    def given(kv_cache_bytes: int) -> tuple[str, str]:
        found = judge(BUDGET, replace(PLAIN, kv_cache_bytes=kv_cache_bytes))
        return found.verdict, found.reason

    verdict, reason = given(999)
    assert verdict == "does_not_fit"
    assert "holds less than one request" in reason
    assert given(1_000)[0] == "fits"
    assert given(41_000)[0] == "fits", "100,000 - 51,000 - 8,000"
    assert given(41_001)[0] == "unknown"
    assert given(51_000)[0] == "unknown"
    verdict, reason = given(51_001)
    assert verdict == "does_not_fit"
    assert "of KV cache exceed" in reason


@pytest.mark.parametrize(("launches", "verdict"), [(2, "unknown"), (3, "does_not_fit"), (4, "does_not_fit")])
def test_three_launches_may_refuse(launches: int, verdict: str) -> None:
    assert vllm(3_200, MemoryCalibration(launches, 3.0, 3.0)) == verdict


def test_a_calibration_moves_both_margins_by_a_tenth() -> None:
    """Seen between 1.0 and 1.5 of the estimate: at least 0.9 x 4,000 beside the weights, at most 1.65 x 4,000."""
    seen = MemoryCalibration(3, 1.0, 1.5)
    assert vllm(3_240, seen) == "fits", "90,000 - 51,000 - 6,600 = 32,400"
    assert vllm(3_241, seen) == "unknown"
    assert vllm(3_740, seen) == "unknown", "90,000 - 49,000 - 3,600 = 37,400"
    assert vllm(3_741, seen) == "does_not_fit"
    reason = judge(replace(BUDGET, needed_tokens=3_741), PLAIN, seen).reason
    assert reason.startswith("as 3 launches showed")


def test_an_engine_that_grows_may_use_the_whole_device() -> None:
    """100,000 - 51,000 - 8,000 = 41,000 bytes for one request; refused for weights above 100,000 / 0.98 alone."""
    assert judge_growing(replace(BUDGET, needed_tokens=4_100)).verdict == "fits"
    longer = judge_growing(replace(BUDGET, needed_tokens=4_101))
    assert (longer.verdict, longer.budget is None) == ("unknown", False)
    assert judge_growing(replace(BUDGET, weights=100_000, total=98_000)).verdict == "unknown"
    assert judge_growing(replace(BUDGET, weights=100_001, total=98_000)).verdict == "does_not_fit"


def test_a_calibration_is_the_share_of_the_estimate_that_a_launch_took() -> None:
    """3,400 KV tokens left 90,000 - 50,000 - 34,000 = 6,000 bytes beside the weights, where 4,000 were predicted."""
    assert calibrate([(BUDGET, 3_400)]) == MemoryCalibration(1, 1.5, 1.5)
    assert calibrate([(BUDGET, 3_400), (BUDGET, 3_800), (BUDGET, 0)]) == MemoryCalibration(2, 0.5, 1.5)
    assert calibrate([(BUDGET, 1)]).launches == 1
