"""Claim: one statement of a spec, and what became of it when it was held against a running server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Claim:
    """One statement of the spec and what became of it. Latencies in milliseconds."""

    name: str
    verdict: Outcome
    text: str
    effect: float | None = None
    interval: tuple[float, float] | None = None
    threshold: float | None = None


def overall(claims: list[Claim]) -> Outcome:
    """FAIL if one fails, else INCONCLUSIVE if one is, else PASS; nothing claimed is inconclusive."""
    found = {claim.verdict for claim in claims}
    return "fail" if "fail" in found else "pass" if found == {"pass"} else "inconclusive"
