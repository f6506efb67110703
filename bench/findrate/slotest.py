"""Does one rate meet an SLO? A sequential test that may be looked at after every request.

An SLO at percentile p says: at most a share 1 - p of the requests is over the limit. The evidence for it,
and against it, is a mixture of Wald's likelihood ratios (Robbins 1970; Johari et al. 2017; Howard, Ramdas,
McAuliffe and Sekhon 2021), which by Ville's inequality passes 1/alpha with probability alpha at most,
however often one looks. For a `mean` it is the normal mixture on the standardised mean, which is valid in
the limit of many requests (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024).

Requests that wait in one queue share one fate. Counts are divided by the design effect before they are
weighed (Korn and Graubard 1998), which is the integrated autocorrelation time of the requests in the order
of their departure, by Geyer's initial monotone sequence (1992).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from bench.metrics.latency import STATISTICS
from bench.metrics.statistics import Array
from bench.scenario.slo import Slo

Decision = Literal["meets", "breaks", "undecided"]
LEAST_TO_MEET, LEAST_TO_BREAK = 50.0, 10.0
"""Effective requests before either is said: with fewer, the autocorrelation itself is not known (Sokal 1997
asks for 50 correlation times at least). A growing queue needs no such count (`bench.findrate.overlimit`)."""
LEAST_SEEN = 30.0
LEAST_FOR_MEAN = 100.0
"""Effective requests before a mean is said to meet: bursts make it far from normal (found by simulation)."""
TAILS = (0.98, 0.95, 0.9)
CLUSTERS = 5.0
"""Independent bursts of slow requests from which their own correlation is known."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Requests of one uninterrupted stretch against one SLO, in the order they were due.

    value  the latency in milliseconds, infinite when lost;  for error_rate 0 or infinite
    over   what is over the limit, and `weight` of how much: 1 a request, for icl its gaps
    """

    value: Array
    over: Array
    weight: Array


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about one SLO at one rate.

    estimate  the share over the limit, or the mean in milliseconds
    effective how many independent requests tell as much
    log_meets, log_breaks  natural log of the evidence for either; 4.6 is 99 to 1
    lean      log of estimate / limit: below 0 it looks met
    """

    slo: Slo
    requests: int
    over: int
    estimate: float
    effective: float
    log_meets: float
    log_breaks: float
    lean: float


def decide(found: Sequence[Evidence], alpha: float, beta: float, seen: float = math.inf) -> Decision:
    """`meets` when every SLO is shown to be met, each at `alpha`; `breaks` when any is shown broken.

    seen: correlation times of the requests in flight that were watched. A queue that has not been through its
    ups and downs some LEAST_SEEN times has not shown what it does.
    alpha: chance of "meets" at a rate that breaks. beta: of "breaks" at one that meets, all SLOs together.
    """
    if any(e.log_breaks >= math.log(len(found) / beta) for e in found):
        return "breaks"
    shown = all(e.log_meets >= math.log(1 / alpha) and e.effective >= LEAST_TO_MEET for e in found)
    return "meets" if shown and seen >= LEAST_SEEN else "undecided"


def allowed_share(slo: Slo) -> float | None:
    """Share of requests that may be over the limit; None for a mean."""
    if slo.statistic is None:
        return slo.limit
    q = STATISTICS[slo.statistic]
    return None if q is None else 1 - q


def weigh(slo: Slo, parts: Sequence[Outcomes], in_flight: Sequence[Array] = ()) -> Evidence:
    """All that was seen at one rate against one SLO; `parts` are stretches with pauses between them.

    in_flight: of each stretch, the requests in the system as each request came.
    """
    parts = [part for part in parts if part.value.size]
    requests = sum(part.value.size for part in parts)
    if not requests:
        return Evidence(slo, 0, 0, math.nan, 0.0, 0.0, 0.0, 0.0)
    share = allowed_share(slo)
    if share is None:
        return _weigh_mean(slo, parts, requests, in_flight)
    return _weigh_share(slo, share, parts, requests, in_flight)


