"""The floor: is the candidate at least `floor` times as right as the baseline, on such items in general?

Per item d = candidate - floor x baseline, paired on the same item. PASS: one-sided lower bound of mean d
above zero. FAIL: upper bound below zero. Else INCONCLUSIVE, with the items that would settle it. Items of
one cluster (paraphrases, several runs of one question) are averaged first and count once.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from bench.accuracy.mean_test import ScoreSample, Vector, lower_bound, p_above, sample, upper_bound
from serving.claims import Verdict

POWER = 0.8


@dataclass(frozen=True)
class Paired:
    """Candidate and baseline scores in [0, 1], one entry an independent cluster."""

    candidate: Vector
    baseline: Vector

    @property
    def n(self) -> int:
        return int(self.candidate.size)


@dataclass(frozen=True)
class FloorVerdict:
    """`effect` is mean d; `low` and `high` one-sided bounds, each at its own level (see `judge`).

    `on_these_items` is the rule without a confidence (MLPerf's): the candidate's score on exactly
    these items is at least the floor. Only `outcome` speaks of the population.
    """

    outcome: Verdict
    effect: float
    low: float
    high: float
    n: int
    on_these_items: bool
    needed: int | None


def paired(
    candidate: Mapping[str, float], baseline: Mapping[str, float], clusters: Mapping[str, str]
) -> Paired:
    """Scores by item id, on the items both have, averaged within clusters (in order of the baseline)."""
    groups: dict[str, list[str]] = defaultdict(list)
    for item in baseline:
        if item in candidate:
            groups[clusters.get(item, item)].append(item)
    both = list(groups.values())
    return Paired(
        np.array([np.mean([candidate[i] for i in items]) for items in both], dtype=float),
        np.array([np.mean([baseline[i] for i in items]) for items in both], dtype=float),
    )


def against_floor(pairs: Paired, floor: float) -> ScoreSample:
    """d = candidate - floor x baseline, between -floor and 1."""
    return sample(pairs.candidate - floor * pairs.baseline, -floor, 1.0)


def against_margin(pairs: Paired, margin: float) -> ScoreSample:
    """d = candidate - baseline + margin: a change for the worse of less than `margin` (a share) passes."""
    return sample(pairs.candidate - pairs.baseline + margin, margin - 1.0, margin + 1.0)


def judge(data: ScoreSample, confidence: float = 0.95, family: int = 1) -> FloorVerdict:
    """Three verdicts at `confidence`.

    A PASS of several claims needs each one to pass, which costs no confidence; a FAIL of any of them
    does, so the level of FAIL is shared among the `family` of claims (Bonferroni).
    """
    alpha = 1 - confidence
    low, high = lower_bound(data, alpha), upper_bound(data, alpha / family)
    if p_above(data, 0.0) <= alpha:
        outcome: Verdict = "PASS"
    elif p_above(data.mirrored(), 0.0) <= alpha / family:
        outcome = "FAIL"
    else:
        outcome = "INCONCLUSIVE"
    needed = None if outcome != "INCONCLUSIVE" else items_needed(data, confidence)
    return FloorVerdict(outcome, data.mean, low, high, data.n, data.mean >= 0, needed)


def items_needed(data: ScoreSample, confidence: float = 0.95, power: float = POWER) -> int | None:
    """Items to a verdict with `power`, if mean and spread are what was seen. None: no number would do.

    n = (z_alpha + z_power)^2 var / mean^2, and never below what the zero-loss rule asks for:
    ln(alpha) / ln(1 - mean) when nothing was lost.
    """
    mean, alpha = data.mean, 1 - confidence
    if abs(mean) < 1e-9:
        return None
    normal = NormalDist()
    z = normal.inv_cdf(confidence) + normal.inv_cdf(power)
    values = data.steps * data.h
    worst = abs(data.low if mean > 0 else data.high) * data.h
    variance = float(((values - mean) ** 2) @ data.counts) / data.n
    loss_free = math.log(alpha) / math.log1p(-min(0.999, abs(mean) / (worst + abs(mean))))
    # One further item lost or gained is always possible: a spread of nothing is not believed.
    variance = max(variance, worst * worst / (data.n + 1))
    return max(data.n + 1, math.ceil(max(z * z * variance / mean**2, loss_free)))


def exact_share(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a share; (0, 1) for no items."""
    from scipy.stats import beta

    if n == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1 - tail, successes + 1, n - successes))
    return low, high
