"""The oracle that launches, on the simulated engine: one server a look, short looks first, nothing measured twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.engine_evaluator import EngineEvaluator, short
from serving.errors import UserError
from tests.support.sim_search import COST, oracle


def launches(made: EngineEvaluator) -> int:
    return sum(event["event"] == "launch" for event in made.folder.events())


def test_a_promoted_look_is_one_launch_and_a_repeat_costs_none(tmp_path: Path) -> None:
    made = oracle(tmp_path)
    settings = {"engine": "sim", "quantization": "fp8"}
    screen, full = made.evaluate(settings, lambda screen: True)
    assert (screen.fidelity, full.fidelity) == ("screen", "full")
    assert full.feasible
    assert full.simulated
    assert not set(screen.points) & set(full.points)
    assert launches(made) == 1
    assert full.seconds["measure"] > 0
    again = made.evaluate(settings, lambda screen: True)[-1]
    assert launches(made) == 1  # every point is held: nothing is started
    assert again.value == full.value
    confirmed = made.confirm(settings)
    assert launches(made) == 2
    assert set(confirmed.points).isdisjoint(full.points)


def test_a_demoted_look_ends_after_its_short_load(tmp_path: Path) -> None:
    made = oracle(tmp_path)
    looks = made.evaluate({"engine": "sim", "quantization": "none"}, lambda screen: False)
    assert [look.fidelity for look in looks] == ["screen"]
    assert looks[0].value is not None
    assert looks[0].device_s > 0
    assert made.folder.done() == set(looks[0].points)


def test_what_cannot_fit_is_refused_with_its_reason(tmp_path: Path) -> None:
    made = oracle(tmp_path, gpu="t4")
    refused = made.refusal({"engine": "sim", "quantization": "none"}, None)
    assert refused is not None
    assert refused.failure == "does_not_fit"
    assert "GiB" in refused.detail
    assert not refused.launched
    assert made.refusal({"engine": "sim", "quantization": "w4a16"}, None) is None


@pytest.mark.parametrize(
    ("goal", "currency", "said"),
    [(COST, "EUR", "EUR"), ("maximize happiness", "USD", "no metric happiness")],
)
def test_a_goal_that_cannot_be_is_the_users_to_fix(
    tmp_path: Path, goal: str, currency: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        oracle(tmp_path, goal=goal, currency=currency)


def test_a_short_look_is_a_share_of_the_load_but_not_nothing(tmp_path: Path) -> None:
    load = oracle(tmp_path).loads()[0]
    assert short(load, 0.25).requests == 16
    assert short(load, 0.01).requests == 8
