"""What is said to have mattered did, and what cannot be told is not said."""

from __future__ import annotations

import random

import numpy as np
import pytest

from search.explain import effects, explained, lines, omega_squared, paired
from search.result import Settings, TrialResult
from tests.support.search_fixture import CONSTRAINTS, GOAL, SPACE


def trials(count: int, seed: int = 1, effect: float = 4.0, noise: float = 0.05) -> list[TrialResult]:
    """Cost that `quantization` moves and nothing else."""
    draw, found = random.Random(seed), []
    for _ in range(count):
        settings: Settings = {"engine": "one", "quantization": draw.choice(["none", "fp8"])}
        settings = {**settings, "max_num_seqs": draw.choice([4, 8, 16])}
        value = (10.0 - effect * (settings["quantization"] == "fp8")) * draw.gauss(1, noise)
        found.append(TrialResult(settings, "full", value, violations={"ttft:p50<=200ms": -0.5}))
    return found


def test_the_setting_that_moved_the_value_is_first_and_its_interval_is_told() -> None:
    found = effects(SPACE, trials(40))
    assert found[0]["setting"] == "quantization"
    assert found[0]["told"]
    assert 0.8 < found[0]["low"] <= found[0]["effect"] <= found[0]["high"] <= 1
    others = {one["setting"]: one for one in found[1:]}
    assert others["max_num_seqs"]["effect"] < 0.2
    assert others["max_num_batched_tokens"]["effect"] is None, "it never varied"


def test_of_few_trials_nothing_is_said() -> None:
    few = explained(SPACE, GOAL, CONSTRAINTS, trials(6), None)
    assert not any(one["told"] for one in few["settings"])
    assert lines(few) == ["which setting mattered cannot be told from 6 trials"]


def test_when_nothing_matters_nothing_is_said_to() -> None:
    said = 0
    for seed in range(60):
        told = [s for s in effects(SPACE, trials(30, seed, effect=0.0)) if s["told"] and s["low"] > 0]
        said += bool(told)
    assert said <= 9, "5% of the low ends of two settings, and what a bootstrap is worth at 30 trials"


def test_omega_squared_is_that_of_the_textbook() -> None:
    levels, values = ["a"] * 3 + ["b"] * 3, np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert omega_squared(levels, values) == pytest.approx((13.5 - 1.0) / (17.5 + 1.0))
    assert omega_squared(["a"] * 4, values[:4]) is None


def test_promises_say_what_they_cost() -> None:
    slo = "ttft:p50<=200ms"
    seen = [
        TrialResult({"engine": "one"}, "full", 9.0, violations={slo: -0.2, "accuracy": 0.0}),
        TrialResult(
            {"engine": "one", "max_num_seqs": 64}, "full", 5.0, violations={slo: 0.3, "accuracy": 0.0}
        ),
        TrialResult(
            {"engine": "one", "max_num_seqs": 99}, "full", 4.0, violations={slo: 0.3, "accuracy": 0.1}
        ),
        TrialResult({"engine": "one", "quantization": "broken"}, "full", None, failure="oom_at_launch"),
    ]
    told = explained(SPACE, GOAL, ("runs", slo, "accuracy"), seen, None)
    by_name = {one["promise"]: one for one in told["promises"]}
    assert by_name["runs"] == {"promise": "runs", "broken": 1, "alone": 1, "best_without": None}
    assert by_name[slo] == {"promise": slo, "broken": 2, "alone": 1, "best_without": 5.0}
    assert by_name["accuracy"]["alone"] == 0
    assert f"what bound: runs in 1, {slo} in 1" in lines(told)


def test_a_setting_of_the_winner_is_compared_only_with_what_was_seen() -> None:
    winner: Settings = {"engine": "one", "quantization": "fp8", "max_num_seqs": 64}
    seen = [
        TrialResult(winner, "full", 4.0),
        TrialResult({"engine": "one", "quantization": "none", "max_num_seqs": 64}, "full", 5.0),
    ]
    found = {one["setting"]: one["gain_over_without"] for one in paired(SPACE, GOAL, seen, winner)}
    assert found == {"quantization": pytest.approx(0.2), "max_num_seqs": None}
