"""Runs the soak of a spec: its load at its safe rate, for as long as was asked."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench.client.drive import drive
from bench.client.lengths import fitted
from bench.point import Load
from bench.soak import judged
from bench.telemetry.probe import Sampler
from bench.traffic.prompts import prompts
from servetune.deploy.spec import ServingSpec
from servetune.deploy.verify.constraints import fresh_seed, loaded, tokenizer
from serving.claims import Claim
from serving.engine import Endpoint


def soak(
    spec: ServingSpec, server: Endpoint, seconds: float, pid: int | None, alive: Callable[[], bool]
) -> list[Claim]:
    """Load of the spec at its safe rate for that long. `pid`: root of the server's processes."""

    point = loaded(spec)
    if point is None:
        return [Claim("soak", "INCONCLUSIVE", "the spec has no evidence whose load can be repeated")]
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
