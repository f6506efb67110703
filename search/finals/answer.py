"""Answer: what may be said of the winner when the finalists were measured again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from search.finals.certify import Certificate
from search.outcome import Outcome, Settings, key_of
from search.space import Space

if TYPE_CHECKING:
    from rich.console import Console

    from search.finals.robust import Check
    from search.loop import Loop
    from search.measured import Measured
    from search.objective import Goal

CONFIDENCE = 0.95
LEAST_ROUNDS = 3
MOST_ROUNDS = 6
LOOKS = MOST_ROUNDS - LEAST_ROUNDS + 1
"""After each of these rounds it may be over, so that each look gets its share of the chance to be wrong."""


@dataclass(frozen=True)
class Standing:
    """One finalist after its rounds. `gain` over the baseline of the same round, as a share, with its bounds.

    outcomes  its confirmations, the round of each being its place;  `gain` None: less than two rounds
    certificate  of its accuracy; None: the scenario has no floor, or it is the baseline
    """

    settings: Settings
    outcomes: tuple[Outcome, ...]
    gain: tuple[float, float, float] | None
    certificate: Certificate | None = None

    @property
    def feasible(self) -> bool:
        """Every confirmation kept every promise, and the held-out answers passed."""
        certified = self.certificate is None or self.certificate.passed
        return certified and bool(self.outcomes) and all(o.feasible for o in self.outcomes)

    @property
    def value(self) -> float | None:
        values = [o.value for o in self.outcomes if o.value is not None]
        return sum(values) / len(values) if values else None


@dataclass(frozen=True)
class Answer:
    """`winner` None: nothing kept every promise. `missed`: most that a finalist that stands could be better.

    robust: `key_of` of each finalist that was tried on other loads -> what it showed there
    """

    winner: Standing | None
    baseline: Standing
    standings: tuple[Standing, ...]
    rounds: int
    missed: float | None
    robust: Mapping[str, Sequence[Check]] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        if self.winner is None:
            return "none_feasible"
        return "default_is_best" if self.winner.settings == self.baseline.settings else "winner"

    def as_json(self, oracle: Measured, space: Space) -> dict[str, Any]:
        def one(standing: Standing) -> dict[str, Any]:
            config = oracle.config(standing.settings)
            gain = standing.gain
            return {
                "settings": dict(standing.settings),
                "config": config.settings,
                "config_key": config.key,
                "value": standing.value,
                "feasible": standing.feasible,
                "departures": space.departures(standing.settings),
                "gain": gain and {"estimate": gain[0], "low": gain[1], "high": gain[2]},
                "points": [key for outcome in standing.outcomes for key in outcome.points],
                "failures": [o.failure for o in standing.outcomes if o.failure],
                "accuracy": standing.certificate and standing.certificate.as_json(),
                "robust": [check.as_json() for check in self.robust.get(key_of(standing.settings), ())],
            }

        return {
            "verdict": self.verdict,
            "confidence": CONFIDENCE,
            "rounds": self.rounds,
            "missed_at_most": self.missed,
            "winner": self.winner and one(self.winner),
            "baseline": one(self.baseline),
            "finalists": [one(standing) for standing in self.standings],
        }


def judge(
    loop: Loop,
    chosen: Sequence[Settings],
    held: Mapping[str, list[Outcome]],
    certificates: Mapping[str, Certificate] | None = None,
) -> Answer:
    """The winner: best of those surely better than the baseline, the simplest of those that tie with it.

    chosen: the baseline first;  held: confirmations by `key_of`, one a round
    """
    base = held.get(key_of(chosen[0]), [])
    count = max(1, len(chosen) - 1)
    found = [
        _standing(loop, s, held.get(key_of(s), []), base, count, (certificates or {}).get(key_of(s)))
        for s in chosen
    ]
    rivals = [s for s in found[1:] if s.feasible and s.gain is not None]
    better = [s for s in rivals if s.gain and s.gain[1] > 0]
    rounds = max((len(s.outcomes) for s in found), default=0)
    if better:
        leader = max(better, key=lambda s: s.gain[0] if s.gain else 0.0)
        low = leader.gain[1] if leader.gain else 0.0
        ties = [s for s in better if s.gain and s.gain[0] >= low]
        winner = min(ties, key=lambda s: (loop.space.departures(s.settings), -(s.gain or (0.0,))[0]))
        return Answer(winner, found[0], tuple(found), rounds, missed(loop.goal, winner, found))
    if found[0].feasible:
        return Answer(found[0], found[0], tuple(found), rounds, missed(loop.goal, found[0], found))
    alone = [s for s in found[1:] if s.feasible]
    best = min(alone, key=lambda s: loop.goal.loss(s.value or math.inf), default=None)
    return Answer(best, found[0], tuple(found), rounds, None)


def missed(goal: Goal, winner: Standing, standings: Sequence[Standing]) -> float | None:
    """Most that one of these which stands could be better than `winner`, as a share of the baseline's value.

    standings: the baseline first. By the differences of the rounds that both were measured in; None: nobody
    stands beside the winner, or too few rounds.
    """
    base, count = standings[0], max(1, len(standings) - 1)
    highs = []
    for rival in standings[1:]:
        if not rival.feasible or rival is winner:
            continue
        rounds = zip(rival.outcomes, winner.outcomes, base.outcomes, strict=False)
        found = interval(
            [
                goal.gain(mine.value, zero.value) - goal.gain(theirs.value, zero.value)
                for mine, theirs, zero in rounds
                if mine.value is not None and theirs.value is not None and zero.value is not None
            ],
            count,
        )
        if found is not None:
            highs.append(found[2])
    return max(0.0, max(highs)) if highs else None


def _standing(
    loop: Loop,
    settings: Settings,
    mine: Sequence[Outcome],
    base: Sequence[Outcome],
    count: int,
    certificate: Certificate | None,
) -> Standing:
    gains = [
        loop.goal.gain(ours.value, theirs.value)
        for ours, theirs in zip(mine, base, strict=False)
        if ours.value is not None and theirs.value is not None and ours is not theirs
    ]
    return Standing(settings, tuple(mine), interval(gains, count), certificate)


def interval(gains: Sequence[float], count: int) -> tuple[float, float, float] | None:
    """Mean and Student bounds at CONFIDENCE, Bonferroni over `count` finalists and LOOKS."""
    if len(gains) < 2:
        return None
    from scipy import stats

    mean = sum(gains) / len(gains)
    error = math.sqrt(sum((g - mean) ** 2 for g in gains) / (len(gains) - 1) / len(gains))
    reach = float(stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / count / LOOKS, len(gains) - 1)) * error
    return mean, mean - reach, mean + reach


def _show_accuracy(out: Console, finalist: dict[str, Any], won: bool) -> None:
    """What its certificate says: of the winner in any case, of the others when it is why they are out."""
    from rich.markup import escape

    accuracy = finalist["accuracy"]
    if accuracy is None or (accuracy["verdict"] == "PASS" and not won):
        return
    name = "" if won else " ".join(f"{k}={v}" for k, v in finalist["settings"].items()) + ": "
    items = f" on {accuracy['items']:,} held-out items" if accuracy["items"] else ""
    why = f": {accuracy['why']}" if accuracy["why"] else ""
    needed = accuracy["items_needed"]
    more = f"; {needed:,} items would settle it" if needed and accuracy["verdict"] == "INCONCLUSIVE" else ""
    out.print(f"  {escape(name)}accuracy {accuracy['verdict']}{items}{escape(why)}{more}")


def _show_robust(out: Console, finalist: dict[str, Any], won: bool) -> None:
    """On how many other loads it stood, and what it fell on."""
    from rich.markup import escape

    checks = finalist["robust"]
    if not checks:
        return
    name = "" if won else " ".join(f"{k}={v}" for k, v in finalist["settings"].items()) + ": "
    stood = sum(check["verdict"] == "PASS" for check in checks)
    out.print(f"  {escape(name)}on other loads, lengths and prompts: {stood} of {len(checks)} PASS")
    for check in checks:
        if check["verdict"] != "PASS":
            out.print(f"    {escape(check['condition'])}: {check['verdict']}, {escape(check['why'])}")


def show(written: dict[str, Any]) -> None:
    """The answer on stdout, then what it cost."""
    from rich.console import Console
    from rich.markup import escape

    from search.explain import lines

    out = Console(highlight=False)
    if written["simulated"]:
        out.print("[bold reverse] SIMULATED [/] nothing simulated may be deployed")
    out.print(f"[bold]{escape(written['scenario'])}[/]: {escape(written['question'])}")
    metric, winner = written["goal"][0]["metric"], written["winner"]
    if winner is None:
        out.print("no configuration kept every promise")
        out.print(f"  the search ended: {escape(written['ended'])}")
    elif written["verdict"] == "default_is_best":
        missed = written["missed_at_most"]
        bound = (
            ""
            if missed is None
            else f"; of the finalists that stand, none is more than {max(0.0, missed):.1%} better"
        )
        out.print(f"the default is best: {metric} {winner['value']:.5g}{bound}")
    else:
        shown = " ".join(f"{k}={v}" for k, v in winner["settings"].items())
        out.print(f"[bold green]{escape(shown)}[/]: {metric} {winner['value']:.5g}")
        gain = winner["gain"]
        if gain:
            bounds = f"{gain['estimate']:+.1%} [{gain['low']:+.1%}, {gain['high']:+.1%}] over the default"
            sure = f"{written['confidence']:.0%} confidence, {written['rounds']} rounds on fresh launches"
            out.print(f"  {bounds}, {sure}")
    for finalist in written["finalists"]:
        won = finalist["settings"] == (winner or {}).get("settings")
        _show_accuracy(out, finalist, won)
        _show_robust(out, finalist, won)
    for line in lines(written["explained"]):
        out.print(f"  {escape(line)}")
    spent = written["ledger"]
    parts = ", ".join(f"{name} {seconds / spent['total']:.0%}" for name, seconds in spent.items()
                      if name != "total" and spent["total"])  # fmt: skip
    out.print(
        f"{written['trials']} trials, {written['launches']} launches, {spent['total']:,.0f} s: {parts}",
        style="dim",
    )
    for name, count in written["failures"].items():
        out.print(f"  {count} x {name}", style="dim")
