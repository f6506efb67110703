"""One question to the floor, for whoever chooses between configurations: may this one replace the baseline?

`floor_of` judges one candidate, while a search is screening or at any time. `certified` judges the last
few together, on held-out items of a number fixed beforehand, with Holm's correction for how many they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bench.accuracy.evaluation import Evaluation
from bench.accuracy.scorecard import claims
from bench.accuracy.settings import Accuracy
from serving.claims import Claim, Verdict, overall
from serving.errors import UserError

SHARED = (
    "it differs from the baseline only in settings that cannot change an output (WITHOUT_EFFECT), so they "
    "share one evaluation; `spot_check` puts that to the test"
)


@dataclass(frozen=True)
class Floor:
    """What the floor says of one candidate.

    `verdict` is that of all claims that count (accuracy, stability, security; never cost or latency).
    `worst` is the accuracy claim with the least effect: d = candidate - floor x baseline in
    `worst.effect`, its bounds in `worst.interval`, items in `worst.n`. `rejected_early`: the sequential
    test ended the evaluation. `certified`: a PASS on held-out items, corrected for the finalists.
    """

    verdict: Verdict
    claims: tuple[Claim, ...]
    floor: float
    confidence: float
    rejected_early: str | None = None
    certified: bool = False

    @property
    def worst(self) -> Claim | None:
        """The accuracy claim with the least effect; None when no task has an answer on both sides."""
        found = [c for c in self.claims if c.part == "Accuracy" and c.counts and c.effect is not None]
        scores = [c for c in found if c.unit.startswith("score")]
        return min(scores, key=lambda c: c.effect or 0.0, default=None)

    @property
    def violation(self) -> float | None:
        """For a constraint: at most 0 keeps the floor; by how much it is missed, as a share of the floor.

        An estimate, and in screening a rough one: it guides a sampler, `verdict` decides. 0 when the floor
        is met but another claim fails would mislead, so a FAIL is never below 1e-3. None: nothing to say.
        """
        worst = self.worst
        if worst is None or worst.effect is None:
            return None
        missed = -worst.effect / self.floor
        return max(missed, 1e-3) if self.verdict == "FAIL" else missed

    @property
    def needed(self) -> int | None:
        """Items of one task that would settle what is open, if what was seen goes on; None: no number."""
        return max((c.needed for c in self.claims if c.counts and c.needed), default=None)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What stands between this candidate and a PASS, one line a claim."""
        return tuple(
            f"{c.name} {c.verdict}" + (f": {c.note}" if c.note else "")
            for c in self.claims
            if c.counts and c.verdict != "PASS"
        )

    def as_json(self) -> dict[str, Any]:
        worst = self.worst
        return {
            "verdict": self.verdict,
            "certified": self.certified,
            "floor": self.floor,
            "confidence": self.confidence,
            "violation": self.violation,
            "rejected_early": self.rejected_early,
            "items_needed": self.needed,
            "worst": worst.as_json() if worst else None,
            "claims": [claim.as_json() for claim in self.claims],
        }


def floor_of(
    candidate: Evaluation,
    baseline: Evaluation,
    settings: Accuracy | None = None,
    *,
    again: Evaluation | None = None,
) -> Floor:
    """PASS, FAIL or INCONCLUSIVE of one candidate, with the numbers.

    `settings`: floor, confidence and margins; default: those the baseline was evaluated with. `again`: the
    baseline's second evaluation, which calibrates the tripwires.
    """
    rules = settings or Accuracy.model_validate(baseline.settings)
    return _judged(candidate, baseline, rules, again)


def certified(
    finalists: Mapping[str, Evaluation], baseline: Evaluation, settings: Accuracy | None = None
) -> dict[str, Floor]:
    """The verdict of each finalist, all together at the stated confidence (Holm 1979).

    Each must have been asked the held-out items to the end (`certifying`): UserError otherwise, because
    the best of many noisy trials looks better than it is on the items that chose it.
    """
    rules = settings or Accuracy.model_validate(baseline.settings)
    sides = dict(finalists)
    for name, one in sides.items():
        _held_out(name, one)
    found: dict[str, Floor] = {}
    while len(found) < len(sides):
        # Holm, step by step: whoever passes at alpha / (those left) is certified, and the rest are fewer.
        left = len(sides) - len(found)
        strict = rules.model_copy(update={"confidence": 1 - (1 - rules.confidence) / left})
        tried = {n: _judged(e, baseline, strict, None) for n, e in sides.items() if n not in found}
        passed = {n: replace(f, certified=True) for n, f in tried.items() if f.verdict == "PASS"}
        found |= passed or tried
    return {name: found[name] for name in sides}


def screening(settings: Accuracy) -> Accuracy:
    """The same rules for a search's trials: the screening third, little time, stopped when rejected."""
    return settings.model_copy(update={"split": "screen", "stop_early": True})


def certifying(settings: Accuracy) -> Accuracy:
    """The same rules for finalists: the held-out two thirds, all of them, whatever they show on the way."""
    return settings.model_copy(update={"split": "certify", "stop_early": False, "within_s": None})


def _judged(ours: Evaluation, theirs: Evaluation, rules: Accuracy, again: Evaluation | None) -> Floor:
    if ours.folder == theirs.folder:
        same = Claim("shared outputs", "PASS", note=SHARED, part="Accuracy")
        return Floor("PASS", (same,), rules.floor, rules.confidence)
    found = tuple(claims(ours, theirs, rules, again))
    return Floor(overall(found), found, rules.floor, rules.confidence, ours.rejected)


def _held_out(name: str, one: Evaluation) -> None:
    split, within = one.settings.get("split"), one.settings.get("within_s")
    if split != "certify" or within is not None or one.rejected:
        why = f"split {split}" if split != "certify" else "a time limit" if within else "an early stop"
        raise UserError(
            f"finalist {name} cannot be certified: it was evaluated with {why}",
            "evaluate finalists with bench.accuracy.verdict.certifying(settings): all held-out items",
        )
