"""`servetune load --find-rate`: the capacity search (`bench.findrate.find`) bound to a running server."""

from __future__ import annotations

import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.findrate.capacity import Probe, as_json
from bench.findrate.drive import capacity_of
from bench.findrate.table import line, show
from bench.grid import Load
from bench.load.dialect import is_strict
from bench.load.lengths import fitted
from bench.load.running import point_of
from bench.plan.slo import Slo
from bench.records import Verdict
from bench.traffic.prompts import Prompts
from serving.engine import Endpoint
from serving.errors import UserError


def find(
    server: Endpoint,
    asked: Load,
    prompts: Prompts,
    slos: tuple[Slo, ...],
    *,
    budget_s: float,
    resolution: float,
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
    prompts, notes = fitted(server, asked, prompts, lenient=lenient)
    for note in notes:
        print(note, file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="servetune-") as scratch:
        found = capacity_of(
            server, point_of(server, asked, seed).config, asked, prompts, slos, folder=Path(scratch),
            salt=secrets.token_hex(6), max_s=budget_s, resolution=resolution, seed=seed, workers=workers,
            lenient=lenient, start_rate_per_s=start_rate_per_s, watch=_tell,
        )  # fmt: skip
    if table:
        show(found)
    return as_json(found), found.verdict


def _tell(probe: Probe) -> None:
    print(line(probe), file=sys.stderr, flush=True)
