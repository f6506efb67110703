"""`servetune load --find-rate`: the capacity search (`bench.findrate`) bound to a running server."""

from __future__ import annotations

import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.capacity import Capacity, Probe, as_json
from bench.findrate_drive import capacity_of
from bench.grid import Load
from bench.load.dialect import is_strict
from bench.load.running import point_of
from bench.prompts import Prompts
from bench.records import Verdict
from bench.slo import Slo
from serving.engine import Endpoint
from serving.errors import UserError


def find(
    server: Endpoint,
    asked: Load,
    prompts: Prompts,
    slos: tuple[Slo, ...],
    *,
    budget_s: float,
    seed: int,
    workers: int,
    lenient: bool,
    start_rate_per_s: float | None,
    table: bool,
) -> tuple[dict[str, Any], Verdict]:
    """The capacity as JSON data; `table`: also told on stdout. UserError without an SLO."""
    if not slos:
        raise UserError("--find-rate needs an SLO to meet", "add --slo 'ttft:p99<=500ms'")

    lenient = lenient or is_strict(server, asked)
    with tempfile.TemporaryDirectory(prefix="servetune-") as scratch:
        found = capacity_of(
            server, point_of(server, asked, seed).config, asked, prompts, slos, folder=Path(scratch),
            salt=secrets.token_hex(6), max_s=budget_s, seed=seed, workers=workers, lenient=lenient,
            start_rate_per_s=start_rate_per_s, watch=_tell,
        )  # fmt: skip
    if table:
        _show(found)
    return as_json(found), found.verdict


def _tell(probe: Probe) -> None:
    print(
        f"{probe.rate_per_s:.3g}/s: {probe.decision}, {probe.requests} requests, {probe.seconds:.0f} s",
        file=sys.stderr,
        flush=True,
    )


def _show(found: Capacity) -> None:
    low, high = found.interval
    shown = "none" if found.rate_per_s is None else f"{found.rate_per_s:.3g}/s"
    ends = ["?" if end is None else f"{end:.3g}" for end in (low, high)]
    print(f"highest rate shown to meet {', '.join(map(str, found.slos))}: {shown}")
    print(f"interval: {ends[0]} to {ends[1]} requests/s, {found.total_s:.0f} s of measuring; {found.verdict}")
    for reason in found.reasons:
        print(f"  {reason}")
