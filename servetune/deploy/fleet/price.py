"""Replicas, GPUs and money for a rate of the measured workload."""

from __future__ import annotations

import math
from dataclasses import dataclass

from servetune.deploy.spec import ServingSpec


@dataclass(frozen=True)
class Fleet:
    """What serves `rate_per_s`. With `spare` replicas lost, the rest still holds the SLOs.

    gpus: None where the spec does not know those of one replica. utilization: of the safe rate, all replicas
    running. Costs in the spec's currency, None without a price; per million tokens at this rate, not at full
    use: idle replicas are paid for.
    """

    rate_per_s: float
    spare: int
    replicas: int
    gpus: int | None
    utilization: float | None
    cost_per_hour: float | None
    cost_per_million_output_tokens: float | None
    cost_per_million_total_tokens: float | None


def fleet(spec: ServingSpec, rate_per_s: float, spare: int = 0) -> Fleet:
    """ValueError when the spec has no safe rate or the rate is not above 0."""
    safe = spec.capacity.safe_rate_per_s
    if safe is None or rate_per_s <= 0:
        raise ValueError("a rate above 0 and a spec with a measured safe rate are needed")
    return priced(spec, rate_per_s, math.ceil(rate_per_s / safe - 1e-9) + spare, spare)


def priced(
    spec: ServingSpec, rate_per_s: float, replicas: int, spare: int, tokens: tuple[float, float] | None = None
) -> Fleet:
    """What so many replicas come to. `tokens`: mean input and output, if not the spec's."""
    safe = spec.capacity.safe_rate_per_s if tokens is None else None
    hour = spec.cost.replica_hour * replicas if spec.cost else None
    known = tokens or (spec.workload.input_tokens_mean, spec.workload.output_tokens_mean)
    prompt, output = known

    def per_million(count: float | None) -> float | None:
        return None if hour is None or not count else hour / (rate_per_s * 3600 * count) * 1e6

    return Fleet(
        rate_per_s,
        spare,
        replicas,
        replicas * spec.gpus if spec.gpus or spec.hardware.device == "cpu" else None,
        rate_per_s / (safe * replicas) if safe else None,
        hour,
        per_million(output),
        per_million(output + prompt if output and prompt else None),
    )
