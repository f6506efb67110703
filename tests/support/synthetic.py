"""Synthetic Runs whose true numbers are known, for tests of whatever reads a Run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from bench.point import Load, Point
from bench.records.model import ClientHealth, Record, RequestError, Run, Sample
from serving.config import ServingConfig

HEALTHY = ClientHealth(
    workers=1, cpu_share=0.2, cpu_s=1.0, events=100_000, hub_delay_p99_ms=0.4, hub_delay_max_ms=2.0
)


def point(**load: object) -> Point:
    given = {"workload": "test", "input_tokens": 128, "output_tokens": 20, **load}
    return Point(ServingConfig(engine="sim", model="m"), Load(**given))  # type: ignore[arg-type]


def record(
    index: int,
    planned_s: float,
    *,
    lag_s: float = 0.0005,
    ttft_s: float = 0.1,
    step_s: float = 0.01,
    tokens: int = 20,
    tokens_per_event: int = 1,
    **other: object,
) -> Record:
    """A request that went as told: TTFT from `sent`, then one event every `step_s`."""
    sent = planned_s + lag_s
    events = -(-tokens // tokens_per_event)
    stamps = tuple(sent + ttft_s + step_s * i for i in range(events))
    last = stamps[-1] if stamps else None
    made = Record(
        index=index,
        planned_s=planned_s,
        sent_s=sent,
        header_s=sent + ttft_s / 2,
        first_s=stamps[0] if stamps else None,
        first_answer_s=stamps[0] if stamps else None,
        last_s=last,
        closed_s=None if last is None else last + 0.001,
        event_s=stamps,
        asked_input_tokens=128,
        asked_output_tokens=tokens,
        input_tokens=128,
        output_tokens=tokens,
        counted_output_tokens=tokens,
        finish_reason="length",
        status=200,
    )
    return replace(made, **other)  # type: ignore[arg-type]


def failed(record: Record, error: RequestError = RequestError.RESET) -> Record:
    """The same request broken half-way through its output."""
    kept = record.event_s[: len(record.event_s) // 2]
    return replace(
        record,
        error=error,
        event_s=kept,
        last_s=kept[-1] if kept else None,
        closed_s=None,
        output_tokens=None,
        counted_output_tokens=None,
        finish_reason=None,
    )


def open_loop(
    requests: int = 800,
    rate_per_s: float = 50.0,
    *,
    seed: int = 0,
    ttft_s: Callable[[np.random.Generator, int], np.ndarray] | float = 0.1,
    change: Callable[[list[Record]], Sequence[Record]] = lambda records: records,
    samples: Sequence[Sample] = (),
    **load: object,
) -> Run:
    """Poisson arrivals; `ttft_s` a number or a function of (rng, n); `change` edits the records."""
    rng = np.random.default_rng(seed)
    due = np.cumsum(rng.exponential(1 / rate_per_s, requests))
    waits = np.full(requests, ttft_s) if isinstance(ttft_s, float) else ttft_s(rng, requests)  # type: ignore[operator]
    records = [record(i, float(due[i]), ttft_s=float(waits[i])) for i in range(requests)]
    return Run(
        point=point(arrivals="poisson", rate_per_s=rate_per_s, requests=requests, **load),
        records=tuple(change(records)),
        samples=tuple(samples),
        client=HEALTHY,
        load_end_s=float(due[-1]),
    )


def closed_loop(
    users: int = 16,
    rounds: int = 50,
    *,
    seed: int = 0,
    jitter: float = 0.2,
    ttft_s: float = 0.1,
    step_s: float = 0.01,
    tokens: int = 20,
    change: Callable[[list[Record]], Sequence[Record]] = lambda records: records,
    samples: Sequence[Sample] = (),
    launch: str = "",
    repeat: int = 0,
    **load: object,
) -> Run:
    """Users that send the next request when the last one ended; TTFT and step jitter by `jitter`."""
    rng = np.random.default_rng(seed)
    found: list[Record] = []
    for _ in range(users):
        now = float(rng.uniform(0, 0.01))
        for _ in range(rounds):
            wait, step = (max(0.2, float(rng.normal(1, jitter))) * s for s in (ttft_s, step_s))
            found.append(record(0, now, ttft_s=wait, step_s=step, tokens=tokens))
            now = (found[-1].last_s or now) + 0.001
    found = [replace(r, index=i) for i, r in enumerate(sorted(found, key=lambda r: r.planned_s))]
    made = point(arrivals="closed", concurrency=users, requests=users * rounds, **load)
    return Run(
        point=replace(made, repeat=repeat),
        records=tuple(change(found)),
        samples=tuple(samples),
        client=HEALTHY,
        load_end_s=max(r.sent_s or 0.0 for r in found),
        launch=launch,
    )


def gauge(name: str, value: float | Callable[[float], float], until_s: float, every_s: float = 0.25,
          start_s: float = 0.0) -> list[Sample]:  # fmt: skip
    """Readings of one series on an even beat."""
    times = np.arange(start_s, until_s + every_s / 2, every_s)
    return [Sample(float(t), name, float(value(t) if callable(value) else value)) for t in times]


def ar1(rng: np.random.Generator, n: int, phi: float) -> np.ndarray:
    """Autocorrelated values with mean 0 and variance 1."""
    out = np.empty(n)
    out[0] = rng.normal()
    noise = rng.normal(0, np.sqrt(1 - phi * phi), n)
    for i in range(1, n):
        out[i] = phi * out[i - 1] + noise[i]
    return out
