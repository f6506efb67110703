"""Ratio of two measured quantities with an interval that an A/A comparison leaves 5 times in 100.

Everything is on the log scale, where a ratio is a difference and a spread is relative. The unit of
evidence is the launch: requests of one launch share its compilation, memory layout and clocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.metrics.statistics import CONFIDENCE, Array, Interval

RESTART_SPREAD = 0.03
"""Relative spread between launches taken for granted while it is not measured (one launch a side)."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """B / A. Spreads are relative standard deviations; None where they could not be seen."""

    ratio: float
    interval: Interval
    launches: tuple[int, int]
    between: float | None
    within: float | None
    note: str = ""

    @property
    def different(self) -> bool:
        """Whether the interval excludes 1."""
        return not self.interval.low <= 1 <= self.interval.high


def ratio(
    a: Sequence[Sequence[float]],
    b: Sequence[Sequence[float]],
    within: tuple[float, float] | None = None,
    *,
    confidence: float = CONFIDENCE,
    restart_spread: float = RESTART_SPREAD,
    paired: bool = False,
) -> Ratio:
    """Ratio of positive measurements, one inner sequence a launch, one value a repeat on that launch.

    Two launches or more on a side: t interval over the launch means (Welch 1947; with one launch on
    the other side, its spread is taken to be the same). One launch a side: the standard errors
    `within` each run (relative, see `relative_error`), and `restart_spread` for what was not seen.
    paired: launch i of both sides met the same draws, two launches a side or more: Student's t over the
    differences, in which what the draws did to both is not contained.
    """
    logs = [[float(np.mean(np.log(launch))) for launch in side] for side in (a, b)]
    counts = (len(logs[0]), len(logs[1]))
    effect = float(np.mean(logs[1]) - np.mean(logs[0]))
    note, between = "", None
    if max(counts) >= 2:
        error, degrees = (_paired if paired else _between)(logs[0], logs[1])
        between = error / math.sqrt(1 / counts[0] + 1 / counts[1])
    else:
        measured = math.hypot(*within) if within else 0.0
        error, degrees = math.hypot(measured, math.sqrt(2) * restart_spread), 20.0
        note = (
            f"one launch a side: the spread between restarts is unknown, {restart_spread:.0%} is assumed; "
            "repeat with restart: true to measure it"
        )
    half = _t(confidence, degrees) * error
    interval = Interval(math.exp(effect - half), math.exp(effect + half), confidence)
    return Ratio(math.exp(effect), interval, counts, between, _within([*a, *b], within), note)


def _between(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Standard error of the difference of means and its degrees of freedom (Welch-Satterthwaite)."""
    if min(len(a), len(b)) < 2:
        many = a if len(a) > len(b) else b
        return float(np.std(many, ddof=1)) * math.sqrt(1 / len(a) + 1 / len(b)), len(many) - 1.0
    va, vb = float(np.var(a, ddof=1)) / len(a), float(np.var(b, ddof=1)) / len(b)
    if va + vb == 0:
        return 0.0, len(a) + len(b) - 2.0
    return math.sqrt(va + vb), (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))


def _paired(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Standard error of the mean difference of pairs, and its degrees of freedom."""
    differences = np.subtract(b, a)
    return float(np.std(differences, ddof=1)) / math.sqrt(len(a)), len(a) - 1.0


def _within(launches: Sequence[Sequence[float]], errors: tuple[float, float] | None) -> float | None:
    """Spread between repeats on the same launch; with single repeats, the error within a run."""
    repeated = [np.var(np.log(launch), ddof=1) for launch in launches if len(launch) > 1]
    if repeated:
        return float(np.sqrt(np.mean(repeated)))
    return math.sqrt((errors[0] ** 2 + errors[1] ** 2) / 2) if errors else None


def relative_error(
    values: Array, statistic: Callable[[Array], float], *, draws: int = 400, seed: int = 0
) -> float | None:
    """Relative standard error of a statistic of values in time order: block bootstrap.

    Blocks of sqrt(n) consecutive values are drawn with replacement (Carlstein 1986; Kuensch 1989), so
    that what is correlated within a block stays so. None below 64 values or when the statistic is 0.
    """
    n = values.size
    if n < 64:
        return None
    length = math.isqrt(n)
    blocks = np.array_split(values, n // length)
    count, rng = len(blocks), np.random.default_rng(seed)
    drawn = np.array(
        [
            statistic(np.concatenate([blocks[i] for i in rng.integers(count, size=count)]))
            for _ in range(draws)
        ]
    )
    centre = statistic(values)
    if centre == 0 or not np.isfinite(drawn).all():
        return None
    return float(drawn.std(ddof=1) / abs(centre) * math.sqrt(count / (count - 1)))


def block_interval(
    values: Array, statistic: Callable[[Array], float], confidence: float = CONFIDENCE, *, seed: int = 0
) -> Interval | None:
    """Interval of a statistic of values in time order, dependence included; None below 64 values.

    Estimate times exp(+-t x the bootstrap's relative error): the percentile interval of few blocks
    is too short (Davison and Hinkley 1997, section 8.2). Needs positive values.
    """
    error = relative_error(values, statistic, seed=seed)
    if error is None:
        return None
    centre = statistic(values)
    if centre <= 0:
        return None
    half = _t(confidence, values.size // math.isqrt(values.size) - 1) * error
    return Interval(centre * math.exp(-half), centre * math.exp(half), confidence)


def _t(confidence: float, degrees: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, degrees))
