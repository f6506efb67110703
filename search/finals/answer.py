"""Answer: what may be said of the winner when the finalists were measured again, or why nothing may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.evaluator import Certificate
from search.finals import spread
from search.finals.finals import Finals
from search.finals.spread import CONFIDENCE, LEAST_ROUNDS, Bounds, Kept, More
from search.finals.standing import Finalist
from search.objective import Goal
from search.result import Settings, TrialResult, key_of
from search.space import Space
from serving.claims import Verdict
from serving.config import ServingConfig


@dataclass(frozen=True)
class Unsettled:
    """Why there is no answer yet, and how many more rounds would give one, if any number of them would.

    on  the configuration whose promise has still to be told: its launches alone settle it; None: all of them
    """

    why: str
    more: More
    on: Settings | None = None

    def as_json(self) -> dict[str, Any]:
        more = {"estimate": self.more.middle, "low": self.more.low, "high": self.more.high}
        return {"why": self.why, "more_rounds": more, "of": self.on and dict(self.on)}


@dataclass(frozen=True)
class SearchResult:
    """`winner` None: nothing kept every promise, or `unsettled` says why. `missed`: most that a finalist that
    stands could be better, as a share of the baseline's value.

    broken  promises that the baseline surely breaks, where that and no gain makes the winner
    robust  `key_of` of each finalist that was tried on other loads -> what it showed there
    untried why the winner was not tried there, though it should have been
    """

    winner: Finalist | None
    baseline: Finalist
    standings: tuple[Finalist, ...]
    rounds: int
    missed: float | None
    unsettled: Unsettled | None = None
    broken: tuple[str, ...] = ()
    robust: Mapping[str, Sequence[RobustnessCheck]] = field(default_factory=dict)
    untried: str = ""

    @property
    def verdict(self) -> str:
        if self.unsettled is not None:
            return "not_settled"
        if self.winner is None:
            return "none_feasible"
        return "default_is_best" if self.winner.settings == self.baseline.settings else "winner"

    def as_json(self, config_of: Callable[[Settings], ServingConfig], space: Space) -> dict[str, Any]:
        """For study.json (docs/search.md). `config_of`: what would be launched for settings."""

        def one(standing: Finalist) -> dict[str, Any]:
            config = config_of(standing.settings)
            return {
                "settings": dict(standing.settings),
                "config": config.settings,
                "config_key": config.key,
                "value": standing.value,
                "feasible": standing.feasible,
                "standing": standing.state,
                "departures": space.departures(standing.settings),
                "gain": _bounds(standing.gain),
                "promises": {name: _kept(kept) for name, kept in standing.promises.items()},
                "points": [key for outcome in standing.outcomes for key in outcome.points],
                "failures": [o.failure for o in standing.outcomes if o.failure],
                "undetermined": dict(standing.undetermined),
                "accuracy": standing.certificate and standing.certificate.as_json(),
                "robust": [check.as_json() for check in self.robust.get(key_of(standing.settings), ())],
            }

        return {
            "verdict": self.verdict,
            "confidence": CONFIDENCE,
            "rounds": self.rounds,
            "missed_at_most": self.missed,
            "unsettled": self.unsettled and self.unsettled.as_json(),
            "default_breaks": list(self.broken),
            "untried": self.untried,
            "winner": self.winner and one(self.winner),
            "baseline": one(self.baseline),
            "finalists": [one(standing) for standing in self.standings],
        }


def judge(
    finals: Finals,
    chosen: Sequence[Settings],
    held: Mapping[str, list[TrialResult]],
    certificates: Mapping[str, Certificate] | None = None,
) -> SearchResult:
    """What the rounds so far allow to be said.

    chosen: the baseline first;  held: confirmations by `key_of`, one a round
    """
    rows = [tuple(held.get(key_of(s), ())) for s in chosen]
    values = [_values(row) for row in rows]
    pooled, minimize = spread.fit(values), finals.goal.minimize
    found = []
    for number, (settings, row) in enumerate(zip(chosen, rows, strict=True)):
        difference = None
        if number and pooled is not None:
            difference = spread.difference(values[number], values[0], pooled, minimize=minimize)
        gain = None
        if difference is not None and pooled is not None:
            gain = spread.bounds(difference, pooled, len(chosen) - 1, minimize=minimize)
        certificate = (certificates or {}).get(key_of(settings))
        found.append(Finalist(settings, row, gain, certificate, difference, is_baseline=not number))
    return decided(finals, found)


def decided(finals: Finals, found: Sequence[Finalist], fallen: Collection[str] = ()) -> SearchResult:
    """The answer of these, the baseline first; `fallen`: `key_of` of those that are cliffs.

    The winner is the best of those surely better than the baseline that surely keep every promise, the
    simplest of those that tie with it. Where the baseline surely breaks a promise, it is the best that
    keeps them. The default is the answer where no finalist can be better by what is worthwhile.
    """
    base, rounds = found[0], max((len(s.outcomes) for s in found), default=0)
    rivals = [s for s in found[1:] if s.stands and key_of(s.settings) not in fallen]
    beside = [base, *rivals]

    def answer(
        winner: Finalist | None, unsettled: Unsettled | None = None, *, by_default: bool = False
    ) -> SearchResult:
        most = missed(finals.goal, winner or base, beside, len(found) - 1)
        broken = tuple(base.broken) if by_default else ()
        return SearchResult(winner, base, tuple(found), rounds, most, unsettled, broken)

    better = [s for s in rivals if s.proven]
    sure = [s for s in better if s.state == "kept"]
    if sure:
        leader = max(sure, key=_estimate)
        low = leader.gain[1] if leader.gain else 0.0
        ties = [s for s in sure if _estimate(s) >= low]
        return answer(min(ties, key=lambda s: (finals.space.departures(s.settings), -_estimate(s))))
    if base.state == "broken":
        kept = [s for s in rivals if s.state == "kept" and s.value is not None]
        best = min(kept, key=lambda s: finals.goal.loss(s.value or 0.0), default=None)
        if best is None and rivals:
            return answer(None, _promise(min(rivals, key=lambda s: finals.goal.loss(s.value or 0.0))))
        return answer(best, by_default=best is not None)
    if better:
        return answer(None, _promise(max(better, key=_estimate)))
    open_ = [s for s in rivals if s.gain is None or s.gain[2] > finals.worthwhile]
    if open_ or (rivals and rounds < LEAST_ROUNDS):
        return answer(None, _gains(finals, found, open_ or rivals, rounds))
    unasked = [s for s in found[1:] if s.undecided and key_of(s.settings) not in fallen]
    if unasked:
        return answer(None, _certificate(unasked[0]))
    if base.state == "untold" and not all(o.feasible for o in base.outcomes):
        return answer(None, _promise(base))
    return answer(base)


def missed(goal: Goal, winner: Finalist, standings: Sequence[Finalist], count: int) -> float | None:
    """Most that one of these could be better than `winner`, as a share of the baseline's value.

    standings: those that stand, the baseline first;  count: comparisons that share the confidence. None:
    nobody stands beside the winner, or too few rounds.
    """
    values = {key_of(s.settings): _values(s.outcomes) for s in (*standings, winner)}
    pooled, highs = spread.fit(list(values.values())), []
    mine, base = values[key_of(winner.settings)], values[key_of(standings[0].settings)]
    paid = [a / b for a, b in zip(mine, base, strict=False) if a is not None and b is not None]
    for rival in standings[1:]:
        if pooled is None or rival.settings == winner.settings:
            continue
        found = spread.difference(values[key_of(rival.settings)], mine, pooled, minimize=goal.minimize)
        if found is not None and paid:
            high = spread.bounds(found, pooled, max(1, count), minimize=goal.minimize)[2]
            highs.append(high * sum(paid) / len(paid))
    return max(0.0, max(highs)) if highs else None


def _gains(finals: Finals, found: Sequence[Finalist], open_: Sequence[Finalist], rounds: int) -> Unsettled:
    """No finalist is surely better, and some could be."""
    pooled = spread.fit([_values(s.outcomes) for s in found])
    told = [s.difference for s in open_ if s.difference is not None]
    worth = -math.log1p(-finals.worthwhile) if finals.goal.minimize else math.log1p(finals.worthwhile)
    least = max(0, LEAST_ROUNDS - rounds)
    more = More(None, max(1, least), None)
    if told and pooled is not None:
        more = spread.more_rounds(told, pooled, len(found) - 1, worth)
    leader = max(open_, key=_estimate)
    few = f"only {rounds} of {LEAST_ROUNDS} rounds were measured, and " if least else ""
    if leader.gain is None:
        return Unsettled(f"{few}{_name(leader)} was not measured often enough to be compared", more)
    middle, low, high = leader.gain
    return Unsettled(
        f"{few}{_name(leader)} is {middle:+.1%} [{low:+.1%}, {high:+.1%}] over the default: not surely better"
        f" and not surely less than {finals.worthwhile:.1%} better",
        more,
    )


def _promise(standing: Finalist) -> Unsettled:
    """It hangs on whether this one keeps its promises."""
    who = "the default" if standing.is_baseline else _name(standing)
    untold, unknown = standing.untold, standing.undetermined
    if unknown:
        why = "; ".join(f"{name} is undetermined: {why}" for name, why in unknown.items())
        none = More(None, None, None)
        return Unsettled(f"{who} cannot be told to keep its promises: {why}", none, standing.settings)
    if not untold:
        failures = ", ".join(sorted({o.failure for o in standing.outcomes if o.failure}))
        return Unsettled(
            f"{who} could not be measured in every round: {failures}", More(None, 1, None), standing.settings
        )
    told = [
        f"{name} is {_missed(kept)}, missed in {kept.broken} of {kept.launches} launches"
        for name, kept in untold.items()
    ]
    most = max(
        (kept.more() for kept in untold.values()), key=lambda m: math.inf if m.middle is None else m.middle
    )
    lead = "is surely better than the default, but " if standing.proven else ""
    return Unsettled(
        f"{who} {lead}may or may not keep its promises: {'; '.join(told)}", most, standing.settings
    )


def _certificate(standing: Finalist) -> Unsettled:
    certificate = standing.certificate
    why = "" if certificate is None else certificate.why
    needed = certificate.floor.needed if certificate is not None and certificate.floor else None
    items = f"; {needed:,} items would settle it" if needed else ""
    return Unsettled(
        f"the accuracy of {_name(standing)} is INCONCLUSIVE: {why}{items}", More(None, None, None)
    )


def _missed(kept: Kept) -> str:
    side = "over" if kept.middle > 0 else "within"
    bounds = "" if kept.low is None or kept.high is None else f" [{kept.low:+.1%}, {kept.high:+.1%}]"
    return f"{abs(kept.middle):.1%} {side} its limit{bounds}"


def _name(standing: Finalist) -> str:
    return " ".join(f"{k}={v}" for k, v in standing.settings.items())


def _estimate(standing: Finalist) -> float:
    return -math.inf if standing.gain is None else standing.gain[0]


def _values(outcomes: Sequence[TrialResult]) -> list[float | None]:
    """A value that is not above 0 has no ratio to another."""
    return [None if o.value is None or o.value <= 0 else o.value for o in outcomes]


def _bounds(gain: Bounds | None) -> dict[str, float] | None:
    return gain and {"estimate": gain[0], "low": gain[1], "high": gain[2]}


def _kept(kept: Kept) -> dict[str, Any]:
    return {
        "state": kept.state,
        "missed_by": {"estimate": kept.middle, "low": kept.low, "high": kept.high},
        "broken": kept.broken,
        "launches": kept.launches,
    }


@dataclass(frozen=True)
class RobustnessCheck:
    """One condition. `gain` over the baseline there with its bounds, as shares; None: a value is missing."""

    condition: str
    verdict: Verdict
    why: str
    value: float | None
    gain: tuple[float, float, float] | None

    def as_json(self) -> dict[str, Any]:
        gain = self.gain
        return {
            "condition": self.condition,
            "verdict": self.verdict,
            "why": self.why,
            "value": self.value,
            "gain": gain and {"estimate": gain[0], "low": gain[1], "high": gain[2]},
        }
