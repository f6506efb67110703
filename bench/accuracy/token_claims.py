"""Claims about token counts: output as long as before, and the same prompts as many tokens."""

from __future__ import annotations

import numpy as np
from scipy.stats import t

from bench.accuracy.evaluation import Evaluation
from bench.accuracy.pairing import PART, ItemPairing, pairing
from bench.accuracy.settings import Accuracy
from serving.claims import Claim, Verdict, missing


def long_answers(candidate: Evaluation, baseline: Evaluation, settings: Accuracy) -> list[Claim]:
    """Length of the long greedy answers: early stops and endless loops show here first."""
    sides = [e.tasks.get("continuations") for e in (candidate, baseline)]
    if sides[0] is None or sides[1] is None:
        return []
    length = output_length(pairing(sides[0], sides[1]), settings)
    return [length] if length else []


def output_length(both: ItemPairing, settings: Accuracy) -> Claim | None:
    """Mean output tokens as a share of the baseline's, for tasks that generate; a paired t interval.

    e = candidate - share x baseline for both ends of the allowed range (Fieller 1954): the range is
    kept when both one-sided bounds are on its inside.
    """
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
    verdict: Verdict = (
        "INCONCLUSIVE" if len(ours) < 20 else "PASS" if passed else "FAIL" if lost else "INCONCLUSIVE"
    )
    ratio = float(ours.sum() / theirs.sum())
    half = z * float((ours - ratio * theirs).std(ddof=1)) / float(theirs.mean())
    cut = sum(both.candidate.scored[i].cut for i in both.items)
    cut_before = sum(both.baseline.scored[i].cut for i in both.items)
    return Claim(
        f"{both.baseline.name}: output length",
        verdict,
        note=f"allowed {low:g} to {high:g}; answers cut at their limit: {cut} against {cut_before}",
        effect=ratio,
        interval=(ratio - half, ratio + half),
        threshold=low if ratio < 1 else high,
        part=PART[both.baseline.measures],
        unit="ratio",
        n=len(ours),
    )


def same_tokens(candidate: Evaluation, baseline: Evaluation) -> list[Claim]:
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
        Claim(
            "same prompt tokens",
            "FAIL" if differ else "PASS",
            note=note,
            effect=differ / of,
            threshold=0.0,
            part="Stability",
            unit="share that differs",
            n=of,
        )
    ]
