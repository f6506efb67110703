"""Robust: does the winner still win when load, lengths and prompts are not quite those of the search?

Winner and baseline are each launched once more and tried on the conditions of `search.finals.stress`. The
winner is a cliff where it fails, breaks a promise that the baseline keeps, or is surely worse than the
baseline, and then the next best takes its place. How much launches differ is taken from the finalists'
rounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from search.finals.answer import RobustnessCheck, SearchResult, decided
from search.finals.finals import Finals
from search.finals.reserve import stress_s
from search.finals.spread import CONFIDENCE
from search.finals.standing import Finalist
from search.result import Settings, TrialResult, from_json, key_of


def settle(finals: Finals, answer: SearchResult) -> SearchResult:
    """The answer when cliffs have lost: what the rounds say of those that are left."""
    checked: dict[str, tuple[RobustnessCheck, ...]] = {}
    fallen: set[str] = set()
    while answer.verdict == "winner" and answer.winner is not None:
        standing, like = answer.winner, answer.winner.outcomes[0]
        if not _paid(finals, standing, answer.baseline):
            untried = "not tried on other loads: the budget does not pay for it"
            finals.say(untried)
            return replace(answer, robust=checked, untried=untried)
        base = _tried(finals, answer.baseline, like)
        mine = _tried(finals, standing, like)
        found = tuple(checks(finals, standing, answer.baseline, mine, base))
        checked[key_of(standing.settings)] = found
        cliff = next((c for c in found if c.verdict == "FAIL"), None)
        if cliff is None:
            break
        fallen.add(key_of(standing.settings))
        finals.say(f"a cliff: {_shown(standing.settings)}: {cliff.condition}: {cliff.why}")
        answer = decided(finals, answer.standings, fallen)
    return replace(answer, robust=checked)


def _paid(finals: Finals, *standings: Finalist) -> bool:
    """Whether what was not tried yet can still be paid."""
    history = finals.log.history()
    if all(_held(finals, one.settings) for one in standings):
        return True
    return finals.budget.exhausted(sum(o.device_s for o in history), 0, stress_s(finals, history)) is None


def checks(
    finals: Finals,
    standing: Finalist,
    baseline: Finalist,
    mine: Mapping[str, TrialResult],
    base: Mapping[str, TrialResult],
) -> list[RobustnessCheck]:
    """One a condition that both were tried on."""
    shared = [name for name in mine if name in base]
    reach = _reach(finals, standing, baseline, len(shared))
    return [_check(finals, name, mine[name], base[name], reach) for name in shared]


def _check(
    finals: Finals, name: str, mine: TrialResult, base: TrialResult, reach: float | None
) -> RobustnessCheck:
    gain = None
    if mine.value is not None and base.value is not None:
        middle = finals.goal.gain(mine.value, base.value)
        gain = None if reach is None else (middle, middle - reach, middle + reach)
    broken = [promise for promise, by in mine.violations.items() if by > 0]
    told = [promise for promise in broken if base.failure is None and promise not in base.undetermined]
    lost = [promise for promise in told if base.violations.get(promise, 0.0) <= 0]
    if mine.failure is not None:
        both = base.failure is not None
        return RobustnessCheck(
            name, "INCONCLUSIVE" if both else "FAIL", f"{mine.failure}: {mine.detail}", None, gain
        )
    if lost:
        why = f"breaks {', '.join(lost)}, which the default keeps"
        return RobustnessCheck(name, "FAIL", why, mine.value, gain)
    if gain is not None and gain[2] < 0:
        return RobustnessCheck(name, "FAIL", f"{-gain[0]:.1%} worse than the default", mine.value, gain)
    if broken:
        how = "as the default does" if set(broken) <= set(told) else "where the default cannot be told"
        return RobustnessCheck(name, "INCONCLUSIVE", f"breaks {', '.join(broken)}, {how}", mine.value, gain)
    if mine.undetermined:
        why = ", ".join(f"{promise}: {why}" for promise, why in mine.undetermined.items())
        return RobustnessCheck(name, "INCONCLUSIVE", f"undetermined: {why}", mine.value, gain)
    if mine.detail:  # of a look that did not fail: what of it is not settled
        return RobustnessCheck(name, "INCONCLUSIVE", mine.detail, mine.value, gain)
    if gain is None or gain[0] < 0:
        why = (
            "the default has no value to compare with" if gain is None else "no better than the default here"
        )
        return RobustnessCheck(name, "INCONCLUSIVE", why, mine.value, gain)
    return RobustnessCheck(name, "PASS", "", mine.value, gain)


def _reach(finals: Finals, standing: Finalist, baseline: Finalist, conditions: int) -> float | None:
    """Half the interval of one gain: by the spread of the rounds' gains, for all conditions together."""
    gains = [
        finals.goal.gain(ours.value, theirs.value)
        for ours, theirs in zip(standing.outcomes, baseline.outcomes, strict=False)
        if ours.value is not None and theirs.value is not None
    ]
    if len(gains) < 2 or conditions == 0:
        return None
    from scipy import stats

    mean = sum(gains) / len(gains)
    spread = math.sqrt(sum((g - mean) ** 2 for g in gains) / (len(gains) - 1))
    return float(stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / conditions, len(gains) - 1)) * spread


def _tried(finals: Finals, standing: Finalist, like: TrialResult) -> Mapping[str, TrialResult]:
    """What an earlier part of this study measured, else a launch of its own now."""
    held = _held(finals, standing.settings)
    if held:
        return held
    finals.say(f"other loads: {_shown(standing.settings)}")
    found = finals.evaluator.stress(standing.settings, like)
    for condition, outcome in found.items():
        finals.log.append("stress", condition=condition, outcome=outcome.as_json())
    if found:
        finals.log.append("stressed", settings=dict(standing.settings))
    return found


def _held(finals: Finals, settings: Settings) -> dict[str, TrialResult]:
    found: dict[str, TrialResult] = {}
    whole = False
    for event in finals.log.events():
        if event["event"] == "stress" and key_of(event["outcome"]["config"]) == key_of(settings):
            found[event["condition"]] = from_json(event["outcome"])
        whole = whole or (event["event"] == "stressed" and key_of(event["settings"]) == key_of(settings))
    return found if whole else {}


def _shown(settings: Settings) -> str:
    return " ".join(f"{k}={v}" for k, v in settings.items())
