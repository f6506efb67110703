"""`servetune load --find-rate`: the capacity search (`bench.findrate`) bound to a running server."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from bench.capacity import Capacity, Probe, as_json
from bench.findrate import find_rate
from bench.grid import Load
from bench.load.running import measure
from bench.prompts import Prompts
from bench.records import Run, Verdict
from bench.slo import Slo
from serving.engine import Endpoint
from serving.errors import ServetuneError, UserError

FIRST_USERS = 8
FIRST_LOOK_S = 8.0
FIRST_SHARE = 0.5
"""The search begins at this share of what a short closed loop got through."""


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
    table: bool,
) -> tuple[dict[str, Any], Verdict]:
    """The capacity as JSON data; `table`: also told on stdout. UserError without an SLO."""
    if not slos:
        raise UserError("--find-rate needs an SLO to meet", "add --slo 'ttft:p99<=500ms'")

    def at(rate_per_s: float, duration_s: float, probe_seed: int) -> Run:
        load = replace(asked, arrivals="poisson", rate_per_s=rate_per_s, duration_s=duration_s, requests=None)
        return measure(server, load, prompts, slos, seed=probe_seed, workers=workers, lenient=lenient)[0]

    start = asked.rate_per_s if asked.rate_per_s else _first_look(server, asked, prompts, seed, lenient)
    found = find_rate(at, slos, start_rate_per_s=start, max_s=budget_s, seed=seed, watch=_tell)
    if table:
        _show(found)
    return as_json(found), found.verdict


def _first_look(server: Endpoint, asked: Load, prompts: Prompts, seed: int, lenient: bool) -> float:
    """Requests per second of a short closed loop, times `FIRST_SHARE`."""
    load = replace(asked, arrivals="closed", concurrency=FIRST_USERS, rate_per_s=None, requests=None,
                   duration_s=FIRST_LOOK_S)  # fmt: skip
    run, _ = measure(server, load, prompts, (), seed=seed, lenient=lenient)
    ended = [r.closed_s for r in run.records if r.ok and r.closed_s is not None]
    if not ended:
        said = next((f"{r.error}: {r.error_detail}" for r in run.records if r.error), "nothing was sent")
        raise ServetuneError(
            f"{server.url} completed no request ({said})", "servetune load --concurrency 1 says more"
        )
    return FIRST_SHARE * len(ended) / max(ended)


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
