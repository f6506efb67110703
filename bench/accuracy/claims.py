"""A claim about a candidate held against its baseline: effect, interval, threshold, verdict, next step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Part = Literal["Cost", "Latency", "Accuracy", "Security", "Stability"]
PARTS: tuple[Part, ...] = ("Cost", "Latency", "Accuracy", "Security", "Stability")
EXIT: dict[Outcome, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}


@dataclass(frozen=True)
class Claim:
    """One line of a scorecard.

    `effect`, `interval` and `threshold` are in `unit`; PASS when the whole interval is on the good side
    of the threshold, FAIL when it is wholly on the other. `counts` is False for what is shown but
    decides nothing (tripwires without a limit). `needed`: items that would settle an INCONCLUSIVE.
    """

    part: Part
    name: str
    verdict: Outcome
    effect: float | None
    interval: tuple[float, float] | None
    threshold: float | None
    unit: str = ""
    n: int = 0
    needed: int | None = None
    note: str = ""
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
    return Claim(part, name, "INCONCLUSIVE", None, None, None, note=why)


def overall(claims: Iterable[Claim]) -> Outcome:
    """FAIL when any claim fails; PASS when there are claims and all pass; else INCONCLUSIVE."""
    verdicts = [claim.verdict for claim in claims if claim.counts]
    if "FAIL" in verdicts:
        return "FAIL"
    return "PASS" if verdicts and set(verdicts) == {"PASS"} else "INCONCLUSIVE"
