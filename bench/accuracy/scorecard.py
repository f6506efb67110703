"""Two evaluations side by side: every claim about accuracy, security and stability, with its verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from bench.accuracy.claims import Claim, Outcome, Part, missing
from bench.accuracy.floor import Paired, against_floor, against_margin, judge, paired
from bench.accuracy.lattice import lower_bound, sample
from bench.accuracy.result import Evaluation, TaskResult
from bench.accuracy.settings import Accuracy
from bench.accuracy.task import Measures
from bench.accuracy.tripwires import distance, wires

PART: dict[Measures, Part] = {
    "accuracy": "Accuracy", "stability": "Stability", "security": "Security", "tripwire": "Accuracy",
}  # fmt: skip
MOST_ERRORS = 0.01
"""Share of either side's items that may have failed on their way before a comparison means nothing."""
MOST_UNANSWERED = 0.10
"""Share of either side's items that may have no answer to score before scores mean nothing."""


@dataclass(frozen=True)
class Pairing:
    """Both sides of one task on the items both were asked, word for word."""

    candidate: TaskResult
    baseline: TaskResult
    items: tuple[str, ...]
    other_prompts: int

    def pairs(self) -> Paired:
        clusters = {i: self.baseline.scored[i].cluster or i for i in self.items}
        ours = {i: self.candidate.scored[i].value for i in self.items}
        theirs = {i: self.baseline.scored[i].value for i in self.items}
        return paired(ours, theirs, clusters)


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
    found += _long_answers(candidate, baseline, settings)
    found += _same_tokens(candidate, baseline)
    own = distance(again, baseline) if again else None
    found += wires(distance(candidate, baseline), own, settings.tripwires)
    if candidate.failure:
        why = f"{candidate.failure.kind}: {candidate.failure.detail}"
        found.append(Claim("Stability", "server", "FAIL", None, None, None, note=why))
    return found


def pairing(candidate: TaskResult, baseline: TaskResult) -> Pairing:
    """Items that both were asked; those that the baseline failed on or did not answer are left out."""
    answered = [i for i, s in baseline.scored.items() if not s.error and not s.unanswered]
    both = [i for i in answered if i in candidate.scored]
    same = tuple(i for i in both if candidate.scored[i].prompt == baseline.scored[i].prompt)
    return Pairing(candidate, baseline, same, len(both) - len(same))


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
    length = _output_length(both, settings) if base.measures == "accuracy" else None
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


def _with_lost(both: Pairing, settings: Accuracy, family: int) -> Claim:
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
    verdict: Outcome = "FAIL" if without.verdict == "FAIL" else "INCONCLUSIVE"
    return replace(without, verdict=verdict, note=f"{without.note}; {note}; they are left out")


def _value(both: Pairing, settings: Accuracy, family: int) -> Claim:
    """The three-verdict claim of one task: against the floor, or for security against the margin."""
    pairs, kind = both.pairs(), both.baseline.measures
    floor = settings.floor if kind == "accuracy" else settings.stability_floor
    if kind == "security":
        data, unit = against_margin(pairs, settings.security_margin), "change of share"
        shift, limit = settings.security_margin, -settings.security_margin
    else:
        data, unit, shift, limit = against_floor(pairs, floor), f"score - {floor:g} x baseline", 0.0, 0.0
    found = judge(data, settings.confidence, family)
    verdict: Outcome = found.outcome
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
        PART[kind], both.baseline.name, verdict, found.effect - shift,
        (found.low - shift, found.high - shift), limit, unit, found.n, found.needed, note,
    )  # fmt: skip


def above_chance(result: TaskResult, confidence: float = 0.95) -> bool:
    """Whether the scores show more than guessing."""
    values = np.array([s.value for s in result.scored.values()], dtype=float)
    return lower_bound(sample(values, 0.0, 1.0), 1 - confidence) > result.chance


def _long_answers(candidate: Evaluation, baseline: Evaluation, settings: Accuracy) -> list[Claim]:
    """Length of the long greedy answers: early stops and endless loops show here first."""
    sides = [e.tasks.get("continuations") for e in (candidate, baseline)]
    if sides[0] is None or sides[1] is None:
        return []
    length = _output_length(pairing(sides[0], sides[1]), settings)
    return [length] if length else []


