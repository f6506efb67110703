"""How far is the candidate from the baseline on the very same tokens? Needs no labels, and certifies nothing.

Top-1 agreement, KL divergence (over the top alternatives plus one bucket for the rest: a lower bound),
perplexity, flipped choices. The baseline against itself gives what counts as no difference; a wire trips
above that. Divergence does not tell the direction of a change, and near the baseline not its size either
(arXiv 2606.19558), so a tripped wire decides only where the scenario sets a limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.accuracy import journal
from bench.accuracy.claims import Claim, Outcome
from bench.accuracy.floor import exact_share
from bench.accuracy.result import Evaluation, TaskResult
from bench.accuracy.task import Answer

Distribution = Mapping[str, float]


@dataclass(frozen=True)
class Distance:
    """Of one evaluation from another, over the texts both scored. Shares from 0 to 1, KL in nats.

    `perplexity_ratio` is candidate / baseline; None where a task was not scored on both sides.
    """

    positions: int = 0
    top1_agreement: float | None = None
    kl_mean: float | None = None
    kl_p99: float | None = None
    perplexity_ratio: float | None = None
    flips: float | None = None
    flipped_of: int = 0
    prefix_agreement: float | None = None
    long_answers: int = 0
    per_text: tuple[float, ...] = ()
    log_ratio_per_text: tuple[float, ...] = ()


def kl(p: Distribution, q: Distribution) -> float:
    """KL(p || q) in nats from log-probabilities of the likeliest tokens of each, the rest as one bucket.

    Merging outcomes can only lower a divergence (data processing), so this is a lower bound.
    """
    common = [token for token in p if token in q]
    total = sum(math.exp(p[t]) * (p[t] - q[t]) for t in common)
    rest_p = max(1e-12, 1 - math.fsum(math.exp(p[t]) for t in common))
    rest_q = max(1e-12, 1 - math.fsum(math.exp(q[t]) for t in common))
    return max(0.0, total + rest_p * math.log(rest_p / rest_q))


def distance(candidate: Evaluation, baseline: Evaluation) -> Distance:
    """Everything that both evaluations allow to be compared."""
    values: list[float] = []
    per_text: list[float] = []
    log_ratios: list[float] = []
    same = positions = 0
    ours, theirs = 0.0, 0.0
    for a, b in _pairs(candidate.folder, baseline.folder, "text"):
        if a.tokens != b.tokens:
            continue  # other tokens: other prompts, which the scorecard reports by itself
        here = []
        for x, y in zip(a.tops, b.tops, strict=True):
            if x is None or y is None:
                continue
            positions += 1
            same += max(x, key=x.__getitem__) == max(y, key=y.__getitem__)
            here.append(kl(y, x))
        values += here
        per_text.append(float(np.mean(here)) if here else 0.0)
        mine = math.fsum(v for v in a.logprobs if v is not None)
        base = math.fsum(v for v in b.logprobs if v is not None)
        ours, theirs = ours + mine, theirs + base
        log_ratios.append((base - mine) / max(1, len(a.tokens) - 1))
    flipped, of = flips(candidate, baseline)
    prefixes = _prefix_shares(candidate.folder, baseline.folder)
    return Distance(
        positions=positions,
        top1_agreement=same / positions if positions else None,
        kl_mean=float(np.mean(values)) if values else None,
        kl_p99=float(np.quantile(values, 0.99)) if values else None,
        perplexity_ratio=math.exp((theirs - ours) / positions) if positions else None,
        flips=flipped / of if of else None,
        flipped_of=of,
        prefix_agreement=float(np.mean(prefixes)) if prefixes else None,
        long_answers=len(prefixes),
        per_text=tuple(per_text),
        log_ratio_per_text=tuple(log_ratios),
    )


def flips(candidate: Evaluation, baseline: Evaluation) -> tuple[int, int]:
    """Changed choices and items, over the accuracy tasks of both: equal scores can hide many of them."""
    flipped = of = 0
    for name, base in baseline.tasks.items():
        other: TaskResult | None = candidate.tasks.get(name)
        if base.measures != "accuracy" or other is None:
            continue
        both = [
            i
            for i in base.scored
            if i in other.scored and base.scored[i].prompt == other.scored[i].prompt
            if not any(s.error or s.unanswered for s in (base.scored[i], other.scored[i]))
        ]
        flipped += sum(base.scored[i].choice != other.scored[i].choice for i in both)
        of += len(both)
    return flipped, of


WIRES: dict[str, tuple[Callable[[Distance], float | None], bool]] = {
    "kl_mean": (lambda d: d.kl_mean, True),
    "kl_p99": (lambda d: d.kl_p99, True),
    "perplexity_ratio": (lambda d: d.perplexity_ratio, True),
    "top1_agreement": (lambda d: d.top1_agreement, False),
    "flips": (lambda d: d.flips, True),
    "prefix_agreement": (lambda d: d.prefix_agreement, False),
}
"""Name -> its value, and whether more of it is worse."""


def wires(found: Distance, own: Distance | None, limits: Mapping[str, float]) -> list[Claim]:
    """One line a wire. `own`: the baseline against itself. A wire decides only where `limits` has it."""
    claims = []
    for name, (of, more_is_worse) in WIRES.items():
        value = of(found)
        if value is None:
            continue
        quiet = of(own) if own else None
        interval = _interval(name, found)
        limit = limits.get(name)
        verdict = _verdict(value, interval, limit, more_is_worse)
        unit = "nats" if name.startswith("kl") else "ratio" if "ratio" in name else "share"
        n = {"flips": found.flipped_of, "prefix_agreement": found.long_answers}.get(name, found.positions)
        note = _note(value, quiet, more_is_worse)
        claims.append(
            Claim(
                "Accuracy", f"tripwire: {name}", verdict, value, interval, limit, unit, n, note=note,
                counts=limit is not None,
            )
        )  # fmt: skip
    return claims


def _verdict(
    value: float, interval: tuple[float, float] | None, limit: float | None, more_is_worse: bool
) -> Outcome:
    if limit is None:
        return "INCONCLUSIVE"
    low, high = interval or (value, value)
    good, bad = (high <= limit, low > limit) if more_is_worse else (low >= limit, high < limit)
    return "PASS" if good else "FAIL" if bad else "INCONCLUSIVE"


def _note(value: float, quiet: float | None, more_is_worse: bool) -> str:
    if quiet is None:
        return "the baseline's own spread is not known: evaluate it twice (aa: true)"
    worse = value > quiet + 1e-9 if more_is_worse else value < quiet - 1e-9
    return f"{'tripped: beyond' if worse else 'quiet: within'} the baseline against itself ({quiet:.4g})"


def _interval(name: str, found: Distance) -> tuple[float, float] | None:
    if name == "flips":
        return exact_share(round((found.flips or 0) * found.flipped_of), found.flipped_of)
    if name == "kl_mean":
        return _spread(found.per_text)
    if name == "perplexity_ratio":
        spread = _spread(found.log_ratio_per_text)
        return None if spread is None else (math.exp(spread[0]), math.exp(spread[1]))
    return None


def _spread(values: Sequence[float]) -> tuple[float, float] | None:
    """95% t interval of the mean over texts, which are the independent units here."""
    from scipy.stats import t

    if len(values) < 5:
        return None
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(t.ppf(0.975, len(values) - 1)) * error
    return mean - half, mean + half


def _pairs(candidate: Path, baseline: Path, task: str) -> Iterator[tuple[Answer, Answer]]:
    first = {e.item: e for e in journal.read(candidate / f"{task}.jsonl") if not e.error}
    for entry in journal.read(baseline / f"{task}.jsonl"):
        other = first.get(entry.item)
        if not entry.error and other and other.prompt == entry.prompt:
            yield other.answers[0], entry.answers[0]


def _prefix_shares(candidate: Path, baseline: Path) -> list[float]:
    """Of each long greedy answer: its share up to the first character that differs."""
    shares = []
    for a, b in _pairs(candidate, baseline, "continuations"):
        both, longest = min(len(a.text), len(b.text)), max(len(a.text), len(b.text))
        letters = enumerate(zip(a.text[:both], b.text[:both], strict=True))
        same = next((i for i, (x, y) in letters if x != y), both)
        if longest:
            shares.append(same / longest)
    return shares