def _weigh_share(
    slo: Slo, allowed: float, parts: Sequence[Outcomes], n: int, in_flight: Sequence[Array]
) -> Evidence:
    over = sum(float(part.over.sum()) for part in parts)
    weight = sum(float(part.weight.sum()) for part in parts)
    share = over / weight
    # Of gaps pooled over requests (icl) this is the linearised ratio; one a request it is 0 or 1.
    series = [(part.over - share * part.weight) * n / weight for part in parts]
    worth = n / _design_effect(series, share, parts, n, in_flight)
    lost = share * worth
    stakes = [float(part.over.sum()) / float(part.weight.sum()) / allowed for part in parts]
    return Evidence(
        slo, n, round(share * n), share, worth,
        _log_mixture(lost, worth, allowed, _below(allowed)), 
        _either(_log_mixture(lost, worth, allowed, _above(allowed)), worth, stakes),
        math.log((lost / allowed + 1) / (worth + 1)),
    )  # fmt: skip


def _design_effect(
    series: Sequence[Array], share: float, parts: Sequence[Outcomes], n: int, in_flight: Sequence[Array]
) -> float:
    """Variance of the share over that of independent requests; at least 1.

    A few requests over the limit tell nothing of how they cluster: until there are CLUSTERS bursts of them
    two others stand in, that of the slowest requests and that of the fullest moments of the server.
    """
    binomial = share * (1 - share)
    spread = sum(float(part @ part) for part in series) / n
    effect = max(1.0, correlation_time(series) * spread / binomial) if binomial > 0 else 1.0
    if min(share, 1 - share) * n / effect >= CLUSTERS:
        return effect
    slowest = tail_time([part.value for part in parts], TAILS if share < 0.5 else (0.5,))
    return max(effect, slowest, tail_time(in_flight))


def tail_time(parts: Sequence[Array], shares: Sequence[float] = TAILS) -> float:
    """Correlation time of being above the 98th percentile, or above a lower one until bursts are enough.

    The further out the shorter it is in a queue, so that it is on the safe side for a limit beyond all seen.
    """
    parts = [part for part in parts if part.size]
    if not parts:
        return 1.0
    values = np.concatenate(parts)
    found = 1.0
    for q in shares:
        level = float(np.quantile(values, q, method="inverted_cdf"))
        if not (values > level).any():
            level = float(np.nextafter(level, -np.inf))
        above = [(part > level).astype(float) for part in parts]
        found = correlation_time(above, centre=True)
        if sum(float(part.sum()) for part in above) / found >= 2 * CLUSTERS:
            break
    return found


def _weigh_mean(slo: Slo, parts: Sequence[Outcomes], n: int, in_flight: Sequence[Array]) -> Evidence:
    values = np.concatenate([part.value for part in parts])
    over = int((values > slo.limit).sum())
    mean = float(values.mean())
    if not math.isfinite(mean):
        return Evidence(slo, n, over, math.inf, 0.0, -math.inf, 0.0, math.inf)
    worth = n / max(correlation_time([part.value - mean for part in parts]), tail_time(in_flight))
    spread = float(values.std())
    lean = math.log(mean / slo.limit) if mean > 0 else -math.inf
    apart = (slo.limit - mean) / max(spread, 1e-9 * slo.limit)
    log_meets = _log_normal_mixture(apart, worth) if worth >= LEAST_FOR_MEAN else min(0.0, apart)
    stakes = [float(part.value.mean()) / slo.limit for part in parts]
    return Evidence(
        slo, n, over, mean, worth, log_meets,
        _either(_log_normal_mixture(-apart, worth), worth, stakes), lean,
    )  # fmt: skip


def _either(by_requests: float, worth: float, stakes: Sequence[float]) -> float:
    """log of the mean of two kinds of evidence against the SLO: by effective requests, by whole stretches.

    `stakes`: of each stretch, its share over the limit (or its mean) over what is allowed. Where the SLO is
    met that is 1 or less on average, whatever hangs together inside a stretch, as each begins with an empty
    server; so who stakes a part of his capital on every stretch rarely grows rich (Shafer and Vovk 2019).
    """
    logs = [sum(math.log(1 - part + part * stake) for stake in stakes) for part in (0.25, 0.5, 0.75, 0.95)]
    logs = [value - math.log(2 * len(logs)) for value in logs]
    logs.append((by_requests if worth >= LEAST_TO_BREAK else 0.0) - math.log(2))
    peak = max(logs)
    return peak + math.log(sum(math.exp(value - peak) for value in logs))


