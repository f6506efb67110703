"""Certify: may a finalist replace the baseline? Held-out items, asked on the launch that confirms it.

Trials were screened on a third of the items, and the best of many noisy trials looks better there than it
is. So each finalist is asked items that chose nothing, of a number fixed beforehand, and Holm's correction
pays for how many finalists there are. One that shares its answers with another configuration, because only
settings differ that cannot change an output, is put to a spot check of that assumption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.accuracy import cache
from bench.accuracy.verdict import Floor, certified
from bench.evaluation import store
from bench.plan.evaluations import Evaluating
from bench.records.folder import RunFolder
from search.evaluator import Certificate
from serving.claims import Claim

if TYPE_CHECKING:
    from bench.scenario.model import Scenario


def asked(evaluating: Sequence[Evaluating], *, shares: bool) -> list[Evaluating]:
    """What a confirming launch is asked: the certificate, and the spot check where answers are shared."""
    found = [replace(one, repeat=store.CERTIFICATE) for one in evaluating if one.repeat == 0]
    return found + [replace(one, repeat=store.SPOT) for one in found if shares]


def certificates(
    folder: RunFolder, scenario: Scenario, finalists: Sequence[str], baseline: str
) -> dict[str, Certificate]:
    """Of each finalist (config keys, the baseline not among them) what its held-out answers say."""
    theirs = store.of_repeat(folder, baseline, store.CERTIFICATE)
    mine = {key: store.of_repeat(folder, key, store.CERTIFICATE) for key in finalists}
    if theirs is None or theirs.failure is not None:
        why = "the baseline's held-out answers are missing" + (
            f": {theirs.failure.detail}" if theirs and theirs.failure else ""
        )
        return {key: Certificate("INCONCLUSIVE", why) for key in finalists}
    # Configurations that share their answers are one test, and pay for one.
    distinct = {str(one.folder): one for one in mine.values() if one is not None and one.failure is None}
    floors = certified(distinct, theirs, scenario.accuracy)
    noise = disagreement(folder, baseline)
    found = {}
    for key, one in mine.items():
        if one is None or one.failure is not None:
            why = f"{one.failure.kind}: {one.failure.detail}" if one and one.failure else "it was not asked"
            found[key] = Certificate("INCONCLUSIVE", why)
            continue
        floor = floors[str(one.folder)]
        again = store.of_repeat(folder, key, store.SPOT)
        spot = tuple(cache.spot_check(one, again, noise)) if again is not None else ()
        found[key] = _judged(floor, spot, shared=store.shares(folder, key))
    return found


def _judged(floor: Floor, spot: tuple[Claim, ...], *, shared: bool) -> Certificate:
    broken = [claim for claim in spot if claim.verdict == "FAIL"]
    if broken:
        why = f"{broken[0].name}: {broken[0].effect:.1%} of the answers differ, so that none may be shared"
        return Certificate("FAIL", why, floor, spot)
    if shared and not spot:
        return Certificate("INCONCLUSIVE", "its spot check was not asked", floor)
    return Certificate(floor.verdict, "; ".join(floor.reasons), floor, spot)


def disagreement(folder: RunFolder, baseline: str) -> float:
    """The largest share of answers in which the baseline differs from itself; 0 without a second time."""
    both = store.evaluations(folder, baseline)[:2]
    if len(both) < 2:
        return 0.0
    return max((claim.effect or 0.0 for claim in cache.spot_check(both[0], both[1])), default=0.0)


def alike(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config's settings that can change an output."""
    return {k: v for k, v in settings.items() if k not in cache.WITHOUT_EFFECT}
