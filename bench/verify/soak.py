"""A soak: the promised load for hours. Does memory grow, does latency drift, do requests fail?

Drift and growth are slopes over the medians of BLOCKS equal stretches, so that what neighbouring requests
share counts once; each is a share of the level over the whole soak, with its 95 % interval.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench.grid import Load
from bench.records import Record, RequestError, Sample
from bench.spec.claim import Claim, Outcome
from bench.verify.promises import fresh_seed, loaded, tokenizer
from serving.engine import Endpoint
from serving.spec import ServingSpec

BLOCKS = 20
LEAST_BLOCKS = 8
DRIFT = 0.10
"""Of the latency, from the first to the last request: a tenth slower is what users of a day would see."""
GROWTH = 0.05
"""Of the memory, over the soak, its first fifth left out: caches fill up first."""
WARM_SHARE = 0.2
ERROR_SHARE = 0.001


def soak(
    spec: ServingSpec, server: Endpoint, seconds: float, pid: int | None, alive: Callable[[], bool]
) -> list[Claim]:
    """Load of the spec at its safe rate for that long. `pid`: root of the server's processes."""
    from bench.load.drive import drive
    from bench.load.lengths import fitted
    from bench.telemetry.probe import Sampler
    from bench.traffic.prompts import prompts

    point = loaded(spec)
    if point is None:
        return [Claim("soak", "inconclusive", "the spec has no evidence whose load can be repeated")]
    load = asked(spec, point, seconds)
    words, _ = fitted(server, load, prompts(tokenizer(spec)))
    sampler = Sampler(pid, server.url, spec.hardware.device, interval_s=max(0.5, seconds / 2000))

    def begin() -> None:
        stack.enter_context(sampler)

    with tempfile.TemporaryDirectory(prefix="servetune-soak-") as scratch, ExitStack() as stack:
        driven = drive(
            server, load, seed=fresh_seed(), prompts=words, folder=Path(scratch) / "load",
            salt=f"soak-{spec.metadata.id}",
            before_start=begin, alive=alive,
        )  # fmt: skip
    samples = sampler.samples(driven.started_monotonic_s)
    return judged(driven.records, samples, alive=alive())


def asked(spec: ServingSpec, point: Load, seconds: float) -> Load:
    """The promised load, at the safe rate where it is open, for so many seconds."""
    rate = spec.capacity.safe_rate_per_s if point.rate_per_s else None
    return replace(point, duration_s=seconds, requests=None, rate_per_s=rate)


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
        return Claim("soak errors", "fail", f"the server died; {text}", share, None, ERROR_SHARE)
    if not asked_for:
        return Claim("soak errors", "inconclusive", "no request was sent", None, None, ERROR_SHARE)
    from scipy.stats import beta

    low = float(beta.ppf(0.05, failed, len(asked_for) - failed + 1)) if failed else 0.0
    verdict: Outcome = "pass" if not failed else "fail" if low > ERROR_SHARE else "inconclusive"
    return Claim("soak errors", verdict, text, share, None, ERROR_SHARE)


def drift(name: str, values: Sequence[tuple[float, float]], limit: float) -> Claim:
    """Change from the first to the last value, as a share of their level, against the limit."""
    found = change(values)
    if found is None:
        text = f"{len(values)} values are too few, or too unlike, for {LEAST_BLOCKS} stretches"
        return Claim(name, "inconclusive", text, None, None, limit)
    middle, low, high = found
    verdict: Outcome = "fail" if low > limit else "pass" if high <= limit else "inconclusive"
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
