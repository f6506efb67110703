"""`servetune load --find-rate`: the capacity search (`bench.findrate.find`) bound to a running server."""

from __future__ import annotations

import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.client.dialect import is_strict
from bench.client.lengths import fitted
from bench.findrate.capacity import RateProbe, as_json
from bench.findrate.drive import capacity_of
from bench.measure_load import point_of
from bench.point import Load
from bench.records.model import Validity
from bench.scenario.slo import Slo
from bench.traffic.prompts import Prompts
from servetune.report.rate_table import line, show_rates
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
) -> tuple[dict[str, Any], Validity]:
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
        show_rates(found)
    return as_json(found), found.verdict


def _tell(probe: RateProbe) -> None:
    print(line(probe), file=sys.stderr, flush=True)
