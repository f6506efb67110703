"""Study: Optuna asked and told. Its storage is what `optuna-dashboard` opens; `study.jsonl` is the truth.

Three habits of Optuna 5 that this file is about: a trial without a recorded constraint counts as feasible,
so every trial answers for every constraint; NaN is refused; a trial told as failed teaches nothing, so a
failure is a pruned trial whose constraint `runs` is broken.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from search.objective import Goal
from search.result import Settings, TrialResult
from search.resume import TrialRecord
from search.space import UNSET, Space
from serving.config import Scalar
from serving.errors import UserError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.study import Study as OptunaStudy
    from optuna.trial import Trial

STARTUP = 8
"""Random trials before a model is trusted."""


def _tpe(space: Space, seed: int) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=STARTUP, constant_liar=True)


def _gp(space: Space, seed: int) -> BaseSampler:
    from optuna.samplers import GPSampler

    if find_spec("torch") is None:
        raise UserError("sampler gp needs torch, which servetune does not bring", "--sampler tpe")
    return GPSampler(seed=seed, n_startup_trials=STARTUP)


def _nsga2(space: Space, seed: int) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=12)


def _random(space: Space, seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _grid(space: Space, seed: int) -> BaseSampler:
    from optuna.samplers import GridSampler

    axes = space.axes[space.engines[0]]
    if len(space.engines) > 1 or any(axis.kind != "categorical" for axis in axes):
        raise UserError(
            "sampler grid needs one engine and lists of values", "--sampler brute takes any space"
        )

    class Grid(GridSampler):
        def after_trial(self, *told: object) -> None:
            """At the end of its grid it would stop a loop of Optuna's, which ask-and-tell has not."""

    return Grid({a.name: [UNSET if v is None else v for v in a.levels] for a in axes}, seed=seed)


def _brute(space: Space, seed: int) -> BaseSampler:
    from optuna.samplers import BruteForceSampler

    class Brute(BruteForceSampler):
        def after_trial(self, *told: object) -> None:
            """As above."""

    return Brute(seed=seed)


SAMPLERS: dict[str, Callable[[Space, int], BaseSampler]] = {
    "tpe": _tpe,
    "gp": _gp,
    "nsga2": _nsga2,
    "random": _random,
    "grid": _grid,
    "brute": _brute,
    "surrogate": _random,
}
"""`surrogate` proposes itself (`search.searchers.surrogate`) and Optuna keeps its trials."""


