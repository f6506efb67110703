"""Requests before the load: they leave first-run costs behind and learn which request body the server takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.grid import Load
from bench.load.drive import drive
from bench.prompts import Prompts
from bench.records import RequestError
from serving.engine import Endpoint

LENIENT_NOTE = "the server refuses ignore_eos and min_tokens; output lengths are its own choice"


def warmup(
    endpoint: Endpoint,
    load: Load,
    *,
    seed: int,
    prompts: Prompts,
    folder: Path,
    salt: str,
    lenient: bool = False,
    alive: Callable[[], bool] = lambda: True,
) -> tuple[str, ...]:
    """Sends `load.warmup_requests`, never counted. A note when the extensions of vLLM must be left out.

    A strict provider answers 400 or 422 to them; then the load has to be driven `lenient`.
    """
    if not load.warmup_requests:
        return ()
    few = few_of(load)
    driven = drive(endpoint, few, seed=seed, prompts=prompts, folder=folder, salt=f"{salt}-warmup",
                   lenient=lenient, alive=alive)  # fmt: skip
    refused = [r for r in driven.records if r.error is RequestError.HTTP_STATUS and r.status in (400, 422)]
    if lenient or len(refused) < len(driven.records):
        return ()
    again = drive(endpoint, few, seed=seed, prompts=prompts, folder=folder, salt=f"{salt}-lenient",
                  lenient=True, alive=alive)  # fmt: skip
    return (LENIENT_NOTE,) if any(r.ok for r in again.records) else ()


def few_of(load: Load) -> Load:
    """The same requests in a closed loop, as many as the warm-up asks for and no more at once than the load."""
    users = min(load.concurrency or load.warmup_requests, load.warmup_requests)
    return replace(
        load, arrivals="closed", concurrency=users, rate_per_s=None, trace=None, cv=None, ramp_to_per_s=None,
        burst_size=None, requests=load.warmup_requests, duration_s=None, turns=1, warmup_requests=0,
    )  # fmt: skip
