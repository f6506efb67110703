"""Two evaluations side by side: every claim about accuracy, security and stability, with its verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from bench.accuracy.evaluation import Evaluation, TaskResult
from bench.accuracy.floor import against_floor, against_margin, judge
from bench.accuracy.mean_test import lower_bound, sample
from bench.accuracy.pairing import PART, ItemPairing, pairing
from bench.accuracy.settings import Accuracy
from bench.accuracy.token_claims import long_answers, output_length, same_tokens
from bench.accuracy.tripwires import distance, wires
from serving.claims import Claim, Part, Verdict, missing

MOST_ERRORS = 0.01
"""Share of either side's items that may have failed on their way before a comparison means nothing."""
MOST_UNANSWERED = 0.10
"""Share of either side's items that may have no answer to score before scores mean nothing."""


def claims(
    candidate: Evaluation,
    baseline: Evaluation,
    settings: Accuracy,
    again: Evaluation | None = None,
) -> list[Claim]:
    """Every claim. `again`: the baseline evaluated a second time, which calibrates the tripwires."""
    found: list[Claim] = []
    judged = [t for t in baseline.tasks.values() if t.measures != "tripwire"]
    for base in judged:
        found += _task(base, candidate, settings, len(judged))
    for name, why in baseline.refused.items():
        found.append(missing("Accuracy", name, f"the baseline's engine cannot give it: {why}"))
    found += long_answers(candidate, baseline, settings)
    found += same_tokens(candidate, baseline)
    own = distance(again, baseline) if again else None
    found += wires(distance(candidate, baseline), own, settings.tripwires)
    if candidate.failure:
        why = f"{candidate.failure.kind}: {candidate.failure.detail}"
        found.append(Claim("server", "FAIL", note=why, part="Stability"))
    return found


def _task(base: TaskResult, candidate: Evaluation, settings: Accuracy, family: int) -> list[Claim]:
    part = PART[base.measures]
    other = candidate.tasks.get(base.name)
    if other is None:
        why = candidate.refused.get(base.name)
        why = f"the engine cannot give it: {why}" if why else "the candidate was not evaluated on it"
        return [missing(part, base.name, why)]
    unheard = _unheard(base, other)
    if unheard:
        return [missing(part, base.name, unheard)]
    if other.rejected_at is not None:
        return [
            replace(
                _value(pairing(other, base), settings, family), verdict="FAIL",
                note=f"below the floor after {other.rejected_at} items (sequential test, valid at any look)",
            )
        ]  # fmt: skip
    both = pairing(other, base)
    if both.other_prompts:
        return [
            missing(part, base.name, f"refused: {both.other_prompts} items were asked in other words; "
                    "evaluate both with one version of the task")
        ]  # fmt: skip
    if not both.items:
        return [missing(part, base.name, "no item was answered on both sides")]
    found = [_with_lost(both, settings, family)]
    refused = other.errors - other.lost
    said = [f"{refused} prompts were refused by the candidate and count as wrong: {_error(other)}"] * (
        refused > 0
    )
    if other.unanswered:
        said.append(f"{other.unanswered} were not answered by the candidate and count as wrong")
    found[0] = replace(found[0], note="; ".join(x for x in (found[0].note, *said) if x))
    length = output_length(both, settings) if base.measures == "accuracy" else None
    return [*found, length] if length else found


def _unheard(base: TaskResult, other: TaskResult) -> str:
    """Why the two sides cannot be compared: too much was lost on its way or not answered. Empty: they can."""
    if base.errors > MOST_ERRORS * len(base.scored):
        return f"{base.errors} of {len(base.scored)} baseline items failed: {_error(base)}"
    if other.lost > MOST_ERRORS * len(other.scored):
        return (
            f"{other.lost} requests of the candidate failed of {len(other.scored)}, which says nothing of "
            f"its answers: {_error(other)}"
        )
    for side, whose in ((base, "baseline"), (other, "candidate")):
        if side.unanswered > MOST_UNANSWERED * len(side.scored):
            why = Counter(s.unanswered for s in side.scored.values() if s.unanswered).most_common(1)[0][0]
            hint = "give it room to end (max_tokens) or switch it off" if "think" in why else "see its folder"
            return (
                f"{side.unanswered} of {len(side.scored)} items not answered by the {whose} ({why}): {hint}"
            )
    return ""


def _with_lost(both: ItemPairing, settings: Accuracy, family: int) -> Claim:
    """The claim where a few requests of the candidate were lost on their way.

    PASS holds if each of them was wrong, FAIL if none is counted; else INCONCLUSIVE.
    """
    as_wrong = _value(both, settings, family)
    kept = tuple(i for i in both.items if not both.candidate.scored[i].lost)
    lost = len(both.items) - len(kept)
    if not lost or not kept:
        return as_wrong
    note = f"{lost} requests of the candidate failed on their way: {_error(both.candidate)}"
    if as_wrong.verdict == "PASS":
        return replace(as_wrong, note=f"{as_wrong.note}; {note}; they count as wrong")
    without = _value(replace(both, items=kept), settings, family)
    verdict: Verdict = "FAIL" if without.verdict == "FAIL" else "INCONCLUSIVE"
    return replace(without, verdict=verdict, note=f"{without.note}; {note}; they are left out")


def _value(both: ItemPairing, settings: Accuracy, family: int) -> Claim:
    """The three-verdict claim of one task: against the floor, or for security against the margin."""
    pairs, kind = both.pairs(), both.baseline.measures
    floor = settings.floor if kind == "accuracy" else settings.stability_floor
    if kind == "security":
        data, unit = against_margin(pairs, settings.security_margin), "change of share"
        shift, limit = settings.security_margin, -settings.security_margin
    else:
        data, unit, shift, limit = against_floor(pairs, floor), f"score - {floor:g} x baseline", 0.0, 0.0
    found = judge(data, settings.confidence, family)
    verdict: Verdict = found.outcome
    ours, theirs = float(pairs.candidate.mean()), float(pairs.baseline.mean())
    note = f"{ours:.1%} against {theirs:.1%}"
    if kind == "accuracy":
        note += f"; on these items {'at or above' if found.on_these_items else 'below'} the floor"
        if verdict == "PASS" and not above_chance(both.baseline, settings.confidence):
            verdict, note = (
                "INCONCLUSIVE",
                f"{note}; the baseline is not above chance here, so a floor says nothing",
            )
    elif verdict == "PASS" and not above_chance(both.baseline, settings.confidence):
        # Nothing can be lost of what the baseline does not show.
        verdict, note = (
            "INCONCLUSIVE",
            f"{note}; the baseline does not show this: it cannot be lost",
        )
    return Claim(
        both.baseline.name,
        verdict,
        note=note,
        effect=found.effect - shift,
        interval=(found.low - shift, found.high - shift),
        threshold=limit,
        part=PART[kind],
        unit=unit,
        n=found.n,
        needed=found.needed,
    )


def above_chance(result: TaskResult, confidence: float = 0.95) -> bool:
    """Whether the scores show more than guessing."""
    values = np.array([s.value for s in result.scored.values()], dtype=float)
    return lower_bound(sample(values, 0.0, 1.0), 1 - confidence) > result.chance


def _error(result: TaskResult) -> str:
    return next((s.error for s in result.scored.values() if s.error), "")[:120]


def by_part(found: Iterable[Claim]) -> Mapping[Part, list[Claim]]:
    grouped: dict[Part, list[Claim]] = {}
    for claim in found:
        if claim.part is not None:
            grouped.setdefault(claim.part, []).append(claim)
    return grouped
