"""Rounds: finalists and baseline measured again, in turn and on fresh launches, until one stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from search.finals.answer import LEAST_ROUNDS, MOST_ROUNDS, Answer, Standing, judge
from search.finals.certify import Certificate
from search.finals.finalists import ranked
from search.outcome import Outcome, Settings, key_of

if TYPE_CHECKING:
    from search.loop import Loop

Held = dict[str, list[Outcome]]
"""`key_of` -> confirmations, one a round."""


@runtime_checkable
class Certifying(Protocol):
    """An oracle that asks held-out items on its confirming launches."""

    def certificates(self, finalists: Sequence[Settings]) -> dict[str, Certificate]:
        """By `key_of`, of all but the first, the baseline; empty when nothing was to be certified."""
        ...

    def answers_like(self, one: Settings, other: Settings) -> bool:
        """Whether the two differ only in settings that cannot change an output."""
        ...


def conclude(loop: Loop) -> Answer:
    """Measures the finalists again, in turn and the other way round, until the leader stands alone."""
    held = _held(loop)
    everyone = _entered(loop, held)
    chosen = list(everyone)
    for number in range(MOST_ROUNDS):
        for settings in chosen if number % 2 == 0 else chosen[::-1]:
            _confirm(loop, held, settings, number)
        answer = _judged(loop, everyone, held)
        if not any(standing.feasible for standing in answer.standings[1:]):
            break
        if number + 1 >= LEAST_ROUNDS and _separated(answer):
            break
        history = loop.log.history()
        spent = sum(o.device_s for o in history)
        each = spent / max(1, sum(o.device_s > 0 for o in history))
        if loop.budget.exhausted(spent, 0, each * len(chosen)) is not None:
            break
        alive = {key_of(s.settings) for s in answer.standings if _alive(s, answer)}
        chosen = [s for s in chosen if key_of(s) in alive or s == everyone[0]]
    return _judged(loop, everyone, held)


def _entered(loop: Loop, held: Held) -> list[Settings]:
    """The baseline and the finalists, after their first round.

    Who breaks a promise there or has no certificate makes room for the next; at most twice as many as asked
    for are tried, and none that must answer like one that was not certified.
    """
    base, *line = ranked(loop.space, loop.goal, loop.log.history())
    entered, standing, uncertified = [base], 0, list[Settings]()
    _confirm(loop, held, base, 0)
    while line and standing < loop.finalists and len(entered) <= 2 * loop.finalists:
        candidate = line.pop(0)
        if isinstance(loop.oracle, Certifying) and any(
            loop.oracle.answers_like(candidate, other) for other in uncertified
        ):
            continue
        _confirm(loop, held, candidate, 0)
        entered.append(candidate)
        certificate = _certificates(loop, entered).get(key_of(candidate))
        if certificate is not None and not certificate.passed:
            loop.say(f"not certified ({certificate.verdict}): {certificate.why}")
            uncertified.append(candidate)
        elif held[key_of(candidate)][0].feasible:
            standing += 1
    return entered


def _confirm(loop: Loop, held: Held, settings: Settings, number: int) -> None:
    """One confirmation, unless an earlier part of this study made it."""
    if len(held.get(key_of(settings), [])) > number:
        return
    loop.say(f"finalists, round {number + 1}: " + " ".join(f"{k}={v}" for k, v in settings.items()))
    outcome = loop.oracle.measure(settings, "confirm")
    loop.log.append("finalist", outcome=outcome.as_json(), round=number)
    held.setdefault(key_of(settings), []).append(outcome)


def _judged(loop: Loop, chosen: Sequence[Settings], held: Held) -> Answer:
    return judge(loop, chosen, held, _certificates(loop, chosen))


def _certificates(loop: Loop, chosen: Sequence[Settings]) -> dict[str, Certificate]:
    return loop.oracle.certificates(chosen) if isinstance(loop.oracle, Certifying) else {}


def _separated(answer: Answer) -> bool:
    """Nobody left could still beat the winner by its own bounds, or nobody could still beat the baseline."""
    if answer.winner is None:
        return True
    low = answer.winner.gain[1] if answer.winner.gain and answer.verdict == "winner" else 0.0
    rest = [s for s in answer.standings[1:] if s is not answer.winner and s.feasible and s.gain]
    return all(s.gain is not None and s.gain[2] <= max(low, 0.0) for s in rest)


def _alive(standing: Standing, answer: Answer) -> bool:
    best_low = max((s.gain[1] for s in answer.standings[1:] if s.gain and s.feasible), default=0.0)
    return standing.feasible and (standing.gain is None or standing.gain[2] >= max(0.0, best_low))


def _held(loop: Loop) -> Held:
    """Confirmations that an earlier part of this study made."""
    found: Held = {}
    for one in loop.log.history():
        if one.fidelity == "confirm":
            found.setdefault(key_of(one.config), []).append(one)
    return found
