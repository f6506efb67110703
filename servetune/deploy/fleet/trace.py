"""`servetune capacity --trace`: the fleet that recorded traffic needs, by simulation, and what it costs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.traffic.trace import read
from servetune.deploy.exporters import reading
from servetune.deploy.fleet.price import priced
from servetune.deploy.fleet.service import fit
from servetune.deploy.fleet.simulation import CHOICES, Routing, Traffic, fits, needed, simulate
from servetune.deploy.spec import ServingSpec
from serving.errors import UserError

BEYOND, FEW = 1.5, 0.05
"""More than FEW of the requests BEYOND times the measured mean length: that was not measured."""


def answer(
    spec: ServingSpec, file: Path, scale: float, routing: str, *, extrapolate: bool = False
) -> dict[str, Any]:
    """Rows without and with a spare replica, the interval, the model's error. Headroom is in the traffic.

    UserError: no SLO, too few measured loads, traffic unlike the measured workload without `extrapolate`.
    """

    slos = reading.deployment(spec).slos
    if not slos:
        raise UserError("the spec has no SLO to hold", "give the scenario `slos:` and write the spec again")
    if routing not in CHOICES:
        raise UserError(f"routing {routing!r}; there are: {', '.join(CHOICES)}", "--routing random")
    rule: Routing = routing
    service = fit(spec)
    longest = spec.effective.get("max_model_len")
    traffic, refused = fits(Traffic.of(read(file)), longest if isinstance(longest, int) else None)
    if traffic.at_s.size < 2 or traffic.duration_s <= 0:
        raise UserError(f"{file} holds no traffic that this server admits", "raise max_model_len, or another")
    unlike = _unlike(spec, traffic)
    if unlike and not extrapolate:
        raise UserError(
            f"{file}: {unlike}; nobody measured those", "measure such requests, or --extrapolate to guess"
        )
    factor = scale / (1 - spec.capacity.headroom)
    count, low, high = needed(service, traffic, slos, rule, factor)
    shown = simulate(service, traffic, count, slos, rule, factor)
    rate = scale * traffic.at_s.size / traffic.duration_s
    tokens = float(traffic.inputs.mean()), float(traffic.outputs.mean())
    rows = [priced(spec, rate, count + spare, spare, tokens) for spare in (0, 1)]
    return {
        "spec": spec.metadata.id,
        "simulated": True,
        "trace": file.name,
        "extrapolated": unlike,
        "left_out": refused,
        "routing": routing,
        "headroom": spec.capacity.headroom,
        "model": asdict(service),
        "interval": [low, high],
        "slos": [{"slo": slo.name, "late": late} for slo, late in zip(slos, shown.late, strict=True)],
        "currency": spec.cost.currency if spec.cost else None,
        "rows": [asdict(row) for row in rows],
    }


def _unlike(spec: ServingSpec, traffic: Traffic) -> str | None:
    for name, values, mean in (
        ("input", traffic.inputs, spec.workload.input_tokens_mean),
        ("output", traffic.outputs, spec.workload.output_tokens_mean),
    ):
        share = float((values > BEYOND * mean).mean()) if mean else 1.0
        if share > FEW:
            measured = f"over {BEYOND:g} times the measured {mean:g}" if mean else "any number of"
            return f"{share:.0%} of the requests have {measured} {name} tokens"
    return None
