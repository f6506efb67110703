"""What every row of SEARCHERS keeps, and what the surrogate is better at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.scenario.model import GridRule
from search.evaluator import Searcher
from search.objective import Goal
from search.replay.grid_evaluator import GridEvaluator
from search.result import TrialResult, best, key_of
from search.searchers import SEARCHERS
from search.searchers.encode import Encoding
from search.searchers.first_guesses import recipes
from search.searchers.gaussian import Kernel, Process, fitted
from search.searchers.surrogate import Surrogate, log_improvement
from search.space import Axis, Space
from tests.support import search_fixture
from tests.support.replay_fixture import CONSTRAINTS, GOAL, SPACE, cell, grid

NAMES = sorted(SEARCHERS)
RULED = Space(
    SPACE.axes,
    (
        GridRule(drop={"quantization": "awq", "max_num_seqs": 8}, because="test"),
        GridRule(drop={"max_num_seqs": 128}, because="test"),
    ),
)


def asked(
    searcher: Searcher, count: int, space: Space = SPACE, *, failing: bool = False
) -> list[TrialResult]:
    history: list[TrialResult] = []
    for _ in range(count):
        one = searcher.ask(history)
        if one is None:
            break
        told = cell(one)
        value = None if failing else told.value
        failure = "oom_at_launch" if failing else told.failure
        history.append(TrialResult(one, "full", value, violations=told.violations, failure=failure))
    return history


def keys(history: Sequence[TrialResult]) -> list[str]:
    return [key_of(one.config) for one in history]


@pytest.mark.parametrize("name", NAMES)
def test_the_default_is_first_and_nothing_is_proposed_twice(name: str) -> None:
    found = keys(asked(SEARCHERS[name](SPACE, GOAL, CONSTRAINTS, 3), 25))
    assert found[0] == key_of(SPACE.default())
    assert len(set(found)) == 25


@pytest.mark.parametrize("name", NAMES)
def test_rules_are_kept(name: str) -> None:
    for one in asked(SEARCHERS[name](RULED, GOAL, CONSTRAINTS, 1), 18, RULED):
        assert RULED.problem(one.config) is None


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_asks_the_same_also_when_started_again_in_the_middle(name: str) -> None:
    first = asked(SEARCHERS[name](SPACE, GOAL, CONSTRAINTS, 7), 18)
    assert keys(asked(SEARCHERS[name](SPACE, GOAL, CONSTRAINTS, 7), 18)) == keys(first)
    if name != "optuna-tpe":  # Optuna's sampler draws on from where it stands
        resumed = SEARCHERS[name](SPACE, GOAL, CONSTRAINTS, 7)
        following = resumed.ask(first[:15])
        assert following is not None
        assert key_of(following) == keys(first)[15]


@pytest.mark.parametrize("name", NAMES)
def test_other_seeds_ask_otherwise(name: str) -> None:
    runs = {tuple(keys(asked(SEARCHERS[name](SPACE, GOAL, CONSTRAINTS, seed), 8))) for seed in range(3)}
    assert len(runs) > 1


@pytest.mark.parametrize("name", NAMES)
def test_a_history_of_failures_only_is_survived(name: str) -> None:
    assert len(set(keys(asked(SEARCHERS[name](SPACE, GOAL, CONSTRAINTS, 2), 20, failing=True)))) == 20


@pytest.mark.parametrize("name", NAMES)
def test_a_space_is_exhausted_and_then_nothing_is_left(name: str) -> None:
    small = Space(
        {"sim": (SPACE.axes["sim"][0], SPACE.axes["sim"][3], Axis("max_num_seqs", choices=(8, 16)))}
    )
    searcher = SEARCHERS[name](small, GOAL, CONSTRAINTS, 5)
    history = asked(searcher, 100, small)
    assert len(history) == small.size == 18
    assert searcher.ask(history) is None


def test_the_surrogate_learns_what_fails_and_what_breaks_a_promise() -> None:
    found, kept, asked_for = grid(), 0, 0
    cells = list(found.cells.values())
    assert sum(one.feasible for one in cells) / len(cells) < 0.6
    for seed in range(3):
        drawn = np.random.default_rng(seed).permutation(len(cells))[:40]
        searcher, oracle = Surrogate(SPACE, GOAL, CONSTRAINTS, seed, prior=False), GridEvaluator(found, seed)
        history = [oracle.measure(cells[n].settings, "full") for n in drawn]
        if key_of(SPACE.default()) not in keys(history):
            history.append(oracle.measure(SPACE.default(), "full"))
        for _ in range(4):
            one = searcher.ask(history)
            assert one is not None
            history.append(oracle.measure(one, "full"))
            kept += found.cells[key_of(one)].feasible
            asked_for += 1
    assert kept / asked_for > 0.8


@pytest.mark.parametrize("minimize", [True, False])
def test_the_surrogate_goes_the_right_way(minimize: bool) -> None:
    goal = Goal((("x", minimize),))
    axes = (Axis("max_num_seqs", choices=tuple(2**n for n in range(12)), default=1),
            Axis("max_num_batched_tokens", choices=tuple(2**n for n in range(12)), default=1))  # fmt: skip
    space = Space({"e": axes})
    searcher, history = Surrogate(space, goal, ("runs",), 1), list[TrialResult]()
    for _ in range(18):
        one = searcher.ask(history)
        assert one is not None
        x, y = (np.log2(float(str(one[a.name]))) for a in axes)
        cost = 10 + (x - 7) ** 2 + (y - 4) ** 2
        history.append(TrialResult(one, "full", cost if minimize else 100 / cost))
    reached = [o.value or 0.0 for o in history]
    assert (min(reached) <= 11) if minimize else (max(reached) >= 100 / 11)


def test_the_surrogate_beats_random_on_the_small_grid() -> None:
    found = grid()

    def regret(name: str, seed: int) -> float:
        searcher, oracle, history = (
            SEARCHERS[name](SPACE, GOAL, CONSTRAINTS, seed),
            GridEvaluator(found, seed),
            list[TrialResult](),
        )
        for _ in range(14):
            one = searcher.ask(history)
            assert one is not None
            history.append(oracle.measure(one, "full"))
        return min(found.regret(found.cells[key_of(o.config)]) for o in history)

    ours = [regret("surrogate-plain", seed) for seed in range(6)]
    theirs = [regret("random", seed) for seed in range(6)]
    assert np.mean(ours) < np.mean(theirs) / 2


def test_two_thousand_configurations_are_gone_through_in_no_time() -> None:
    axes = tuple(Axis(f"a{n}", choices=(1, 2, 3, 4, 5), default=1) for n in range(4))
    space = Space({"e": (*axes, Axis("b", choices=("x", "y", "z"), default="x"))})
    searcher, history = Surrogate(space, GOAL, ("runs", "slo"), 1), list[TrialResult]()
    source, took = np.random.default_rng(1), []
    for _ in range(30):
        start = time.process_time()
        one = searcher.ask(history)
        took.append(time.process_time() - start)
        assert one is not None
        history.append(
            TrialResult(one, "full", float(source.uniform(1, 2)), violations={"slo": float(source.normal())})
        )
    assert space.size == 1875
    assert np.median(took) < 0.3


def test_a_search_goes_by_the_surrogate_and_optuna_keeps_its_trials(tmp_path: Path) -> None:
    made = search_fixture.loop(tmp_path, 14)
    made.searcher = Surrogate(search_fixture.SPACE, search_fixture.GOAL, search_fixture.CONSTRAINTS, 1)
    made.run()
    trials = made.log.trials()
    assert len({key_of(one.settings) for one in trials}) == len(trials) == 14
    kept = made.study.optuna.get_trials(deepcopy=False)
    assert [dict(one.user_attrs["settings"]) for one in kept] == [dict(one.settings) for one in trials]
    found = best(made.log.history(), minimize=True)
    assert found is not None
    assert found.config["quantization"] == "fp8"


def test_recipes_are_departures_that_the_space_has() -> None:
    assert recipes(SPACE) == [{"engine": "sim", "quantization": "fp8"}]
    assert recipes(Space({"e": (Axis("max_num_seqs", choices=(1, 2)),)})) == []


def test_numbers_that_are_near_are_near_as_points() -> None:
    rows = Encoding(SPACE).points([
        {"engine": "sim", "quantization": "none", "max_num_seqs": n} if n else SPACE.default() for n in (8, 16, 128, 0)
    ])  # fmt: skip
    apart = ((rows[0] - rows[1:]) ** 2).sum(1)
    assert apart[0] < apart[1]
    assert apart[2] > apart[0]


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_process_passes_through_what_it_was_told_without_noise(seed: int) -> None:
    source = np.random.default_rng(seed)
    points = source.uniform(0, 1, (8, 2))
    values = np.sin(3 * points[:, 0]) + points[:, 1]
    kernel = Kernel(np.array([0, 1]), np.zeros(2), 0.5, -7.0)
    mean, spread = Process.of(kernel, points, values, np.zeros(8)).at(points)
    assert np.abs(mean - values).max() < 0.02
    assert spread.max() < 0.05


def test_fitting_finds_the_axis_that_matters() -> None:
    points = np.random.default_rng(1).uniform(0, 1, (40, 2))
    kernel = fitted(np.array([0, 1]), points, np.sin(6 * points[:, 0]), np.full(40, 1e-4))
    assert kernel.lengths[0] < kernel.lengths[1] - 1


def test_the_gradient_that_fitting_follows_is_right() -> None:
    """A wrong gradient stops early: the fit is then no better than a coarse look around it."""
    points = np.random.default_rng(2).uniform(0, 1, (25, 2))
    values = np.sin(5 * points[:, 0]) + 0.3 * points[:, 1]

    def error(kernel: Kernel) -> float:
        fresh = np.random.default_rng(3).uniform(0, 1, (50, 2))
        mean, _ = Process.of(kernel, points, values, np.full(25, 1e-4)).at(fresh)
        return float(np.abs(mean - np.sin(5 * fresh[:, 0]) - 0.3 * fresh[:, 1]).mean())

    groups = np.array([0, 1])
    assert error(fitted(groups, points, values, np.full(25, 1e-4))) < 1.2 * min(
        error(Kernel(groups, np.array([a, b]), 0.0, -4.0))
        for a in (-2.0, -1.0, 0.0, 1.0)
        for b in (-1.0, 0.0, 1.0, 2.0)
    )


@given(st.floats(-40, 10), st.floats(0.01, 10))
def test_log_improvement_is_that_of_the_definition(gain: float, spread: float) -> None:
    from scipy import integrate, stats

    found = float(log_improvement(np.array([gain]), np.array([spread]))[0])
    z = gain / spread
    if z > -5:
        direct, _ = integrate.quad(
            lambda x: max(0.0, x) * stats.norm.pdf(x, gain, spread), 0, gain + 12 * spread
        )
        assert found == pytest.approx(np.log(direct), abs=1e-3)
    else:
        assert found < float(log_improvement(np.array([-4.9 * spread]), np.array([spread]))[0])
