"""Surrogate: proposes by a model of the goal, of every promise and of what fails, learned from the history.

Expected improvement (Jones et al., 1998) times the probability that every promise is kept (Gardner et al.,
"Bayesian optimization with inequality constraints", 2014), over every configuration not looked at yet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from scipy.special import log_ndtr, ndtr

from search.objective import Goal
from search.result import PENDING, Settings, TrialResult, key_of
from search.searchers.encode import Encoding
from search.searchers.first_guesses import recipes
from search.searchers.gaussian import Kernel, Matrix, Process, fitted
from search.space import Space, made

DESIGN = 4
"""Looks before the models are asked: the default, recipes, then some that are far from each other."""
NEAR = 2
"""Settings by which those differ from the default."""
WHOLE = 10_000
"""Spaces up to this size are gone through whole."""
DRAWN, BEST = 5_000, 5
"""Of larger ones so many are drawn for each proposal, and the neighbours of so many of the best looks."""
SPREAD = 0.03
"""Of a launch whose variance was not told, as a share; the model learns what is beyond."""
FLOOR, CEILING = -3.0, 2.5
"""Bounds of log(reached / limit): beyond them how much a promise is kept or broken teaches nothing."""
TOLD = ("screen", "full", "confirm")
"""Looks under the scenario's own load; others say nothing of the goal."""
GROWTH = 1.15
"""Kernels are fitted again when the history has grown by this factor."""


@dataclass
class Surrogate:
    """Searcher (`search.evaluator`). Answers depend on history and seed alone; the rest is a cache."""

    space: Space
    goal: Goal
    constraints: tuple[str, ...]
    seed: int
    prior: bool = True
    _kernels: dict[tuple[str, str], Kernel] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._encoding = Encoding(self.space)
        every = list(islice(self.space.all(), WHOLE + 1))
        self._whole = _Candidates.of(every, self._encoding) if len(every) <= WHOLE else None
        self._recipes = recipes(self.space) if self.prior else []

    def ask(self, history: Sequence[TrialResult]) -> Settings | None:
        """The next configuration; None when every one of the space was looked at."""
        seen = {key_of(one.config) for one in history}
        for first in (self.space.default(), *self._recipes):
            if key_of(first) not in seen:
                return first
        source = np.random.default_rng((self.seed, len(history)))
        candidates = self._whole or self._drawn(history, source)
        left = [number for number, key in enumerate(candidates.keys) if key not in seen]
        if not left:
            return None
        if len(seen) < DESIGN:
            return self._far(history, candidates, left, source)
        told = [one for one in history if one.fidelity in TOLD and one.failure != PENDING]
        score = self._score(told, candidates.points[left])
        return candidates.settings[left[int(np.argmax(score + source.uniform(0, 1e-9, len(score))))]]

    def _drawn(self, history: Sequence[TrialResult], source: np.random.Generator) -> _Candidates:
        """Of a space too large to go through: DRAWN at random, and what is near the best looks so far."""
        good = sorted((o for o in history if o.feasible), key=lambda o: self.goal.loss(o.value or 0.0))
        near = [one for o in good[:BEST] for one in self.space.neighbours(o.config)]
        for _ in range(DRAWN):
            engine = self.space.engines[int(source.integers(len(self.space.engines)))]
            axes = self.space.axes[engine]
            one = made(engine, {a.name: a.levels[int(source.integers(len(a.levels)))] for a in axes})
            if self.space.problem(one) is None:
                near.append(one)
        return _Candidates.of(list({key_of(one): one for one in near}.values()), self._encoding)

    def _far(self, history: Sequence[TrialResult], candidates: _Candidates, left: Sequence[int],
             source: np.random.Generator) -> Settings:  # fmt: skip
        """Of some near the default the one farthest from everything seen."""
        base = self.space.default()
        near = [n for n in left if _changes(candidates.settings[n], base) <= NEAR] or left
        seen = self._encoding.points([one.config for one in history])
        drawn = source.choice(near, min(len(near), 40), replace=False)
        apart = ((candidates.points[drawn][:, None, :] - seen[None, :, :]) ** 2).sum(2).min(1)
        return candidates.settings[int(drawn[int(np.argmax(apart))])]

    def _score(self, history: Sequence[TrialResult], points: Matrix) -> Matrix:
        """Log of expected improvement times probability of feasibility; of that alone while nothing is."""
        told = Told.of(history, self.goal, self.constraints)
        until = _fitted_at(len(history))
        seen = self._encoding.points([one.config for one in history])
        keep: Matrix = np.zeros(len(points))
        for name, rows, values, variance, mean in told.promises:
            process = self._process(name, until, history, seen, rows, values, variance, mean)
            middle, spread = process.at(points)
            keep += log_ndtr(-middle / spread)
        if not len(told.rows):
            return keep
        process = self._process("value", until, history, seen, told.rows, told.values, told.variance, None)
        middle, spread = process.at(points)
        feasible = [row for row in told.rows if history[row].feasible]
        if not feasible:
            return keep
        best = float(process.at(seen[feasible])[0].min())
        score: Matrix = keep + log_improvement(best - middle, spread)
        return score

    def _process(self, name: str, until: int, history: Sequence[TrialResult], seen: Matrix, rows: Matrix,
                 values: Matrix, variance: Matrix, mean: float | None) -> Process:  # fmt: skip
        early = rows < until
        if early.sum() < 3:
            kernel = Kernel.prior(self._encoding.groups)
        else:
            at = name, f"{until}:{key_of(history[until - 1].config)}"
            if at not in self._kernels:
                self._kernels[at] = fitted(
                    self._encoding.groups, seen[rows[early]], values[early], variance[early], mean
                )
            kernel = self._kernels[at]
        return Process.of(kernel, seen[rows], values, variance, mean)


