"""The search on one screen: baselines first, then trials until budget or sense ends them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search.budget import Budget, full_costs, hopeless, nothing_left
from search.evaluator import Evaluator, Searcher
from search.objective import Goal
from search.result import PENDING, Settings, TrialResult, best, key_of
from search.resume import MOST_ATTEMPTS, StudyLog, TrialRecord
from search.space import Space
from search.study import Study, reached
from search.trial import run_trial
from serving.config import Scalar
from serving.units import share

NEVER_TOLD = 3
"""Full looks in a row, from the first on, that leave one promise undetermined: no trial would tell it."""
TWICE = 30
"""Proposals in a row that were all seen before, after which the space counts as exhausted."""


def nothing_kept_back(history: Sequence[TrialResult]) -> float:
    """The reserve of a search without finals."""
    return 0.0


@dataclass
class Loop:
    """What a search needs. `searcher`: proposes in place of the study's sampler. `say`: one line a trial.

    reserve_s   device seconds that are kept back for what follows the trials, by the history so far
    """

    space: Space
    goal: Goal
    evaluator: Evaluator
    study: Study
    log: StudyLog
    budget: Budget
    worthwhile: float
    searcher: Searcher | None
    say: Callable[[str], None]
    reserve_s: Callable[[Sequence[TrialResult]], float] = nothing_kept_back

    def __post_init__(self) -> None:
        self.earlier = len(self.log.history())

    def run(self) -> str:
        """Trials until something ends them; returns what did. KeyboardInterrupt passes through.

        UserError when the study's storage is lost on the way: what was measured is in the log.
        """
        with reached(self.study.storage, "when it is back: servetune search ... --resume; nothing is lost"):
            return self._run()

    def _run(self) -> str:
        trials = self.log.trials()
        self.study.reconcile(trials)
        for one in trials:
            if not one.ended:
                self._again(one)
        while True:
            trials = self.log.trials()
            history = self.log.history()
            ended = self.ended(trials, history)
            if ended is not None:
                return ended
            asked = self.ask(trials, history)
            if asked is None:
                return "every configuration of the space was looked at"
            settings, params = asked
            self.log.append("asked", trial=len(trials), settings=settings, params=params, unix_s=time.time())
            self._look(len(trials), settings, history)

    def ask(
        self, trials: Sequence[TrialRecord], history: Sequence[TrialResult]
    ) -> tuple[Settings, dict[str, Scalar]] | None:
        """Settings nobody has looked at, the engines' defaults first; None when there are none left."""
        number, last = len(trials), {key_of(o.config): o for o in history}
        seen = {key_of(one.settings) for one in trials}
        fixed: Settings | None = None
        if number < len(self.space.engines):
            fixed = self.space.default(self.space.engines[number])
        elif self.searcher is not None:
            # Others that are under way, on a cluster: known to be asked, not yet what they show.
            pending = [
                TrialResult(one.settings, "screen", None, failure=PENDING)
                for one in trials[:number]
                if not one.ended
            ]
            fixed = self.searcher.ask([*history, *pending])
            if fixed is None:
                return None
        for attempt in range(TWICE if fixed is None else 0):
            settings, params = self.study.ask(number, attempt=attempt)
            dropped = self.space.problem(settings)
            if key_of(settings) not in seen and dropped is None:
                return settings, params
            self.study.discard(number, settings, last.get(key_of(settings)), dropped or "seen before")
        if fixed is None or (number >= len(self.space.engines) and key_of(fixed) in seen):
            # A sampler that only repeats itself is helped out with the first configuration not seen yet.
            fixed = next((s for s in self.space.all() if key_of(s) not in seen), None)
        return None if fixed is None else self.study.ask(number, fixed)

    def _again(self, one: TrialRecord) -> None:
        """A trial that a kill interrupted: once more, then it counts as lost."""
        if one.attempts >= MOST_ATTEMPTS:
            lost = TrialResult(
                one.settings, "screen", None, failure="lost", detail="interrupted twice while it ran"
            )
            self.keep(one.trial, [lost])
            return
        self.log.append(
            "asked", trial=one.trial, settings=one.settings, params=one.params, unix_s=time.time()
        )
        self._look(one.trial, one.settings, self.log.history())

    def _look(self, number: int, settings: Settings, history: Sequence[TrialResult]) -> None:
        baseline = key_of(settings) == key_of(self.space.default(str(settings["engine"])))
        self.keep(number, run_trial(self.evaluator, self.goal, history, settings, baseline=baseline))

    def keep(self, number: int, looks: Sequence[TrialResult]) -> None:
        for position, one in enumerate(looks, 1):
            self.log.append("outcome", trial=number, outcome=one.as_json(), last=position == len(looks))
        self.study.tell(number, looks[-1])
        self.say(self.line(number, looks[-1]))

    def line(self, number: int, outcome: TrialResult) -> str:
        """Trial, what it showed, the incumbent, and what is left to spend."""
        history = self.log.history()
        incumbent = best(history, minimize=self.goal.minimize)
        shown = " ".join(f"{k}={v}" for k, v in outcome.config.items())
        if outcome.failure is not None:
            told = f"{outcome.failure}: {outcome.detail}"
        else:
            broken = ", ".join(f"{name} by {share(by)}" for name, by in outcome.broken.items())
            short = outcome.fidelity == "screen"
            told = f"{outcome.value:.5g}" + (f", breaks {broken}" if broken else "")
            # A short look leaves promises open by design; of the full load it is news.
            if outcome.undetermined and not short:
                told += ", undetermined: " + ", ".join(f"{k}: {w}" for k, w in outcome.undetermined.items())
            told += " (short look)" if short else ""
        leader = "none yet" if incumbent is None else f"{incumbent.value:.5g}"
        left = self.budget.left(sum(o.device_s for o in history), looked_at(self.log.trials()))
        return f"trial {number}: {shown}: {told} | best {leader} | left: {left}"

    def ended(self, trials: Sequence[TrialRecord], history: Sequence[TrialResult]) -> str | None:
        """Why it ends here; None: go on."""
        spent = sum(o.device_s for o in history)
        launched = [o for o in history if o.launched and o.device_s > 0]
        each = sum(o.device_s for o in launched) / len(launched) if launched else 0.0
        never = never_told(history)
        if never is not None:
            return never
        reserve = self.reserve_s(history)
        # One more trial may get a full look, as slow as the slowest so far.
        reserve += max(full_costs(history).values(), default=0.0) if self.budget.whole_s() else 0.0
        full = hopeless(history[self.earlier :]) or self.budget.exhausted(
            spent, looked_at(trials), reserve, "the finals"
        )
        if full is not None:
            return full
        looks_left = self._looks_left(spent + reserve, trials, each)
        return nothing_left(self._gains(history), looks_left, self.worthwhile)

    def _looks_left(self, spent_s: float, trials: Sequence[TrialRecord], each_s: float) -> float:
        left = [float(self.space.size - len(trials))]
        if self.budget.trials is not None:
            left.append(self.budget.trials - looked_at(trials))
        if self.budget.seconds is not None and each_s > 0:
            left.append((self.budget.seconds - spent_s) / each_s)
        return max(0.0, min(left))

    def _gains(self, history: Sequence[TrialResult]) -> list[float]:
        """Gains over the baseline, best look of each configuration, in the order first seen."""
        base = next((o.value for o in history if o.fidelity == "full" and o.value), None)
        if base is None:
            return []
        last = {key_of(o.config): o for o in history if o.feasible}
        return [self.goal.gain(o.value, base) for o in last.values() if o.value is not None]


def never_told(history: Sequence[TrialResult]) -> str | None:
    """Why no trial can be told to keep every promise; None while one may be.

    The baseline's accuracy is what every other is held against; a load that is too short for a percentile
    in the first full looks is too short for all.
    """
    full = [o for o in history if o.fidelity == "full" and o.failure is None]
    accuracy = full[0].undetermined.get("accuracy") if full else None
    if accuracy is not None:
        return f"the accuracy of the default cannot be told, so none can be held against it: {accuracy}"
    if len(full) < NEVER_TOLD:
        return None
    for name, why in full[0].undetermined.items():
        if all(name in o.undetermined for o in full):
            return f"{name} is undetermined in all {len(full)} full looks ({why}): make the load longer"
    return None


def looked_at(trials: Sequence[TrialRecord]) -> int:
    """Trials that count against a budget of trials: not those refused before a launch."""
    return sum(not one.ended or one.outcomes[-1].launched for one in trials)
