"""The surrogate's arithmetic by hand: encoding, kernel, process, prior, what a history tells; and hill climbing."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from search.objective import Goal
from search.result import TrialResult, key_of
from search.searchers import Hill, OptunaTpe, gaussian
from search.searchers.encode import Encoding
from search.searchers.first_guesses import recipes
from search.searchers.gaussian import NOISE, Kernel, Process, fitted, matern
from search.searchers.surrogate import Surrogate, Told, _changes, _fitted_at, log_improvement
from search.space import Axis, Space

GOAL = Goal((("cost_per_million_good_tokens", True),))
MOST = Goal((("output_token_throughput_per_s", False),))
SLO = "ttft:p50<=200ms"


# --- encoding -------------------------------------------------------------------------------------


def points(axis: Axis, *values: object) -> list[tuple[float, ...]]:
    space = Space({"one": (axis,)})
    rows = Encoding(space).points([{"engine": "one", axis.name: value} for value in values])  # type: ignore[dict-item]
    return [tuple(row) for row in rows]


def test_numbers_over_a_factor_of_eight_are_scaled_by_factors_and_others_evenly() -> None:
    assert points(Axis("a", choices=(1, 2, 8)), 1, 2, 8) == [(0, 0), (pytest.approx(1 / 3), 0), (1, 0)]
    assert points(Axis("a", choices=(1, 2, 7)), 1, 2, 7) == [(0, 0), (pytest.approx(1 / 6), 0), (1, 0)]
    assert points(Axis("a", choices=(0, 2, 80)), 2) == [(pytest.approx(1 / 40), 0)]


def test_what_is_left_to_the_engine_is_in_the_middle_and_says_so() -> None:
    assert points(Axis("a", choices=(1, 2, 8)), None) == [(0.5, 1)]
    assert points(Axis("a", choices=(1, 2, 8)), True) == [(0.5, 1)]


def test_other_values_are_corners_one_apart() -> None:
    corner = math.sqrt(0.5)
    assert points(Axis("a", choices=("x", "y")), "x", "y", None) == [
        (corner, 0, 0),
        (0, corner, 0),
        (0, 0, corner),
    ]
    assert points(Axis("a", choices=(True, False)), False) == [(0, corner, 0)]
    assert points(Axis("a", choices=(5,)), 5, None) == [(corner, 0), (0, corner)]
    mixed = points(Axis("a", choices=(5, "auto")), "auto")
    assert mixed == [(0, corner, 0)]


def test_axes_share_their_columns_among_engines_and_lengths_are_numbered() -> None:
    space = Space(
        {"one": (Axis("n", choices=(1, 2)), Axis("q", choices=("x",))), "two": (Axis("n", choices=(4,)),)}
    )
    encoding = Encoding(space)
    corner = math.sqrt(0.5)
    found = encoding.points([{"engine": "two", "n": 2}, {"engine": "one", "q": "x"}])
    assert list(encoding.groups) == [0, 0, 0, 1, 2, 3, 3]
    assert list(found[0]) == pytest.approx([0, corner, 0, 1 / 3, 0, 0, corner])
    assert list(found[1]) == pytest.approx([corner, 0, 0, 0.5, 1, corner, 0])
    assert encoding.points([]).shape == (0, 7)


# --- the process ----------------------------------------------------------------------------------

GROUPS = np.array([0, 0, 1])
POINTS = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 1.0], [1.0, 1.0, 0.2], [0.3, 0.7, 0.6]])
VALUES = np.array([1.0, 3.0, 2.0, 6.0])
TOLD_VARIANCE = np.array([0.1, 0.2, 0.0, 0.4])
KERNEL = Kernel(GROUPS, np.array([0.4, -0.3]), 0.2, math.log(0.1))


def covariance(left: np.ndarray, right: np.ndarray, lengths: np.ndarray, amplitude: float) -> np.ndarray:
    out = np.empty((len(left), len(right)))
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            d = math.sqrt(
                sum(((x - y) / math.exp(lengths[g])) ** 2 for x, y, g in zip(a, b, GROUPS, strict=True))
            )
            out[i, j] = (
                math.exp(2 * amplitude) * (1 + math.sqrt(5) * d + 5 * d * d / 3) * math.exp(-math.sqrt(5) * d)
            )
    return out


def test_the_kernel_is_matern_five_halves_with_a_length_a_group() -> None:
    assert matern(np.array([0.0, 1.0])) == pytest.approx(
        [1.0, (1 + math.sqrt(5) + 5 / 3) * math.exp(-math.sqrt(5))]
    )
    other = POINTS[:2] + 0.3
    assert KERNEL.between(POINTS, other) == pytest.approx(covariance(POINTS, other, KERNEL.lengths, 0.2))
    prior = Kernel.prior(GROUPS)
    assert (list(prior.lengths), prior.amplitude, prior.noise) == ([0.0, 0.0], 0.0, math.log(0.05))


@pytest.mark.parametrize("mean", [None, 1.5])
def test_the_process_is_the_textbooks(mean: float | None) -> None:
    """Mean k' K^-1 (y - m) and variance k - k' K^-1 k, values scaled to spread 1 (GPML, equations 2.25, 2.26)."""
    middle = VALUES.mean() if mean is None else mean
    scale = (VALUES - middle).std()
    gram = covariance(POINTS, POINTS, KERNEL.lengths, 0.2) + np.diag(TOLD_VARIANCE / scale**2 + 0.01)
    at = np.array([[0.2, 0.2, 0.2], [5.0, 5.0, 5.0]])
    cross = covariance(POINTS, at, KERNEL.lengths, 0.2)
    found, spread = Process.of(KERNEL, POINTS, VALUES, TOLD_VARIANCE, mean).at(at)
    assert found == pytest.approx(middle + scale * cross.T @ np.linalg.solve(gram, (VALUES - middle) / scale))
    left = math.exp(0.4) - np.einsum("ij,ij->j", cross, np.linalg.solve(gram, cross))
    assert spread == pytest.approx(scale * np.sqrt(left), rel=1e-6)
    assert found[1] == pytest.approx(middle, abs=0.01), "far from all it knows nothing but the mean"


def test_equal_values_have_the_scale_one() -> None:
    found = Process.of(KERNEL, POINTS, np.full(4, 2.0), np.zeros(4))
    assert (found.mean, found.scale) == (2.0, 1.0)
    assert np.isfinite(fitted(GROUPS, POINTS, np.full(4, 2.0), np.zeros(4)).lengths).all()


@pytest.mark.parametrize("mean", [None, 1.0])
def test_a_fit_is_the_most_probable_kernel_under_the_prior(mean: float | None) -> None:
    rng = np.random.default_rng(1)
    where = rng.uniform(size=(14, 3))
    values = 3 * np.sin(4 * where[:, 0]) + where[:, 2] + rng.normal(0, 0.1, 14)
    variance = np.full(14, 0.02)
    middle = values.mean() if mean is None else mean
    scale = (values - middle).std()

    def loss(theta: np.ndarray) -> float:
        lengths, amplitude, noise = theta[:2], theta[2], theta[3]
        gram = covariance(where, where, lengths, amplitude) + np.diag(
            variance / scale**2 + math.exp(2 * noise)
        )
        likely = stats.multivariate_normal.logpdf((values - middle) / scale, np.zeros(14), gram)
        prior = stats.norm.logpdf(lengths, 0.0, 0.8).sum() + stats.norm.logpdf(amplitude, 0.0, 1.0)
        return -float(likely + prior + stats.norm.logpdf(noise, math.log(0.05), 1.0))

    found = fitted(GROUPS, where, values, variance, mean)
    theta = np.array([*found.lengths, found.amplitude, found.noise])
    better = optimize.minimize(
        loss, theta, method="Nelder-Mead", options={"maxfev": 250, "xatol": 1e-3, "fatol": 1e-4}
    )
    assert loss(theta) == pytest.approx(better.fun, abs=0.01), "nothing near it is more probable"
    assert theta == pytest.approx(better.x, abs=0.1)
    assert loss(theta) < loss(np.array([0.0, 0.0, 0.0, NOISE])) - 1


def test_the_gradient_is_that_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """By differences, at places all over the bounds; and the bounds themselves."""
    caught: dict[str, Any] = {}

    def minimize(loss: Any, begin: np.ndarray, **options: Any) -> Any:
        caught.update(loss=loss, **options)
        return SimpleNamespace(x=begin)

    monkeypatch.setattr(gaussian, "minimize", minimize)
    fitted(GROUPS, POINTS, VALUES, TOLD_VARIANCE)
    for theta in ([0.0, 0.0, 0.0, -3.0], [0.7, -0.9, 0.4, -1.5], [-1.5, 1.5, -0.8, 0.5]):
        numeric = optimize.approx_fprime(np.array(theta), lambda x: caught["loss"](x)[0], 1e-6)
        assert caught["loss"](np.array(theta))[1] == pytest.approx(numeric, rel=1e-3, abs=1e-4)
    assert caught["bounds"] == [(-3.0, 4.0), (-3.0, 4.0), (-2.5, 2.5), (-7.0, 1.0)]
    assert caught["jac"]
    beyond = caught["loss"](np.array([np.nan, 0.0, 0.0, 0.0]))
    assert not beyond[0] < 1e9


# --- what a history tells -------------------------------------------------------------------------


def one(seqs: int, value: float | None, missed: float | None = None, **more: object) -> TrialResult:
    violations = {} if missed is None else {SLO: missed}
    given = {"fidelity": "full", "violations": violations, **more}
    return TrialResult({"engine": "one", "max_num_seqs": seqs}, value=value, **given)  # type: ignore[arg-type]


def test_values_are_logs_of_the_loss_with_their_relative_variance() -> None:
    history = [one(1, 2.0, -0.5, variance=0.04), one(2, None, failure="crash"), one(4, 8.0, 0.5)]
    found = Told.of(history, GOAL, ("runs", SLO))
    assert list(found.rows) == [0, 2]
    assert found.values == pytest.approx([math.log(2), math.log(8)])
    assert found.variance == pytest.approx([0.01, 0.03**2])
    assert Told.of(history, MOST, ()).values == pytest.approx([-math.log(2), -math.log(8)])
    assert Told.of([one(1, 0.5)], GOAL, ()).values == pytest.approx([math.log(0.5)])


def test_values_that_are_not_positive_stay_as_they_are() -> None:
    found = Told.of([one(1, 0.0), one(2, -2.0, variance=0.5), one(4, 3.0)], GOAL, ())
    assert list(found.values) == [0.0, -2.0, 3.0]
    assert found.variance == pytest.approx([0.0, 0.5, 0.09**2])


def test_a_promise_is_told_as_the_log_of_reached_over_limit_within_bounds() -> None:
    misses = (-0.5, 0.0, 1.0, -1.0, 99.0)
    history = [one(n, 1.0, missed) for n, missed in enumerate(misses)]
    ((name, rows, values, variance, mean),) = Told.of(history, GOAL, (SLO, "other")).promises
    assert (name, list(rows), mean) == (SLO, [0, 1, 2, 3, 4], None)
    assert values == pytest.approx([math.log(0.5), 0.0, math.log(2), -3.0, 2.5])
    assert variance == pytest.approx(np.full(5, 0.0009))


def test_what_failed_is_a_promise_of_its_own_that_most_keep() -> None:
    history = [one(1, 1.0), one(2, None, failure="crash"), one(4, None)]
    ((name, rows, values, variance, mean),) = Told.of(history, GOAL, (SLO,)).promises
    assert (name, list(rows), list(values), mean) == ("runs", [0, 1, 2], [-1.0, 1.0, -1.0], -0.5)
    assert list(variance) == [0.01] * 3
    assert Told.of(history[:1], GOAL, (SLO,)).promises == ()


def test_kernels_are_fitted_at_four_and_then_after_growth_by_fifteen_per_cent() -> None:
    at = [4, 5, 6, 7, 9, 11, 13, 15, 18, 21, 25]
    for count in range(1, 28):
        assert _fitted_at(count) == max((n for n in at if n <= count), default=count)


def test_changes_count_settings_on_either_side() -> None:
    assert _changes({"a": 1, "b": 2}, {"a": 1, "c": 3}) == 2
    assert _changes({"a": 1}, {"a": 2}) == 1
    assert _changes({"a": 1}, {"a": 1}) == 0


SPACE = Space(
    {"one": (Axis("max_num_seqs", choices=(1, 2, 4, 8, 16), default=4), Axis("quantization", choices=("none", "fp8"), default="none"),
             Axis("tensor_parallel_size", choices=(1, 2), default=1))}
)  # fmt: skip


def test_first_guesses_are_eight_bit_weights_cache_and_every_device() -> None:
    base = SPACE.default()
    assert recipes(SPACE) == [
        {**base, "quantization": "fp8"},
        {**base, "quantization": "fp8", "tensor_parallel_size": 2},
    ]


def test_after_the_guesses_one_that_is_near_the_default_and_far_from_what_was_seen() -> None:
    searcher = Surrogate(SPACE, GOAL, (), 1)
    history: list[TrialResult] = []
    for _ in range(4):
        asked = searcher.ask(history)
        assert asked is not None
        history.append(TrialResult(asked, "full", 1.0))
    base = SPACE.default()
    assert [h.config for h in history[:3]] == [base, *recipes(SPACE)]
    fourth = history[3].config
    assert _changes(fourth, base) <= 2
    assert fourth["max_num_seqs"] in (1, 16)
    assert fourth["quantization"] != "fp8" or fourth["tensor_parallel_size"] == 1


def test_stress_and_pending_looks_tell_the_surrogate_nothing_of_the_goal() -> None:
    """With four looks of which all lie, it asks as if they had not been there, but never the same again."""
    said = [TrialResult({**SPACE.default(), "max_num_seqs": n}, "full", float(n)) for n in (4, 1, 2, 8)]
    guesses = [TrialResult(g, "full", 4.0) for g in recipes(SPACE)]
    lies = [TrialResult(one.config, "stress", -100.0 * (one.value or 0)) for one in said]
    plain = Surrogate(SPACE, GOAL, (), 1)
    told = Told.of([*said, *guesses], GOAL, ())
    seen = plain._encoding.points(list(SPACE.all()))
    expected = plain._score([*said, *guesses], seen)
    asked = plain.ask([*said, *guesses, *lies])
    assert asked is not None
    assert key_of(asked) not in {key_of(one.config) for one in [*said, *guesses]}
    unseen = [
        n
        for n, s in enumerate(SPACE.all())
        if key_of(s) not in {key_of(one.config) for one in [*said, *guesses]}
    ]
    assert asked == list(SPACE.all())[max(unseen, key=lambda n: expected[n])]
    assert len(told.rows) == 6


# --- hill climbing --------------------------------------------------------------------------------


def test_hill_climbing_follows_the_first_better_neighbour_to_the_top() -> None:
    """One axis: from the default, 4, up to 16 by single steps; then from another start."""
    space = Space({"one": (Axis("max_num_seqs", choices=(1, 2, 4, 8, 16, 32), default=4),)})
    searcher, history = Hill(space, MOST, (SLO,), 3), []
    while (asked := searcher.ask(history)) is not None:
        seqs = int(str(asked["max_num_seqs"]))
        history.append(TrialResult(asked, "full", float(seqs), violations={SLO: (seqs - 16) / 16}))
    order = [int(str(h.config["max_num_seqs"])) for h in history]
    assert order[0] == 4
    assert sorted(order) == [1, 2, 4, 8, 16, 32]
    assert order.index(8) < order.index(16) < order.index(32), (
        "a better neighbour is stood on before the next is asked"
    )
    assert order[-1] == 1, "what is far from the way to the top comes last"


def test_hill_climbing_ranks_failures_behind_broken_promises_and_those_behind_kept_ones() -> None:
    hill = Hill(SPACE, GOAL, (SLO,), 0)
    kept, worse, broken = one(1, 5.0, -0.5), one(2, 6.0, 0.0), one(4, 1.0, 0.5)
    failed = one(8, None, failure="crash")
    assert sorted([failed, broken, worse, kept], key=hill._rank) == [kept, worse, broken, failed]
    assert [hill._rank(x) for x in (kept, broken, failed)] == [
        (0, 0.0, 0, 5.0),
        (0, 0.5, 0, 1.0),
        (1, 0.0, 0, 0.0),
    ]


@pytest.mark.parametrize("seqs", [(16,), (1, 16), (8, 16), (2,), (1, 2, 4, 8)])
def test_the_one_farthest_from_everything_seen_is_drawn_near_the_default(seqs: tuple[int, ...]) -> None:
    searcher = Surrogate(SPACE, GOAL, (), 1)
    base = SPACE.default()
    tried = [{**base, "max_num_seqs": n} for n in seqs] + [{**base, "quantization": "fp8"}]
    history = [TrialResult(settings, "full", 1.0) for settings in tried]
    whole = searcher._whole
    assert whole is not None
    seen = searcher._encoding.points(tried)
    asked = {key_of(settings) for settings in tried}
    left = [n for n, key in enumerate(whole.keys) if key not in asked]
    found = searcher._far(history, whole, left, np.random.default_rng(0))
    near = [n for n in left if _changes(whole.settings[n], base) <= 2]
    apart = {n: min(float(((whole.points[n] - other) ** 2).sum()) for other in seen) for n in near}
    at = next(n for n in near if whole.settings[n] == found)
    assert apart[at] == pytest.approx(max(apart.values()))


@pytest.mark.parametrize("z", [-8.0, -12.0, -30.0])
def test_far_below_the_best_the_improvement_is_its_expansion(z: float) -> None:
    """E = density(z) (1 - |z| Mills ratio) = density(z) / z^2 (1 - 3 / z^2 + 15 / z^4 ...)."""
    exact = stats.norm.logpdf(z) - 2 * math.log(-z) + math.log1p(-3 / z**2 + 15 / z**4 - 105 / z**6)
    found = log_improvement(np.array([z * 0.5]), np.array([0.5]))[0] - math.log(0.5)
    assert found == pytest.approx(exact, abs=4 / z**2)


# --- Optuna's TPE ---------------------------------------------------------------------------------


def test_optuna_is_told_values_constraints_and_failures() -> None:
    searcher = OptunaTpe(SPACE, GOAL, ("runs", SLO), 1)
    base = SPACE.default()
    history = [
        TrialResult(base, "full", 3.0, violations={SLO: 0.25}),
        TrialResult({**base, "max_num_seqs": 8}, "full", None, failure="crash"),
        TrialResult({**base, "max_num_seqs": 1}, "full", None),
    ]
    asked = searcher.ask(history)
    assert asked is not None
    assert key_of(asked) not in {key_of(one.config) for one in history}
    study = searcher._study
    assert study is not None
    first, second, third, *_ = study.get_trials()
    assert (first.state.name, first.value) == ("COMPLETE", 3.0)
    assert [t.state.name for t in (second, third)] == ["PRUNED", "PRUNED"]
    constraint = [
        {k.partition(":")[2]: v for k, v in t.system_attrs.items() if k.startswith("constraints:")}
        for t in (first, second, third)
    ]
    assert constraint == [{"runs": 0.0, SLO: 0.25}, {"runs": 1.0, SLO: 0.0}, {"runs": 1.0, SLO: 0.0}]
    assert study.direction.name == "MINIMIZE"


def test_optuna_is_told_what_is_new_and_begins_anew_with_another_history() -> None:
    searcher = OptunaTpe(SPACE, MOST, (), 1)
    base = SPACE.default()
    assert searcher.ask([]) == base
    history = [TrialResult({**base, "max_num_seqs": n}, "full", float(n)) for n in (1, 2, 8)]
    searcher.ask(history[:2])
    study = searcher._study
    searcher.ask(history)
    assert searcher._study is study
    assert study is not None
    assert study.direction.name == "MAXIMIZE"
    assert [t.value for t in study.get_trials() if t.value is not None] == [1.0, 2.0, 8.0]
    searcher.ask(history[1:])
    assert searcher._study is not study
