"""How many replicas does recorded traffic need? Arrivals of a trace, simulated over a fleet of replicas.

Each request goes to a replica by chance, as a Kubernetes Service does, or to the emptier of two, as Envoy's
least-request does. Fleets above MOST replicas are simulated as MOST of them with their share of the traffic:
with either rule replicas depend on one another only through that share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.traffic.trace import Arrival
from servetune.deploy.exporters.deployment import ExportedSlo
from servetune.deploy.fleet.service import END_S, Replica, Service
from serving.errors import UserError

Routing = Literal["random", "least-request"]
CHOICES: dict[Routing, int] = {"random": 1, "least-request": 2}
MOST = 100
REQUESTS = 10_000
"""Most requests of one simulated fleet; longer traces are thinned, with fewer replicas for fewer requests."""
FEWEST = 20
"""Replicas that are simulated all the same, so that a choice of two is one."""
JITTER_S = 30.0
"""Copies of a trace that stand for more traffic are moved so much: peaks of a minute and longer stay."""
LIMIT = 1_000_000
RESOLUTION = 100


@dataclass(frozen=True)
class Traffic:
    """Requests sorted by arrival, from 0 s on."""

    at_s: NDArray[np.float64]
    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]

    @classmethod
    def of(cls, trace: Sequence[Arrival]) -> Traffic:
        return cls(
            np.array([a.at_s for a in trace]),
            np.array([a.input_tokens for a in trace]),
            np.array([a.output_tokens for a in trace]),
        )

    @property
    def duration_s(self) -> float:
        return float(self.at_s[-1]) if self.at_s.size else 0.0

    def times(self, factor: float, seed: int = 0) -> Traffic:
        """`factor` times the traffic: whole copies, moved by up to JITTER_S, and a thinned one."""
        random = np.random.default_rng(seed)
        chosen = [np.arange(self.at_s.size)] * int(factor)
        chosen.append(np.flatnonzero(random.random(self.at_s.size) < factor - int(factor)))
        index = np.concatenate(chosen)
        at = self.at_s[index]
        if factor > 1:
            at = np.clip(at + random.uniform(-JITTER_S, JITTER_S, at.size), 0, self.duration_s)
        order = np.argsort(at, kind="stable")
        return Traffic(at[order], self.inputs[index][order], self.outputs[index][order])


@dataclass(frozen=True)
class Simulated:
    """One fleet under the traffic. `late`: share of requests over its limit, one an SLO."""

    replicas: int
    requests: int
    late: tuple[float, ...]
    holds: bool


def simulate(
    service: Service,
    traffic: Traffic,
    replicas: int,
    slos: Sequence[ExportedSlo],
    routing: Routing,
    factor: float = 1.0,
    seed: int = 0,
) -> Simulated:
    """`replicas` servers under `factor` times the traffic."""
    whole = max(1.0, factor * traffic.at_s.size)
    shown = min(replicas, max(FEWEST, min(MOST, int(REQUESTS * replicas / whole))))
    if factor * shown != replicas:
        traffic = traffic.times(factor * shown / replicas, seed)
    size = traffic.at_s.size
    if size == 0:
        return Simulated(replicas, 0, tuple(0.0 for _ in slos), True)
    first, done = [0.0] * size, [0.0] * size
    inputs, outputs = traffic.inputs.tolist(), traffic.outputs.tolist()
    servers = [Replica(service, inputs, outputs, first, done) for _ in range(shown)]
    picks = np.random.default_rng(seed + 1).integers(0, shown, (size, CHOICES[routing])).tolist()
    for index, at in enumerate(traffic.at_s.tolist()):
        found = [servers[n] for n in picks[index]]
        if len(found) > 1:
            for server in found:
                server.advance(at)
        min(found, key=lambda server: server.in_flight).arrive(index, at)
    for server in servers:
        server.advance(END_S)
    begun, ended = np.array(first), np.array(done)
    gaps = np.maximum(traffic.outputs - 1, 1)
    values = {"ttft": begun - traffic.at_s, "e2e": ended - traffic.at_s, "tpot": (ended - begun) / gaps}
    values["itl"] = values["tpot"]
    late = tuple(float((values[slo.metric] > slo.limit_s).mean()) for slo in slos)
    holds = all(share <= slo.budget + 1e-12 for share, slo in zip(late, slos, strict=True))
    return Simulated(replicas, size, late, holds)


def _possible(service: Service, traffic: Traffic, slos: Sequence[ExportedSlo]) -> None:
    ttft = service.prefill_s_per_token * traffic.inputs
    tpot = np.full(traffic.inputs.size, service.step_s + service.per_sequence_s)
    alone = {"ttft": ttft, "tpot": tpot, "itl": tpot, "e2e": ttft + tpot * (traffic.outputs - 1)}
    for slo in slos:
        share = float((alone[slo.metric] > slo.limit_s).mean())
        if share > slo.budget:
            raise UserError(
                f"no number of replicas keeps {slo.name}: {share:.1%} of its requests are over "
                f"its {slo.limit_s:g} s even when they are alone, {slo.budget:.1%} may be",
                "loosen the SLO for such requests, or measure a faster configuration",
            )


def least(holds: Callable[[int], bool], start: int) -> int:
    """Smallest fleet that holds, to 1 %, more never being worse. UserError beyond LIMIT."""
    low, high = 0, max(1, start)
    while not holds(high):
        low, high = high, 2 * high
        if high > LIMIT:
            raise UserError(
                "no number of replicas keeps the SLOs: a request that is alone breaks them",
                "loosen the SLO for such requests, or measure a faster configuration",
            )
    while high - low > max(1, high // RESOLUTION):
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def needed(
    service: Service, traffic: Traffic, slos: Sequence[ExportedSlo], routing: Routing, factor: float = 1.0
) -> tuple[int, int, int]:
    """Replicas for the service as fitted, and for one faster and slower by its error.

    UserError when even requests that meet nobody are late too often.
    """

    def of(one: Service, start: int) -> int:
        @lru_cache
        def holds(count: int) -> bool:
            return simulate(one, traffic, count, slos, routing, factor).holds

        _possible(one, traffic, slos)
        return least(holds, start)

    busy_s = float((traffic.inputs * service.prefill_s_per_token).sum())
    busy_s += float(traffic.outputs.sum()) * service.per_sequence_s
    middle = of(service, max(1, int(factor * busy_s / max(1.0, traffic.duration_s))))
    error = min(service.error, 0.9)
    return middle, of(service.slower(1 - error), middle), of(service.slower(1 + error), middle)


def fits(traffic: Traffic, max_tokens: int | None) -> tuple[Traffic, int]:
    """The requests that the server admits, and how many of the trace it does not."""
    if max_tokens is None:
        return traffic, 0
    kept = traffic.inputs + traffic.outputs <= max_tokens
    left = replace(
        traffic, at_s=traffic.at_s[kept], inputs=traffic.inputs[kept], outputs=traffic.outputs[kept]
    )
    return left, int((~kept).sum())
