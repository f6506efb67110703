"""A soak: the promised load for hours. Does memory grow, does latency drift, do requests fail?

Drift and growth are slopes over the medians of BLOCKS equal stretches, so that what neighbouring requests
share counts once; each is a share of the level over the whole soak, with its 95 % interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.records.model import Record, RequestError, Sample
from serving.claims import Claim, Verdict

BLOCKS = 20
LEAST_BLOCKS = 8
DRIFT = 0.10
"""Of the latency, from the first to the last request: a tenth slower is what users of a day would see."""
GROWTH = 0.05
"""Of the memory, over the soak, its first fifth left out: caches fill up first."""
WARM_SHARE = 0.2
ERROR_SHARE = 0.001


def judged(records: Sequence[Record], samples: Sequence[Sample], *, alive: bool = True) -> list[Claim]:
    """Errors, drift of TTFT and of the whole answer, growth of memory. Times in seconds from the start."""
    claims = [errors(records, alive=alive)]
    good = [r for r in records if r.error is None and r.sent_s is not None and r.first_s and r.last_s]
    for name, values in (
        ("soak ttft drift", [(r.sent_s or 0.0, (r.first_s or 0.0) - (r.sent_s or 0.0)) for r in good]),
        ("soak e2e drift", [(r.sent_s or 0.0, (r.last_s or 0.0) - (r.sent_s or 0.0)) for r in good]),
    ):
        claims.append(drift(name, values, DRIFT))
    memory = sorted((s.t_s, s.value) for s in samples if s.name == "rss_bytes" and s.t_s >= 0)
    if memory:
        end = memory[-1][0]
        memory = [(t, v) for t, v in memory if t >= WARM_SHARE * end]
    claims.append(drift("soak memory", memory, GROWTH))
    return claims


def errors(records: Sequence[Record], *, alive: bool = True) -> Claim:
    """FAIL when the server died or surely more than ERROR_SHARE failed; PASS without a failure."""
    asked_for = [r for r in records if r.error is not RequestError.CENSORED]
    failed = sum(r.error is not None for r in asked_for)
    share = failed / len(asked_for) if asked_for else 0.0
    text = f"{failed} of {len(asked_for)} requests failed"
    if not alive:
        return Claim("soak errors", "FAIL", f"the server died; {text}", share, None, ERROR_SHARE)
    if not asked_for:
        return Claim("soak errors", "INCONCLUSIVE", "no request was sent", None, None, ERROR_SHARE)
    from scipy.stats import beta

    low = float(beta.ppf(0.05, failed, len(asked_for) - failed + 1)) if failed else 0.0
    verdict: Verdict = "PASS" if not failed else "FAIL" if low > ERROR_SHARE else "INCONCLUSIVE"
    return Claim("soak errors", verdict, text, share, None, ERROR_SHARE)


def drift(name: str, values: Sequence[tuple[float, float]], limit: float) -> Claim:
    """Change from the first to the last value, as a share of their level, against the limit."""
    found = change(values)
    if found is None:
        text = f"{len(values)} values are too few, or too unlike, for {LEAST_BLOCKS} stretches"
        return Claim(name, "INCONCLUSIVE", text, None, None, limit)
    middle, low, high = found
    verdict: Verdict = "FAIL" if low > limit else "PASS" if high <= limit else "INCONCLUSIVE"
    text = f"{middle:+.1%} [{low:+.1%}, {high:+.1%}] over the soak, at most {limit:+.0%}"
    return Claim(name, verdict, text, middle, (low, high), limit)


def change(values: Sequence[tuple[float, float]]) -> tuple[float, float, float] | None:
    """Estimate and 95 % bounds of (last - first) / level by regression over blocks of (time, value)."""
    import numpy as np
    from scipy import stats

    if len(values) < 3 * LEAST_BLOCKS:
        return None
    t, v = np.array(sorted(values), dtype=float).T
    span = float(t[-1] - t[0])
    blocks = min(BLOCKS, len(values) // 3)
    parts = np.array_split(np.arange(t.size), blocks)
    at = np.array([t[p].mean() for p in parts])
    level = np.array([np.median(v[p]) for p in parts])
    base = float(np.median(level))
    if span <= 0 or base <= 0:
        return None
    fit = stats.linregress(at, level)
    scale = span / base
    reach = float(stats.t.ppf(0.975, blocks - 2)) * float(fit.stderr)
    if not math.isfinite(reach):
        return None
    slope = float(fit.slope)
    return slope * scale, (slope - reach) * scale, (slope + reach) * scale