@dataclass
class Study:
    """One Optuna study over a Space, for a Goal, under named constraints."""

    optuna: OptunaStudy
    space: Space
    goal: Goal
    constraints: tuple[str, ...]
    sampler: str
    seed: int
    storage: str
    running: dict[int, Trial] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        storage: str,
        name: str,
        space: Space,
        goal: Goal,
        constraints: tuple[str, ...],
        sampler: str,
        seed: int,
    ) -> Study:
        """Creates it or goes on with it. UserError when the storage cannot be reached."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        directions: list[Literal["minimize", "maximize"]] = [
            "minimize" if minimize else "maximize" for _, minimize in goal.metrics
        ]
        try:
            with reached(storage, "--storage URL, or leave it away", OSError, ImportError):
                made = optuna.create_study(
                    storage=_storage(storage), study_name=name, directions=directions, load_if_exists=True
                )
        except ValueError as error:
            raise UserError(f"study {name}: {error}", "another --out, or another --storage") from error
        made.set_metric_names([metric for metric, _ in goal.metrics])
        return cls(made, space, goal, constraints, sampler, seed, storage)

    def ask(
        self, number: int, settings: Settings | None = None, attempt: int = 0
    ) -> tuple[Settings, dict[str, Scalar]]:
        """The settings of trial `number` and their parameters; `settings`: those, whoever disagrees.

        The seed is that of the number, so that a resumed study asks what an uninterrupted one would.
        """
        seed = ((self.seed * 100_003 + number) * 101 + attempt) % 2**32
        self.optuna.sampler = SAMPLERS[self.sampler](self.space, seed)
        if settings is not None:
            self.optuna.enqueue_trial(self.space.parameters(settings))
        trial = self.optuna.ask()
        trial.set_user_attr("trial", number)
        self.running[number] = trial
        return self.space.suggest(trial), dict(trial.params)

    def discard(self, number: int, settings: Settings, earlier: TrialResult | None, why: str) -> None:
        """The running trial of this number is not looked at: it repeats `earlier`, or a rule drops it."""
        trial = self._trial(number, settings)
        del self.running[number]
        trial.set_user_attr("discarded", why)
        trial.set_user_attr("trial", None)
        self._finish(trial, earlier or TrialResult(settings, "screen", None, failure="dropped", detail=why))

    def tell(self, number: int, outcome: TrialResult) -> None:
        """The last look of a trial."""
        self._finish(self._trial(number, outcome.config), outcome)
        del self.running[number]

    def _finish(self, trial: Trial, outcome: TrialResult) -> None:
        from optuna.trial import TrialState

        broken = {name: outcome.constraint(name) for name in self.constraints}
        broken["runs"] = 0.0 if outcome.failure is None and outcome.value is not None else 1.0
        for name, value in broken.items():
            trial.set_constraint(name, value)
        trial.set_user_attr("settings", dict(outcome.config))
        trial.set_user_attr("fidelity", outcome.fidelity)
        trial.set_user_attr("seconds", dict(outcome.seconds))
        trial.set_user_attr("points", list(outcome.points))
        if outcome.variance is not None:
            trial.set_user_attr("variance", outcome.variance)
        if outcome.failure is not None:
            trial.set_user_attr("failure", outcome.failure)
            trial.set_user_attr("detail", outcome.detail)
        if outcome.undetermined:
            trial.set_user_attr("undetermined", dict(outcome.undetermined))
        if outcome.simulated:
            trial.set_user_attr("simulated", True)
        single = len(self.goal.metrics) == 1
        if outcome.value is None or outcome.failure is not None:
            self.optuna.tell(trial, state=TrialState.PRUNED)
        elif outcome.fidelity == "screen":
            # Pruned, so that a short look is never the best trial of the study; samplers learn its value.
            if single:
                trial.report(outcome.value, step=0)
            self.optuna.tell(trial, state=TrialState.PRUNED)
        else:
            self.optuna.tell(
                trial, [outcome.values.get(metric, outcome.value) for metric, _ in self.goal.metrics]
            )

    def reconcile(self, trials: Sequence[TrialRecord]) -> None:
        """Brings the storage up to the log: it is told what it missed; trials that the log has not fail."""
        from optuna.trial import Trial, TrialState

        asked = {one.trial for one in trials}
        known = set()
        for frozen in self.optuna.get_trials(deepcopy=False):
            number = frozen.user_attrs.get("trial")
            if frozen.state.is_finished():
                known.add(number)
            elif frozen.state == TrialState.RUNNING and number in asked:
                self.running[number] = Trial(self.optuna, frozen._trial_id)
            else:
                # Not by `tell`, which takes no trial that was enqueued and never asked for.
                self.optuna._storage.set_trial_state_values(frozen._trial_id, TrialState.FAIL)
        for one in trials:
            if one.ended and one.trial not in known:
                self.tell(one.trial, one.outcomes[-1])

    def _trial(self, number: int, settings: Settings) -> Trial:
        """The running trial of this number; a new one with its parameters where the storage lost it."""
        if number not in self.running:
            self.ask(number, settings)
        return self.running[number]


@contextmanager
def reached(storage: str, hint: str, *others: type[Exception]) -> Iterator[None]:
    """Turns what a storage raises when it cannot be reached, and `others`, into a UserError."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    lost: tuple[type[Exception], ...] = (StorageInternalError, SQLAlchemyError, *others)
    try:
        yield
    except lost as error:
        # Some of these quote the connection with its password.
        cause = str(error.__cause__ or error).strip().split("\n")[0]
        raise UserError(f"storage {_hidden(storage)}: {_hidden(cause)}", hint) from error


def default_storage(folder: Path) -> str:
    return f"sqlite:///{folder / 'study.db'}"


def _storage(url: str) -> BaseStorage | str:
    """A URL of SQLAlchemy as it is; `journal:PATH` is Optuna's own journal file."""
    if not url.startswith("journal:"):
        return url
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(url.removeprefix("journal:")))


def _hidden(url: str) -> str:
    """The URL without its password."""
    import re

    return re.sub(r"(://[^:/@]+):[^@]*@", r"\1:***@", url)
