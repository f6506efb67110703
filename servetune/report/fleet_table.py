"""`servetune capacity` on stdout: replicas, GPUs and money."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from servetune.deploy.fleet.price import Fleet
from servetune.deploy.spec import ServingSpec


def show_fleet(spec: ServingSpec, rows: list[Fleet]) -> None:
    """Replicas and money at given rates."""
    said, of = " (SIMULATED)" if spec.engine.simulated else "", spec.capacity
    tokens = f"{spec.workload.input_tokens_mean or 0:g} in, {spec.workload.output_tokens_mean or 0:g} out"
    print(f"safe per replica: {of.safe_rate_per_s:.4g} requests/s of {tokens} tokens{said}")
    if of.held_per_s is not None:
        broke = f"{of.broke_per_s:.4g}/s broke them" if of.broke_per_s else "no higher rate was measured"
        print(f"  {of.held_per_s:.4g}/s held the SLOs, {broke}; {of.headroom:.0%} headroom taken off")
    table(rows, spec.cost.currency if spec.cost else None)


def table(rows: Sequence[Fleet], currency: str | None) -> None:
    """One row a number of replicas."""
    titles = f"{'rate/s':>8} {'spare':>5} {'replicas':>8} {'GPUs':>5} {'used':>5}"
    print(f"{titles} {(currency or 'no price') + '/h':>12} {'/1M output':>11}")
    for row in rows:
        hour = "-" if row.cost_per_hour is None else f"{row.cost_per_hour:.4g}"
        million = row.cost_per_million_output_tokens
        each = "-" if million is None else f"{million:.4g}"
        used = "-" if row.utilization is None else f"{row.utilization:.0%}"
        gpus = "-" if row.gpus is None else str(row.gpus)
        numbers = f"{row.rate_per_s:8.4g} {row.spare:5d} {row.replicas:8d} {gpus:>5} {used:>5}"
        print(f"{numbers} {hour:>12} {each:>11}")


def show_simulated_fleet(data: dict[str, Any]) -> None:
    """Replicas and money for a trace, as the simulation of the fleet found them."""
    model, (low, high) = data["model"], data["interval"]
    print(
        f"simulated: {data['trace']}, {data['routing']} routing, {data['headroom']:.0%} headroom; at the "
        f"measured loads the model is within {model['error']:.0%} of what was measured"
    )
    if data["extrapolated"]:
        print(f"EXTRAPOLATED: {data['extrapolated']}")
    if data["left_out"]:
        print(f"{data['left_out']} requests of the trace are longer than the server admits and left out")
    table([Fleet(**row) for row in data["rows"]], data["currency"])
    print(f"replicas: {low} to {high} for a server faster or slower by that error")
    for one in data["slos"]:
        print(f"  {one['slo']}: {one['late']:.2%} of the requests over its limit")