def _output_length(both: Pairing, settings: Accuracy) -> Claim | None:
    """Mean output tokens as a share of the baseline's, for tasks that generate; a paired t interval.

    e = candidate - share x baseline for both ends of the allowed range (Fieller 1954): the range is
    kept when both one-sided bounds are on its inside.
    """
    from scipy.stats import t

    sides = [[side.scored[i] for i in both.items] for side in (both.candidate, both.baseline)]
    told = [
        (mine.output_tokens, its.output_tokens)
        for mine, its in zip(*sides, strict=True)
        if mine.output_tokens is not None and its.output_tokens is not None and not mine.error
    ]
    if len(told) < len(both.items) / 2:
        part, name = PART[both.baseline.measures], f"{both.baseline.name}: output length"
        silent = [
            whose
            for whose, side in zip(("candidate", "baseline"), sides, strict=True)
            if any(s.output_tokens is None for s in side)
        ]
        if silent and any(s.output_tokens != 0 for s in sides[1]):
            return missing(part, name, f"the usage of the {' and the '.join(silent)} tells no output tokens")
        return None
    ours, theirs = np.array(told, dtype=float).T
    if theirs.sum() == 0 or len(ours) < 2:
        return None
    low, high = settings.output_length
    z = float(t.ppf(settings.confidence, len(ours) - 1)) / np.sqrt(len(ours))

    def bounds(share: float) -> tuple[float, float]:
        e = ours - share * theirs
        half = z * float(e.std(ddof=1))
        return float(e.mean()) - half, float(e.mean()) + half

    under, over = bounds(low), bounds(high)
    # Few answers have no normal mean: below 20 nothing is passed or failed.
    passed, lost = under[0] >= 0 and over[1] <= 0, under[1] < 0 or over[0] > 0
    verdict: Outcome = (
        "INCONCLUSIVE" if len(ours) < 20 else "PASS" if passed else "FAIL" if lost else "INCONCLUSIVE"
    )
    ratio = float(ours.sum() / theirs.sum())
    half = z * float((ours - ratio * theirs).std(ddof=1)) / float(theirs.mean())
    cut = sum(both.candidate.scored[i].cut for i in both.items)
    cut_before = sum(both.baseline.scored[i].cut for i in both.items)
    return Claim(
        PART[both.baseline.measures], f"{both.baseline.name}: output length", verdict, ratio,
        (ratio - half, ratio + half), low if ratio < 1 else high, "ratio", len(ours),
        note=f"allowed {low:g} to {high:g}; answers cut at their limit: {cut} against {cut_before}",
    )  # fmt: skip


def _same_tokens(candidate: Evaluation, baseline: Evaluation) -> list[Claim]:
    """The same words must become the same number of tokens: a template or a BOS token shows here at once."""
    differ = of = 0
    names, unknown = [], 0
    for name, base in baseline.tasks.items():
        other = candidate.tasks.get(name)
        pairs = [
            (other.scored[i].input_tokens, base.scored[i].input_tokens)
            for i in (pairing(other, base).items if other else ())
            if other and not other.scored[i].error
        ]
        # What a usage does not tell is not known to differ.
        told = [(ours, theirs) for ours, theirs in pairs if ours and theirs]
        here = sum(ours != theirs for ours, theirs in told)
        of, differ, unknown = of + len(told), differ + here, unknown + len(pairs) - len(told)
        names += [name] if here else []
    if not of:
        why = "the usage of one side or both tells no prompt tokens"
        return [missing("Stability", "same prompt tokens", why)] if unknown else []
    note = f"in {', '.join(names)}: the chat template, a BOS token or the tokenizer differs" if differ else ""
    return [
        Claim("Stability", "same prompt tokens", "FAIL" if differ else "PASS", differ / of, None, 0.0,
              "share that differs", of, note=note)
    ]  # fmt: skip


def _error(result: TaskResult) -> str:
    return next((s.error for s in result.scored.values() if s.error), "")[:120]


def by_part(found: Iterable[Claim]) -> Mapping[Part, list[Claim]]:
    grouped: dict[Part, list[Claim]] = {}
    for claim in found:
        grouped.setdefault(claim.part, []).append(claim)
    return grouped
