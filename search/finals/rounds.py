"""Rounds: finalists and baseline measured again, in turn and on fresh launches, until one stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from search.budget import full_costs
from search.finals.answer import SearchResult, Unsettled, judge
from search.finals.finalists import ranked
from search.finals.finals import Finals
from search.finals.reserve import certificate_s, remaining_s, rounds_s, stress_s
from search.finals.spread import LEAST_ROUNDS, More
from search.finals.standing import Finalist
from search.result import Settings, TrialResult, key_of

Confirmations = dict[str, list[TrialResult]]
"""`key_of` -> confirmations, one a round."""


def conclude(finals: Finals) -> SearchResult:
    """Measures the finalists again, in turn and the other way round, until the answer is settled.

    Rounds that the budget does not pay are not begun: the answer then says what it lacks.
    """
    held = _held(finals)
    everyone = _entered(finals, held)
    chosen = list(everyone)
    answer = _judged(finals, everyone, held)
    for number in range(finals.rounds):
        missing = [s for s in chosen if len(held.get(key_of(s), ())) <= number]
        if missing and number and not _affordable(finals, missing, keep_stress=number >= LEAST_ROUNDS):
            break
        for settings in chosen if number % 2 == 0 else chosen[::-1]:
            _confirm(finals, held, settings, number)
        answer = _judged(finals, everyone, held)
        if _over(finals, answer, number + 1):
            break
        alive = {key_of(s.settings) for s in answer.standings[1:] if _alive(s, answer)}
        chosen = [s for s in chosen if key_of(s) in alive or s == everyone[0]]
    return _alone(finals, _told(finals, everyone, held, answer), everyone)


def _told(
    finals: Finals, everyone: Sequence[Settings], held: Confirmations, answer: SearchResult
) -> SearchResult:
    """Launches of one configuration alone, where all that is open is whether it keeps a promise."""
    while answer.unsettled is not None and answer.unsettled.on is not None:
        one = answer.unsettled.on
        count = len(held.get(key_of(one), ()))
        if count >= 2 * finals.rounds or not _affordable(finals, [one], keep_stress=True):
            break
        _confirm(finals, held, one, count)
        answer = _judged(finals, everyone, held)
    return answer


def _alone(finals: Finals, answer: SearchResult, everyone: Sequence[Settings]) -> SearchResult:
    """The default is no answer where nothing else was ever looked at."""
    base, history = key_of(everyone[0]), finals.log.history()
    looked = any(key_of(o.config) != base for o in history)
    if answer.verdict != "default_is_best" or looked or all(key_of(s) == base for s in finals.space.all()):
        return answer
    why = "the search ended before it looked at anything but the default"
    least = rounds_s(finals, history, 1, certificate_s(finals, history))
    if finals.budget.whole_s() and least:
        why += f", for the rounds still to come take {least:,.0f} s of the device with one finalist alone"
    return replace(answer, winner=None, unsettled=Unsettled(why, More(None, None, None)))


def _entered(finals: Finals, held: Confirmations) -> list[Settings]:
    """The baseline and the finalists, after their first round.

    Who cannot run or has no certificate makes room for the next, and so does one that breaks a promise there,
    which stays all the same: one look does not tell. At most twice as many as asked for are tried, and none
    that must answer like one that was not certified. With a budget in time or money, no more enter than
    LEAST_ROUNDS rounds can be paid for.
    """
    base, *line = ranked(finals.space, finals.goal, finals.log.history())
    entered, standing, uncertified = [base], 0, list[Settings]()
    _confirm(finals, held, base, 0)
    while line and standing < finals.finalists and len(entered) <= 2 * finals.finalists:
        candidate = line.pop(0)
        if any(finals.evaluator.answers_like(candidate, other) for other in uncertified):
            continue
        known = key_of(candidate) in held
        if len(entered) > 1 and not known and not _room(finals, [*entered, candidate]):
            finals.say(f"no more finalists: the budget does not pay {LEAST_ROUNDS} rounds of another")
            break
        _confirm(finals, held, candidate, 0)
        entered.append(candidate)
        certificate = finals.evaluator.certificates(entered).get(key_of(candidate))
        if certificate is not None and not certificate.passed:
            finals.say(f"not certified ({certificate.verdict}): {certificate.why}")
            uncertified.append(candidate)
        elif held[key_of(candidate)][0].feasible:
            standing += 1
    return entered


def _room(finals: Finals, settings: Sequence[Settings]) -> bool:
    """Whether LEAST_ROUNDS rounds of all these and the launches on other loads can still be paid."""
    history = finals.log.history()
    held_out = certificate_s(finals, history)
    needed = sum(remaining_s(finals, history, one, held_out) for one in settings) + stress_s(finals, history)
    return finals.budget.exhausted(sum(o.device_s for o in history), 0, needed) is None


def _affordable(finals: Finals, settings: Sequence[Settings], *, keep_stress: bool) -> bool:
    """Whether one more launch of each of these can be paid, what the other loads take being kept."""
    history = finals.log.history()
    costs = full_costs(history)
    usual = sum(costs.values()) / len(costs) if costs else 0.0
    needed = sum(costs.get(key_of(one), usual) for one in settings)
    needed += stress_s(finals, history) if keep_stress else 0.0
    return finals.budget.exhausted(sum(o.device_s for o in history), 0, needed) is None


def _confirm(finals: Finals, held: Confirmations, settings: Settings, number: int) -> None:
    """One confirmation, unless an earlier part of this study made it."""
    if len(held.get(key_of(settings), [])) > number:
        return
    finals.say(f"finalists, round {number + 1}: " + " ".join(f"{k}={v}" for k, v in settings.items()))
    outcome = finals.evaluator.confirm(settings)
    finals.log.append("finalist", outcome=outcome.as_json(), round=number)
    held.setdefault(key_of(settings), []).append(outcome)


def _judged(finals: Finals, chosen: Sequence[Settings], held: Confirmations) -> SearchResult:
    return judge(finals, chosen, held, finals.evaluator.certificates(chosen))


def _over(finals: Finals, answer: SearchResult, rounds: int) -> bool:
    """No further round can change what is said, or is worth it."""
    if answer.unsettled is not None:
        return answer.unsettled.more == More(None, None, None)
    if answer.winner is None or answer.verdict == "default_is_best":
        return True
    return rounds >= LEAST_ROUNDS and (answer.missed is None or answer.missed <= finals.worthwhile)


def _alive(standing: Finalist, answer: SearchResult) -> bool:
    best_low = max((s.gain[1] for s in answer.standings[1:] if s.gain and s.feasible), default=0.0)
    return standing.stands and (standing.gain is None or standing.gain[2] >= max(0.0, best_low))


def _held(finals: Finals) -> Confirmations:
    """Confirmations that an earlier part of this study made."""
    found: Confirmations = {}
    for one in finals.log.history():
        if one.fidelity == "confirm":
            found.setdefault(key_of(one.config), []).append(one)
    return found
