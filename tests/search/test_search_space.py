"""What a search may propose: axes from a scenario, defaults, departures, rules, and Optuna's view of them."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.scenario.model import GridRule
from search.result import TrialResult, from_json, key_of
from search.space import Axis, Space
from tests.support.search_fixture import SPACE

SEQS = Axis("max_num_seqs", "int", low=4, high=100, log=True)


def test_levels_are_doublings_with_both_ends_and_the_default() -> None:
    assert SEQS.levels == (None, 4, 8, 16, 32, 64, 100)
    assert Axis("max_num_seqs", "int", low=4, high=16, log=True, default=8).levels == (4, 8, 16)


def test_a_named_default_is_no_departure() -> None:
    space = Space({"vllm": (Axis("quantization", choices=("none", "fp8"), default="none"), SEQS)})
    assert space.default() == {"engine": "vllm", "quantization": "none"}
    assert space.departures(space.default()) == 0
    assert space.departures({"engine": "vllm", "quantization": "fp8", "max_num_seqs": 8}) == 2


def test_rules_drop_combinations_but_never_the_default() -> None:
    rule = GridRule(drop={"max_num_seqs": "> 8"}, because="too many")
    space = Space({"vllm": (SEQS,)}, (rule,))
    assert [s.get("max_num_seqs") for s in space.all()] == [None, 4, 8]
    assert space.problem({"engine": "vllm", "max_num_seqs": 16}) == "too many"
    assert all(n["max_num_seqs"] <= 8 for n in space.neighbours({"engine": "vllm", "max_num_seqs": 8}))  # type: ignore[operator]


def test_all_lists_each_configuration_once_and_size_counts_them() -> None:
    found = [key_of(s) for s in SPACE.all()]
    assert len(found) == len(set(found)) == SPACE.size == 10 * 3 * 3 + 3


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_what_is_enqueued_is_what_is_asked(seed: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    first = SPACE.suggest(study.ask())
    study.enqueue_trial(SPACE.parameters(first))
    assert SPACE.suggest(study.ask()) == first


def test_options_of_one_engine_are_not_asked_of_another() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(20):
        chosen = SPACE.suggest(study.ask())
        names = {axis.name for axis in SPACE.axes[str(chosen["engine"])]}
        assert set(chosen) <= names | {"engine"}


@pytest.mark.parametrize("failure", [None, "oom_at_launch"])
def test_an_outcome_is_read_back_as_it_was(failure: str | None) -> None:
    value = None if failure else 2.0
    one = TrialResult({"engine": "vllm"}, "full", value, 0.1, {"a": -0.5}, failure, {"launch": 1.0}, ("abc",))
    assert from_json(one.as_json()) == one
    assert one.feasible is (failure is None)
