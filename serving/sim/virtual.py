"""The simulated engine without a clock: the same scheduler and costs, in virtual time, far faster.

For tests of the physics, and for grids whose optimum is to be known exactly. No HTTP, no client, no text.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from serving.sim.scheduler import EngineStep, OutOfMemoryError, Scheduler, Sequence, Setup


@dataclass(frozen=True, slots=True)
class SimArrival:
    """One request: when it may start (seconds), prompt and output in tokens. Prompts share nothing."""

    at_s: float
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Served:
    """One request as it went, seconds from the start."""

    arrival: SimArrival
    arrived_s: float
    first_s: float
    last_s: float
    preemptions: int

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.arrived_s

    @property
    def tpot_s(self) -> float:
        """Seconds per output token after the first; 0 for a single token."""
        rest = self.arrival.output_tokens - 1
        return (self.last_s - self.first_s) / rest if rest else 0.0


def simulate(
    setup: Setup, arrivals: Iterable[SimArrival], *, concurrency: int | None = None, salt: str = ""
) -> list[Served]:
    """Every request, in order of completion. With `concurrency`, that many users send one after the other.

    ValueError for a request longer than max_model_len; OutOfMemoryError as the server would die of it.
    """
    scheduler = Scheduler(setup, salt)
    todo = [(a.at_s, number, a) for number, a in enumerate(arrivals)]
    longest = max((a.input_tokens + a.output_tokens for _, _, a in todo), default=0)
    if longest > setup.resolved.max_model_len:
        raise ValueError(f"a request of {longest} tokens, max_model_len is {setup.resolved.max_model_len}")
    heapq.heapify(todo)
    free = len(todo) if concurrency is None else concurrency
    now, served = 0.0, list[Served]()
    while True:
        while todo and free and todo[0][0] <= now:
            _, _, arrival = heapq.heappop(todo)
            arrived = arrival.at_s if concurrency is None else now
            scheduler.waiting.append(Sequence([0] * arrival.input_tokens, arrival.output_tokens,
                                              arrived_s=arrived, owner=arrival))  # fmt: skip
            free -= 1
        step = scheduler.begin()
        if step is None:
            if not todo:
                return served
            now = todo[0][0]
            continue
        now += step.duration_s
        done = _finish(scheduler, step, now)
        served += done
        free += len(done)


def _finish(scheduler: Scheduler, step: EngineStep, now: float) -> list[Served]:
    done = []
    for sequence in scheduler.finish(step):
        if sequence.generated == 1:
            sequence.first_s = now
        if sequence.generated == sequence.max_tokens:
            scheduler.end(sequence)
            done.append(
                Served(sequence.owner, sequence.arrived_s, sequence.first_s, now, sequence.preemptions)
            )
    return done


__all__ = ["OutOfMemoryError", "Served", "SimArrival", "simulate"]
