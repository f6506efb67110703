"""One load on a server that runs already: warm-up, telemetry of what it shows, Run and verdict."""

from __future__ import annotations

import secrets
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.checks import judge
from bench.client.dialect import STRICT_NOTE, is_strict
from bench.client.drive import Interrupted, drive
from bench.client.lengths import fitted
from bench.point import Load, Point
from bench.proof.calibration import kept
from bench.records.model import Judgement, Run
from bench.result import declared_cache_share
from bench.scenario.slo import Slo
from bench.telemetry.probe import Sampler
from bench.traffic.prompts import Prompts
from serving.config import ServingConfig
from serving.engine import Endpoint

INTERRUPTED = "interrupted by Ctrl-C: the load was cut short"


def measure(
    server: Endpoint,
    asked: Load,
    prompts: Prompts,
    slos: tuple[Slo, ...],
    *,
    seed: int,
    workers: int = 1,
    lenient: bool = False,
) -> tuple[Run, Judgement]:
    """Warm-up, load and telemetry of a server that we did not start; its Run and verdict.

    Ctrl-C ends the load early: what was recorded until then is the Run, INTERRUPTED among its notes.
    """
    point = point_of(server, asked, seed)
    # Another run must not meet this one's prompts in the server's cache.
    salt = f"{point.key}-{secrets.token_hex(4)}"
    lenient = lenient or is_strict(server, asked)
    prompts, notes = fitted(server, asked, prompts, lenient=lenient)
    notes = (STRICT_NOTE, *notes) if lenient else notes
    sampler = Sampler(None, server.url, "cpu", interval_s=0.5)
    with tempfile.TemporaryDirectory(prefix="servetune-") as scratch, ExitStack() as stack:

        def before_start() -> None:
            stack.enter_context(sampler)

        try:
            driven = drive(
                server, asked, seed=seed, prompts=prompts, folder=Path(scratch) / "load", salt=salt,
                workers=workers, lenient=lenient, before_start=before_start,
            )  # fmt: skip
        except Interrupted as pressed:
            driven, notes = pressed.drive, (*notes, INTERRUPTED)
    run = Run(
        point=point,
        records=driven.records,
        samples=sampler.samples(driven.started_monotonic_s),
        client=driven.client,
        load_end_s=driven.load_end_s,
        started_unix_s=driven.started_unix_s,
        notes=(*notes, *sampler.notes),
    )
    return run, judge(
        run, slos=slos, declared_cache_share=declared_cache_share(asked), calibration=kept(workers)
    )


def point_of(server: Endpoint, asked: Load, seed: int) -> Point:
    """The Point that a load on a running server is."""
    config = ServingConfig(
        engine="endpoint", model=server.served_model, url=server.url, api_key_env=server.api_key_env
    )
    return Point(config, asked, seed)
