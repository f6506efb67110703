"""Standing: one finalist after its rounds: is it better, and does it keep its promises?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from search.evaluator import Certificate
from search.finals.spread import LEAST_ROUNDS, Bounds, Difference, Kept, promise
from search.result import UNTOLD, Settings, TrialResult

UNREADABLE = frozenset({"invalid", "no_value", "not_measured"})
"""Failures of the measurement: the engine ran, and what it did is not known."""


@dataclass(frozen=True)
class Finalist:
    """`gain` over the baseline of the same rounds, as a share, with its bounds; None: too few rounds.

    outcomes     its confirmations, the round of each being its place
    certificate  of its accuracy; None: the scenario has no floor, or it is the baseline
    difference   what `gain` was made of
    """

    settings: Settings
    outcomes: tuple[TrialResult, ...]
    gain: Bounds | None
    certificate: Certificate | None = None
    difference: Difference | None = None
    is_baseline: bool = False

    @property
    def feasible(self) -> bool:
        """It surely keeps every promise, and the held-out answers passed."""
        return self.certified and self.state == "kept"

    @property
    def stands(self) -> bool:
        """It may still be the winner: certified, and no promise is surely broken."""
        return self.certified and self.state != "broken"

    @property
    def certified(self) -> bool:
        return self.certificate is None or self.certificate.passed

    @property
    def undecided(self) -> bool:
        """Its held-out answers neither passed nor failed."""
        return (
            self.certificate is not None
            and self.certificate.verdict == "INCONCLUSIVE"
            and self.state != "broken"
        )

    @property
    def proven(self) -> bool:
        """Surely better than the baseline, over enough rounds."""
        enough = self.difference is not None and self.difference.rounds >= LEAST_ROUNDS
        return enough and self.gain is not None and self.gain[1] > 0

    @property
    def value(self) -> float | None:
        values = [o.value for o in self.outcomes if o.value is not None]
        return sum(values) / len(values) if values else None

    @cached_property
    def promises(self) -> Mapping[str, Kept]:
        """Each promise over the launches that ran and could tell it."""
        ran = [o for o in self.outcomes if o.failure is None]
        found = {}
        for name in dict.fromkeys(name for o in ran for name in o.violations):
            missed = [o.violations[name] for o in ran if name in o.violations]
            kept = promise(missed)
            # A percentile that too few requests tell is neither kept nor broken.
            found[name] = (
                replace(kept, state="untold") if UNTOLD in missed and kept.state == "broken" else kept
            )
        return found

    @property
    def undetermined(self) -> Mapping[str, str]:
        """Promises that not one launch could tell, and why: neither kept nor broken."""
        found = {name: why for o in self.outcomes for name, why in o.undetermined.items()}
        return {name: why for name, why in found.items() if name not in self.promises}

    @property
    def state(self) -> str:
        """`kept` or `broken` where that is sure, else `untold`.

        A finalist must run in every round. The baseline counts as broken only when it ran in none of them:
        one crash is no licence to name a winner that is not shown to be better.
        """
        failed = [o for o in self.outcomes if o.failure is not None and o.failure not in UNREADABLE]
        if failed and not self.is_baseline:
            return "broken"
        if len(failed) >= LEAST_ROUNDS and len(failed) == len(self.outcomes):
            return "broken"
        states = {kept.state for kept in self.promises.values()}
        if "broken" in states:
            return "broken"
        told = any(o.value is not None for o in self.outcomes) and not failed and not self.undetermined
        return "kept" if told and states <= {"kept"} else "untold"

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of the promises that are surely broken; `runs` where it never ran."""
        named = tuple(name for name, kept in self.promises.items() if kept.state == "broken")
        return named or (("runs",) if self.state == "broken" else ())

    @property
    def untold(self) -> Mapping[str, Kept]:
        return {name: kept for name, kept in self.promises.items() if kept.state == "untold"}
