"""The latencies that a spec promises, measured again under the load that they were promised for."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from bench.measure_load import measure
from bench.metrics import compute, enough
from bench.metrics.intervals import intervals
from bench.metrics.view import View
from bench.point import DRAWN, Load
from bench.traffic.prompts import prompts
from servetune.deploy.evidence.modelfiles import folder
from servetune.deploy.exporters import reading
from servetune.deploy.exporters.deployment import ExportedSlo
from servetune.deploy.spec import ServingSpec
from serving.claims import Claim, Verdict
from serving.engine import Endpoint

OUR_NAMES = {"ttft": "ttft", "tpot": "tpot", "e2e": "e2e", "itl": "icl"}
ATTEMPTS = 3


def performance(spec: ServingSpec, server: Endpoint) -> list[Claim]:
    """The measured load once more, and each latency that the spec promises.

    With draws of its own: the arrivals that made the promise look good must not confirm it. A measurement
    that may not be believed says nothing of the server: it is repeated, ATTEMPTS at most.
    """

    point = loaded(spec)
    if point is None or not spec.slos:
        return [Claim("performance", "INCONCLUSIVE", "the spec has no evidence whose load can be repeated")]
    words = prompts(tokenizer(spec))
    for _ in range(ATTEMPTS):
        seed = fresh_seed()
        run, judgement = measure(server, point, words, (), seed=seed)
        if judgement.verdict != "invalid":
            break
    drawn = f", arrivals drawn afresh (seed {seed})" if point.arrivals in DRAWN else ""
    why = "; ".join(r.text for r in judgement.reasons if r.verdict == "invalid")
    found, known, lacking = compute(run), intervals(run), enough.lacking(View(run))
    claims = []
    for fact, slo in zip(spec.slos, reading.deployment(spec).slos, strict=True):
        name = f"{OUR_NAMES[fact.metric]}_p{fact.percentile:g}_ms"
        interval = known.get(name)
        low_high = (float(interval.low), float(interval.high)) if interval else None
        claim = judged(name, slo, found.get(name), low_high, why, lacking.get(name, ""))
        claims.append(replace(claim, note=claim.note + drawn))
    return claims


def fresh_seed() -> int:
    """Of draws that no measurement before had."""
    return secrets.randbits(32)


def tokenizer(spec: ServingSpec) -> str | None:
    """Folder of the model's own tokenizer, where the model lies here."""
    weights = folder(spec.model.source, spec.model.revision)
    return str(weights.resolve()) if weights and (weights / "tokenizer.json").is_file() else None


def judged(
    name: str,
    slo: ExportedSlo,
    value: float | None,
    interval: tuple[float, float] | None,
    unbelieved: str,
    lacking: str = "",
) -> Claim:
    """One latency in milliseconds against the lower of its SLO and its regression limit.

    `unbelieved`: why the measurement is invalid; empty when it is not. `lacking`: how many of the samples
    that the percentile needs there were.
    """
    limit = 1000 * min(slo.limit_s, slo.regression_s or slo.limit_s)
    if value is None or unbelieved:
        why = f"undetermined: {lacking or 'too few samples'}"
        why = f"this measurement is invalid: {unbelieved}" if unbelieved else why
        return Claim(name, "INCONCLUSIVE", why, value, interval, limit)
    low = interval[0] if interval else value
    verdict: Verdict = "PASS" if value <= limit else "FAIL" if low > limit else "INCONCLUSIVE"
    return Claim(name, verdict, f"{value:.4g} ms, at most {limit:.4g} ms", value, interval, limit)


def loaded(spec: ServingSpec) -> Load | None:
    """The load that the promises are of: the highest rate that held, else that of the source."""
    held = [e for e in spec.evidence if e.get("verdict") == "ok" and e.get("slo") == "met" and "load" in e]
    if not held:
        return None
    source = spec.metadata.source.rpartition("/")[2]

    def rank(e: Mapping[str, Any]) -> tuple[float, bool, str]:
        return e["load"].get("rate_per_s", 0.0), e.get("key") == source, str(e.get("key"))

    load: Mapping[str, Any] = max(held, key=rank)["load"]
    names = {field.name for field in fields(Load)}
    return Load(**load) if set(load) <= names and load.get("arrivals") != "trace" else None
