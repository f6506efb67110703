"""SEARCHERS: what may propose, by name. For `servetune replay`, and those named in SAMPLERS for a search.

All are asked alike (`search.evaluator.Searcher`): the whole history in, a configuration not looked at yet
out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from search.evaluator import Searcher
from search.objective import Goal
from search.result import Settings, TrialResult, key_of
from search.searchers.surrogate import Surrogate
from search.space import Space

if TYPE_CHECKING:
    from optuna.study import Study

REPEATS = 200
"""Proposals of Optuna's that were looked at before, in a row, after which one is drawn at random."""


@dataclass
class Random:
    """Uniform over what was not looked at, the default first."""

    space: Space
    goal: Goal
    constraints: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        every = list(self.space.all())
        self._order = [every[0], *(every[1 + n] for n in _shuffled(len(every) - 1, self.seed))]

    def ask(self, history: Sequence[TrialResult]) -> Settings | None:
        seen = {key_of(one.config) for one in history}
        return next((one for one in self._order if key_of(one) not in seen), None)


@dataclass
class Hill:
    """Hill climbing: neighbours of the best of this climb in random order, the first better one is the next.

    At the top, again from a random configuration. Broken promises rank behind kept ones, failures last.
    """

    space: Space
    goal: Goal
    constraints: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        every = list(self.space.all())
        self._order = [every[0], *(every[1 + n] for n in _shuffled(len(every) - 1, self.seed))]

    def ask(self, history: Sequence[TrialResult]) -> Settings | None:
        """The climbs so far are gone through again, so that only the history counts."""
        known = {key_of(one.config): self._rank(one) for one in history}
        for start in self._order:
            if key_of(start) not in known:
                return start
            here = start
            while True:
                near = self.space.neighbours(here)
                step = None
                for n in _shuffled(len(near), self.seed):
                    if key_of(near[n]) not in known:
                        return near[n]
                    if known[key_of(near[n])] < known[key_of(here)]:
                        step = near[n]
                        break
                if step is None:
                    break
                here = step
        return None

    def _rank(self, outcome: TrialResult) -> tuple[int, float, int, float]:
        missed = sum(max(0.0, v) for v in outcome.violations.values())
        loss = 0.0 if outcome.value is None else self.goal.loss(outcome.value)
        return int(outcome.failure is not None), missed, len(outcome.undetermined), loss


@dataclass
class OptunaTpe:
    """Optuna's TPE with its own defaults, constraints told; a configuration it repeats costs no look."""

    space: Space
    goal: Goal
    constraints: tuple[str, ...]
    seed: int
    _study: Study | None = field(default=None, repr=False)
    _told: list[str] = field(default_factory=list, repr=False)
    _known: dict[str, TrialResult] = field(default_factory=dict, repr=False)

    def ask(self, history: Sequence[TrialResult]) -> Settings | None:
        study = self._up_to(history)
        if not history:
            return self.space.default()
        for _ in range(REPEATS):
            trial = study.ask()
            settings = self.space.suggest(trial)
            earlier = self._known.get(key_of(settings))
            if earlier is None and self.space.problem(settings) is None:
                study.tell(trial, state=_state("FAIL"))  # told with its outcome, once that is known
                return settings
            self._tell(trial, earlier or TrialResult(settings, "full", None, failure="dropped"))
        seen = set(self._told)
        return Random(self.space, self.goal, self.constraints, self.seed + len(seen)).ask(history)

    def _up_to(self, history: Sequence[TrialResult]) -> Study:
        """The study with this history told, made anew where the history is another one."""
        import optuna

        keys = [key_of(one.config) for one in history]
        if self._study is None or keys[: len(self._told)] != self._told:
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            sampler = optuna.samplers.TPESampler(seed=self.seed)
            self._study = optuna.create_study(
                direction="minimize" if self.goal.minimize else "maximize", sampler=sampler
            )
            self._told, self._known = [], {}
        for one in history[len(self._told) :]:
            self._study.enqueue_trial(self.space.parameters(one.config))
            trial = self._study.ask()
            self.space.suggest(trial)
            self._tell(trial, one)
            self._told.append(key_of(one.config))
            self._known[key_of(one.config)] = one
        return self._study

    def _tell(self, trial: Any, outcome: TrialResult) -> None:
        assert self._study is not None
        ran = outcome.failure is None and outcome.value is not None
        for name in self.constraints:
            trial.set_constraint(name, outcome.constraint(name) if name != "runs" else 1.0 - ran)
        if ran:
            self._study.tell(trial, outcome.value)
        else:
            self._study.tell(trial, state=_state("PRUNED"))


Made = Callable[[Space, Goal, tuple[str, ...], int], Searcher]
SEARCHERS: dict[str, Made] = {
    "surrogate": Surrogate,
    "surrogate-plain": partial(Surrogate, prior=False),
    "optuna-tpe": OptunaTpe,
    "hill": Hill,
    "random": Random,
}


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def _shuffled(count: int, seed: int) -> list[int]:
    return [int(n) for n in np.random.default_rng((seed, count)).permutation(count)]
