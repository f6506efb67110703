"""Point: one thing to measure. `expand` turns a scenario into all its points, in a stable order.

Points are ordered so that those sharing a server (same config) stand together: launches cost most.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

from serving.config import ServingConfig

Arrivals = Literal["closed", "constant", "poisson", "gamma", "ramp", "burst", "trace"]


@dataclass(frozen=True)
class Load:
    """The client side of a point, all scalars.

    Closed loop: `arrivals="closed"` with `concurrency` users. Open loop: `rate_per_s` with an arrival
    process (`cv` for gamma; ramp goes from `rate_per_s` to `ramp_to_per_s`; burst sends `burst_size`
    at once at the mean rate). `trace` names a file of arrivals and sizes. The load ends after
    `requests` or `duration_s`, whichever is given (both: the first reached).
    `turns` > 1: multi-turn sessions, each turn sent after the previous answer.
    """

    workload: str
    input_tokens: int
    output_tokens: int
    arrivals: Arrivals = "closed"
    concurrency: int | None = None
    rate_per_s: float | None = None
    cv: float | None = None
    ramp_to_per_s: float | None = None
    burst_size: int | None = None
    trace: str | None = None
    requests: int | None = None
    duration_s: float | None = None
    warmup_requests: int = 0
    shared_prefix_tokens: int = 0
    turns: int = 1
    endpoint: Literal["completions", "chat"] = "completions"
    stream: bool = True
    temperature: float = 0.0
    request_timeout_s: float = 120.0
    silence_timeout_s: float = 60.0


DRAWN: tuple[Arrivals, ...] = ("poisson", "gamma", "ramp")
"""Arrival processes whose moments are drawn."""


def seed_of(load: Load, seed: int, repeat: int) -> int:
    """The seed that a repeat of a scenario's load is drawn with: its arrivals, and seeds of sampled answers.

    By seed and repeat alone, so that every configuration meets the same draws in the same repeat and their
    differences are not made of them. Repeat 0 has the scenario's own. A load without a draw keeps it
    throughout, and so its key. (Prompts differ by `Point.key`: no point finds another's in a cache.)
    """
    if repeat == 0 or (load.arrivals not in DRAWN and load.temperature == 0):
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/{repeat}".encode()).digest()[:4], "big")


@dataclass(frozen=True)
class Point:
    """One config under one load, once. `key` is its content: equal keys, the same experiment.

    `seed` is the one that this repeat is drawn with (`seed_of`).
    """

    config: ServingConfig
    load: Load
    seed: int = 0
    repeat: int = 0

    @cached_property
    def key(self) -> str:
        """12 hex digits over config, load, seed and repeat."""
        whole = {"config": self.config.settings, "load": asdict(self.load), "seed": self.seed}
        text = json.dumps({**whole, "repeat": self.repeat}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


TOKENS_WITHIN = 1000
"""Output tokens that the deadline as given is for; each further one adds TOKEN_S."""


TOKEN_S = 0.1
"""Of one output token at the slowest that is still no hang: 10 tokens a second, waiting included."""


def first_within_s(timeout_s: float, output_tokens: int) -> float:
    """How long after sending the first event, or the whole of an answer that is not streamed, may come."""
    return timeout_s + TOKEN_S * max(0, output_tokens - TOKENS_WITHIN)


def label(load: Load) -> str:
    """Short name for a table: workload, sizes and how hard it pushes."""
    push = (
        f"c={load.concurrency}" if load.concurrency else f"{load.rate_per_s:g}/s" if load.rate_per_s else ""
    )
    return f"{load.workload} {load.input_tokens}->{load.output_tokens} {push or load.arrivals}"
