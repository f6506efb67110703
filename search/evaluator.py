"""The two protocols of a search: what proposes a configuration, and what answers for it.

An evaluator launches engines (`search.engine_evaluator`) or looks into a recorded grid
(`search.replay.grid_evaluator`); everything above it is the same for both, so that searchers are compared on
the code that runs in earnest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bench.accuracy.verdict import Floor
from search.result import Settings, TrialResult
from serving.claims import Claim, Verdict


class Promote(Protocol):
    """Whether what a short load showed is worth the full one."""

    def __call__(self, screen: TrialResult, /) -> bool: ...


@dataclass(frozen=True)
class Certificate:
    """What held-out items say of a finalist's accuracy.

    `verdict` PASS, FAIL or INCONCLUSIVE, and `why` it is no PASS; `floor` None: it could not be asked.
    """

    verdict: Verdict
    why: str
    floor: Floor | None = None
    spot: tuple[Claim, ...] = ()

    @property
    def passed(self) -> bool:
        return self.verdict == "PASS"

    def as_json(self) -> dict[str, Any]:
        worst = self.floor.worst if self.floor else None
        return {
            "verdict": self.verdict,
            "why": self.why,
            "held_out": self.floor is not None,
            "items": worst.n if worst else None,
            "items_needed": self.floor.needed if self.floor else None,
            "worst": worst.as_json() if worst else None,
            "claims": [claim.as_json() for claim in self.floor.claims] if self.floor else [],
            "spot_check": [claim.as_json() for claim in self.spot],
        }


class Evaluator(Protocol):
    """Answers for one configuration at a time. A failure of the engine is a result, never an exception."""

    def refusal(self, settings: Settings, incumbent: TrialResult | None) -> TrialResult | None:
        """Why it is of no use to launch this, known beforehand; None: launch it."""
        ...

    def evaluate(self, settings: Settings, promote: Promote) -> Sequence[TrialResult]:
        """One trial: the short load, then the full one where `promote` says so. The last result counts."""
        ...

    def confirm(self, settings: Settings) -> TrialResult:
        """The full load once more, on a fresh launch each time; held-out items are asked on it too."""
        ...

    def stress(self, settings: Settings, like: TrialResult) -> Mapping[str, TrialResult]:
        """Other loads on one launch, by condition; empty when none are wanted. `like`: has those to vary."""
        ...

    def certificates(self, finalists: Sequence[Settings]) -> Mapping[str, Certificate]:
        """By `key_of`, of all but the first, the baseline; empty when nothing was to be certified."""
        ...

    def answers_like(self, one: Settings, other: Settings) -> bool:
        """Whether the two differ only in settings that cannot change an output."""
        ...

    def certificate_s(self, full: TrialResult) -> float:
        """Device seconds that one finalist's held-out items are expected to take; `full`: of the baseline."""
        ...

    def stress_s(self, full: TrialResult) -> float:
        """Device seconds that one launch on other loads is expected to take; `full`: at the full load."""
        ...


class Searcher(Protocol):
    """Proposes what to try next. It is given the whole history each time and stores nothing it needs."""

    def ask(self, history: Sequence[TrialResult]) -> Settings | None:
        """The next configuration; None when there is nothing left worth asking."""
        ...
