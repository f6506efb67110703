"""Verdict and Claim: one statement, what became of it, and what decides when there are several."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Part = Literal["Cost", "Latency", "Accuracy", "Security", "Stability"]
PARTS: tuple[Part, ...] = ("Cost", "Latency", "Accuracy", "Security", "Stability")
EXIT: dict[Verdict, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}
"""Exit status of a command that ends with this verdict."""


@dataclass(frozen=True)
class Claim:
    """One statement and its verdict.

    `effect`, `interval` and `threshold` are in `unit`; PASS when the whole interval is on the good side
    of the threshold, FAIL when it is wholly on the other. `note`: what was seen, in words. `part`: of a
    scorecard; None for a claim of a spec. `counts` is False for what is shown but decides nothing
    (tripwires without a limit). `needed`: items that would settle an INCONCLUSIVE.
    """

    name: str
    verdict: Verdict
    note: str = ""
    effect: float | None = None
    interval: tuple[float, float] | None = None
    threshold: float | None = None
    part: Part | None = None
    unit: str = ""
    n: int = 0
    needed: int | None = None
    counts: bool = True

    def as_json(self) -> dict[str, Any]:
        return {
            "part": self.part,
            "name": self.name,
            "verdict": self.verdict,
            "effect": self.effect,
            "interval": list(self.interval) if self.interval else None,
            "threshold": self.threshold,
            "unit": self.unit,
            "n": self.n,
            "items_needed": self.needed,
            "note": self.note,
            "counts": self.counts,
        }


def missing(part: Part, name: str, why: str) -> Claim:
    """What was not measured is never a pass."""
    return Claim(name, "INCONCLUSIVE", why, part=part)


def overall(claims: Iterable[Claim]) -> Verdict:
    """FAIL when any claim fails; PASS when there are claims and all pass; else INCONCLUSIVE."""
    return combined(claim.verdict for claim in claims if claim.counts)


def combined(verdicts: Iterable[Verdict]) -> Verdict:
    """FAIL when any is; PASS when there are some and all pass; else INCONCLUSIVE."""
    found = set(verdicts)
    if "FAIL" in found:
        return "FAIL"
    return "PASS" if found == {"PASS"} else "INCONCLUSIVE"
