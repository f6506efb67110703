"""`servetune capacity`: replicas, GPUs and money for any rate, from the measured safe rate of one replica,
or for recorded traffic, by simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from serving.spec import ServingSpec


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


def capacity_command(
    spec: Annotated[Path, typer.Argument(help="A spec that servetune spec wrote.", show_default=False)],
    rate: Annotated[
        list[float] | None, typer.Option("--rate", help="Requests per second. Repeatable.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Recorded traffic (CSV or JSONL): simulated, see docs/deploying.md.")
    ] = None,
    scale: Annotated[float, typer.Option(min=0.001, help="So many times the traffic of the trace.")] = 1.0,
    routing: Annotated[str, typer.Option(help="random or least-request (of two).")] = "random",
    extrapolate: Annotated[
        bool, typer.Option("--extrapolate", help="Simulate requests longer than any that was measured.")
    ] = False,
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write the rows as JSON.")
    ] = None,
) -> int:
    """Replicas, GPUs and money for a rate of the measured workload, or for a trace; with a spare one too."""
    from bench.output import write_json
    from serving.errors import UserError
    from serving.spec import load

    if bool(rate) == (trace is not None):
        raise UserError("a rate or a trace says how much traffic there is", "--rate 40, or --trace FILE")
    found = load(spec)
    if trace is not None:
        from bench.fleet.trace import answer, show

        data = answer(found, trace, scale, routing, extrapolate=extrapolate)
        if json:
            write_json(data, json)
        if json != "-":
            show(data)
        return 0
    if found.capacity.safe_rate_per_s is None:
        hint = "measure open-loop rates (rate_per_s in the scenario) and write the spec again"
        raise UserError(f"{spec} has no safe rate: its run has no believable rate that held its SLOs", hint)
    if any(r <= 0 or not math.isfinite(r) for r in rate or ()):
        raise UserError("a rate is a number of requests per second above 0", "--rate 40")
    rows = [fleet(found, r, spare) for r in rate or () for spare in (0, 1)]
    if json:
        of = found.capacity
        facts = {"safe_rate_per_s": of.safe_rate_per_s, "headroom": of.headroom,
                 "interval_per_s": [of.held_per_s, of.broke_per_s]}  # fmt: skip
        write_json({"spec": found.metadata.id, "simulated": found.engine.simulated, **facts,
                    "rows": [asdict(row) for row in rows]}, json)  # fmt: skip
    if json != "-":
        _show(found, rows)
    return 0


def _show(spec: ServingSpec, rows: list[Fleet]) -> None:
    said, of = " (SIMULATED)" if spec.engine.simulated else "", spec.capacity
    tokens = f"{spec.workload.input_tokens_mean or 0:g} in, {spec.workload.output_tokens_mean or 0:g} out"
    print(f"safe per replica: {of.safe_rate_per_s:.4g} requests/s of {tokens} tokens{said}")
    if of.held_per_s is not None:
        broke = f"{of.broke_per_s:.4g}/s broke them" if of.broke_per_s else "no higher rate was measured"
        print(f"  {of.held_per_s:.4g}/s held the SLOs, {broke}; {of.headroom:.0%} headroom taken off")
    table(rows, spec.cost.currency if spec.cost else None)


def table(rows: Sequence[Fleet], currency: str | None) -> None:
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
