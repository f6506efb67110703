"""Two evaluations of one task, on the items that both were asked word for word."""

from __future__ import annotations

from dataclasses import dataclass

from bench.accuracy.evaluation import TaskResult
from bench.accuracy.floor import Paired, paired
from bench.accuracy.task import Measures
from serving.claims import Part

PART: dict[Measures, Part] = {
    "accuracy": "Accuracy", "stability": "Stability", "security": "Security", "tripwire": "Accuracy",
}  # fmt: skip


@dataclass(frozen=True)
class ItemPairing:
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


def pairing(candidate: TaskResult, baseline: TaskResult) -> ItemPairing:
    """Items that both were asked; those that the baseline failed on or did not answer are left out."""
    answered = [i for i, s in baseline.scored.items() if not s.error and not s.unanswered]
    both = [i for i in answered if i in candidate.scored]
    same = tuple(i for i in both if candidate.scored[i].prompt == baseline.scored[i].prompt)
    return ItemPairing(candidate, baseline, same, len(both) - len(same))
