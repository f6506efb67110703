"""`servetune capacity`: replicas, GPUs and money for any rate, from the measured safe rate of one replica."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from serving.spec import ServingSpec


@dataclass(frozen=True)
class Fleet:
    """What serves `rate_per_s`. With `spare` replicas lost, the rest still holds the SLOs.

    utilization: of the safe rate, all replicas running. Costs in the spec's currency, None without a price;
    per million tokens at this rate, not at full use: idle replicas are paid for.
    """

    rate_per_s: float
    spare: int
    replicas: int
    gpus: int
    utilization: float
    cost_per_hour: float | None
    cost_per_million_output_tokens: float | None
    cost_per_million_total_tokens: float | None


def fleet(spec: ServingSpec, rate_per_s: float, spare: int = 0) -> Fleet:
    """ValueError when the spec has no safe rate or the rate is not above 0."""
    safe = spec.capacity.safe_rate_per_s
    if safe is None or rate_per_s <= 0:
        raise ValueError("a rate above 0 and a spec with a measured safe rate are needed")
    replicas = math.ceil(rate_per_s / safe - 1e-9) + spare
    hour = spec.cost.replica_hour * replicas if spec.cost else None
    output, prompt = spec.workload.output_tokens_mean, spec.workload.input_tokens_mean

    def per_million(tokens: float | None) -> float | None:
        return None if hour is None or not tokens else hour / (rate_per_s * 3600 * tokens) * 1e6

    return Fleet(
        rate_per_s,
        spare,
        replicas,
        replicas * spec.hardware.gpus,
        rate_per_s / (safe * replicas),
        hour,
        per_million(output),
        per_million(output + prompt if output and prompt else None),
    )


def capacity_command(
    spec: Annotated[Path, typer.Argument(help="A spec that servetune spec wrote.", show_default=False)],
    rate: Annotated[
        list[float], typer.Option("--rate", help="Requests per second. Repeatable.", show_default=False)
    ],
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write the rows as JSON.")
    ] = None,
) -> int:
    """Replicas, GPUs and money for a rate of the measured workload, without and with one spare replica."""
    from bench.output import write_json
    from serving.errors import UserError
    from serving.spec import load

    found = load(spec)
    if found.capacity.safe_rate_per_s is None:
        hint = "measure open-loop rates (rate_per_s in the scenario) and write the spec again"
        raise UserError(f"{spec} has no safe rate: its run has no believable rate that held its SLOs", hint)
    if any(r <= 0 or not math.isfinite(r) for r in rate):
        raise UserError("a rate is a number of requests per second above 0", "--rate 40")
    rows = [fleet(found, r, spare) for r in rate for spare in (0, 1)]
    if json:
        facts = {"safe_rate_per_s": found.capacity.safe_rate_per_s, "headroom": found.capacity.headroom}
        write_json({"spec": found.metadata.id, "simulated": found.engine.simulated, **facts,
                    "rows": [asdict(row) for row in rows]}, json)  # fmt: skip
    if json != "-":
        _show(found, rows)
    return 0


def _show(spec: ServingSpec, rows: list[Fleet]) -> None:
    said = " (SIMULATED)" if spec.engine.simulated else ""
    tokens = f"{spec.workload.input_tokens_mean or 0:g} in, {spec.workload.output_tokens_mean or 0:g} out"
    print(f"safe per replica: {spec.capacity.safe_rate_per_s:.4g} requests/s of {tokens} tokens{said}")
    currency = spec.cost.currency if spec.cost else "no price"
    titles = f"{'rate/s':>8} {'spare':>5} {'replicas':>8} {'GPUs':>5} {'used':>5}"
    print(f"{titles} {currency + '/h':>12} {'/1M output':>11}")
    for row in rows:
        hour = "-" if row.cost_per_hour is None else f"{row.cost_per_hour:.4g}"
        million = row.cost_per_million_output_tokens
        each = "-" if million is None else f"{million:.4g}"
        numbers = f"{row.rate_per_s:8g} {row.spare:5d} {row.replicas:8d} {row.gpus:5d} {row.utilization:5.0%}"
        print(f"{numbers} {hour:>12} {each:>11}")
