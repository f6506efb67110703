"""Contest: searchers over the same grids, seeds and noise; regret by launch and by device-minute."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from search.budget import nothing_left
from search.replay import grids
from search.replay.grid_evaluator import GridEvaluator
from search.replay.grids import Grid
from search.replay.winner import FINALISTS, crowned
from search.result import TrialResult, key_of
from search.searchers import SEARCHERS

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Race:
    """One searcher, one seed: after each launch, as shares of the optimum (1: nothing feasible yet).

    found      regret of the best configuration launched so far, in truth
    held       the same of the best of the FINALISTS that look best: what the finalists' rounds choose from
    minutes    device minutes spent;  stopped  launch after which the early stop would have ended it, or None
    verdict, answer   of the finalists' rounds after `Course.crowned_at` launches, and the winner's regret
    cpu_s      of the proposals alone
    """

    sampler: str
    seed: int
    found: tuple[float, ...]
    held: tuple[float, ...]
    minutes: tuple[float, ...]
    stopped: int | None
    verdict: str
    answer: float
    cpu_s: float


@dataclass(frozen=True)
class Course:
    """What every race of one grid has in common. `launches`: at most so many each.

    `crowned_at`: after so many the finalists are measured again, beside the race.
    """

    path: Path
    launches: int
    crowned_at: int
    spread: float | None = None
    worthwhile: float = 0.01


def contest(course: Course, samplers: Sequence[str], seeds: int, processes: int) -> list[Race]:
    """Every sampler with every seed."""
    asked = [(course, name, seed) for seed in range(seeds) for name in samplers]
    if processes == 1:
        return [race(*one) for one in asked]
    with one_thread(), get_context("spawn").Pool(processes) as pool:
        return pool.starmap(race, asked, chunksize=max(1, len(asked) // processes // 16))


def race(course: Course, sampler: str, seed: int) -> Race:
    """One search of full looks against the grid; launches that an engine refused cost nothing."""
    grid = grid_of(course.path)
    searcher = SEARCHERS[sampler](grid.space, grid.goal, grid.constraints, seed)
    evaluator = GridEvaluator(grid, seed, course.spread)
    history: list[TrialResult] = []
    found, held, minutes = list[float](), list[float](), list[float]()
    best, spent_s, cpu_s, stopped = 1.0, 0.0, 0.0, None
    verdict, answer = "none_feasible", 1.0
    while len(found) < course.launches:
        start = time.process_time()
        settings = searcher.ask(history)
        cpu_s += time.process_time() - start
        if settings is None:
            break
        one = evaluator.measure(settings, "full")
        history.append(one)
        spent_s += one.device_s
        if not one.launched:
            continue
        best = min(best, grid.regret(grid.cells[key_of(settings)]))
        found.append(best)
        held.append(_held(grid, history))
        minutes.append(spent_s / 60)
        left = course.launches - len(found)
        if stopped is None and nothing_left(_gains(grid, history), left, course.worthwhile):
            stopped = len(found)
        if len(found) == course.crowned_at:
            verdict, answer = crowned(grid, evaluator, history)
    return Race(sampler, seed, tuple(found), tuple(held), tuple(minutes), stopped, verdict, answer, cpu_s)


def _held(grid: Grid, history: Sequence[TrialResult]) -> float:
    good = sorted((o for o in history if o.feasible), key=lambda o: grid.goal.loss(o.value or 0.0))
    return min((grid.regret(grid.cells[key_of(o.config)]) for o in good[:FINALISTS]), default=1.0)


def _gains(grid: Grid, history: Sequence[TrialResult]) -> list[float]:
    """As `search.loop.Loop` reckons them."""
    base = next((o.value for o in history if o.value), None)
    if base is None:
        return []
    return [grid.goal.gain(o.value, base) for o in history if o.feasible and o.value is not None]


@lru_cache(maxsize=8)
def grid_of(path: Path) -> Grid:
    return grids.load(path)


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrices here are small: threads of a process would only wait for those of the other."""
    before: dict[str, Any] = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