@dataclass(frozen=True)
class _Candidates:
    settings: list[Settings]
    keys: list[str]
    points: Matrix

    @classmethod
    def of(cls, settings: list[Settings], encoding: Encoding) -> _Candidates:
        return cls(settings, [key_of(one) for one in settings], encoding.points(settings))


@dataclass(frozen=True)
class Told:
    """What a history says, in numbers: rows of it, log of the goal's loss, variances; and of each promise."""

    rows: Matrix
    values: Matrix
    variance: Matrix
    promises: tuple[tuple[str, Matrix, Matrix, Matrix, float | None], ...]

    @classmethod
    def of(cls, history: Sequence[TrialResult], goal: Goal, constraints: Sequence[str]) -> Told:
        ran = [(n, o, o.value) for n, o in enumerate(history) if o.failure is None and o.value is not None]
        logs = all(value > 0 for _, _, value in ran)
        sign = 1.0 if goal.minimize else -1.0
        values = np.array([sign * (math.log(v) if logs else v) for _, _, v in ran])
        variance = np.array([_variance(o, v, logs) for _, o, v in ran])
        rows = np.array([n for n, _, _ in ran], dtype=int)
        promises: list[tuple[str, Matrix, Matrix, Matrix, float | None]] = []
        for name in constraints:
            have = [(n, o.violations[name]) for n, o, _ in ran if name in o.violations]
            if not have:
                continue
            reached = np.array([min(CEILING, max(FLOOR, math.log(max(1e-9, 1 + v)))) for _, v in have])
            spread = np.full(len(have), SPREAD**2)
            promises.append((name, np.array([n for n, _ in have]), reached, spread, None))
        if len(ran) < len(history):
            failed = np.array([-1.0 if o.failure is None else 1.0 for o in history])
            promises.append(("runs", np.arange(len(history)), failed, np.full(len(history), 0.01), -0.5))
        return cls(rows, values, variance, tuple(promises))


def log_improvement(gain: Matrix, spread: Matrix) -> Matrix:
    """Log of the expected improvement where the mean is better by `gain`, stable far below the best."""
    z = gain / spread
    direct = z * ndtr(z) + np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    # For z below -6 the direct form cancels; its expansion is density(z) / z^2.
    tail = -0.5 * z * z - 0.5 * math.log(2 * math.pi) - 2 * np.log(np.maximum(-z, 1.0))
    found: Matrix = np.log(spread) + np.where(z > -6, np.log(np.maximum(direct, 1e-300)), tail)
    return found


def _variance(outcome: TrialResult, value: float, logs: bool) -> float:
    if outcome.variance is not None:
        return outcome.variance / value**2 if logs else outcome.variance
    return SPREAD**2 if logs else (SPREAD * value) ** 2


def _fitted_at(count: int) -> int:
    """The last length of a growing history at which kernels are fitted, at most `count`."""
    at = 4
    while True:
        following = max(at + 1, math.ceil(at * GROWTH))
        if following > count:
            return min(at, count)
        at = following


def _changes(settings: Settings, base: Settings) -> int:
    return sum(settings.get(name) != base.get(name) for name in {*settings, *base})