def _log_normal_mixture(apart: float, n: float) -> float:
    """Evidence that the mean is on the side where `apart` (in standard deviations) is positive.

    The mixture of exp(d S - d^2 n / 2) over a half-normal d, tuned to be sharpest near 100 requests.
    """
    from math import erfc

    rho2 = 0.05
    scale = 1 + n * rho2
    z = n * apart * math.sqrt(rho2 / scale)
    if z < -30:
        return -math.inf
    return -0.5 * math.log(scale) + z * z / 2 + math.log(erfc(-z / math.sqrt(2)))


@cache
def _below(allowed: float) -> tuple[float, ...]:
    """Shares that would meet the SLO, even on log odds: 1/50 to 9/10 of what is allowed."""
    return _odds(allowed, np.geomspace(0.02, 0.9, 24))


@cache
def _above(allowed: float) -> tuple[float, ...]:
    """Shares that would break it: from 1.1 times the odds up to 20 to 1."""
    most = max(20.0, 20 * allowed / (1 - allowed)) * (1 - allowed) / allowed
    return _odds(allowed, np.geomspace(1.1, most, 24))


def _odds(share: float, factors: Array) -> tuple[float, ...]:
    odds = share / (1 - share) * factors
    return tuple((odds / (1 + odds)).tolist())


def _log_mixture(over: float, n: float, allowed: float, shares: tuple[float, ...]) -> float:
    """log of the mean over `shares` of P(data | share) / P(data | allowed). The counts may be fractions.

    For any truth on the other side of `allowed` each ratio is a supermartingale, so their mean is one too.
    """
    q = np.asarray(shares)
    logs = over * np.log(q / allowed) + (n - over) * np.log((1 - q) / (1 - allowed))
    peak = float(logs.max())
    return peak + math.log(float(np.exp(logs - peak).mean()))


@cache
def fewest_requests(slo: Slo, alpha: float) -> int:
    """Independent requests, none over the limit, after which the SLO is shown to be met."""
    share = allowed_share(slo)
    if share is None:
        return round(LEAST_FOR_MEAN)
    n = 1.0
    while _log_mixture(0.0, n, share, _below(share)) < math.log(1 / alpha):
        n *= 1.01
    return math.ceil(max(n, LEAST_TO_MEET))


def correlation_time(parts: Sequence[Array], *, centre: bool = False) -> float:
    """Integrated autocorrelation time, in requests: 1 when independent, at most the length of a part.

    Autocovariances are pooled over the parts. Geyer (1992), initial monotone positive sequence.
    `centre`: take the mean of all away first.
    """
    n = sum(part.size for part in parts)
    if n < 8:
        return 1.0
    if centre:
        mean = sum(float(part.sum()) for part in parts) / n
        parts = [part - mean for part in parts]
    covariance = np.zeros(max(part.size for part in parts))
    for part in parts:
        padded = 1 << (2 * part.size - 1).bit_length()
        spectrum = np.fft.rfft(part, padded)
        covariance[: part.size] += np.fft.irfft(spectrum * spectrum.conj(), padded)[: part.size]
    if covariance[0] <= 1e-12 * n * sum(float(np.abs(part).max()) for part in parts) ** 2:
        return 1.0
    even = covariance.size // 2 * 2
    pairs = (covariance[:even].reshape(-1, 2).sum(axis=1)) / covariance[0]
    positive = pairs[: int(np.argmax(pairs <= 0))] if (pairs <= 0).any() else pairs
    total = 2 * float(np.minimum.accumulate(positive).sum()) - 1
    # Autocovariances around the sample's own mean come out low by the variance of that mean.
    total = max(1.0, total / max(1 / 3, 1 - total / n))
    # One standard error up (Madras and Sokal 1988, with a window of three times): too much is the safe side.
    return min(total * (1 + math.sqrt(12 * total / n)), n / len(parts))
