"""A/A by replay: every configuration is equal, so that whatever a search crowns is a false winner."""

from __future__ import annotations

from dataclasses import replace
from multiprocessing import get_context

from search.replay.contest import Course, grid_of, one_thread
from search.replay.grid_evaluator import GridEvaluator
from search.replay.grids import Grid
from search.replay.winner import crowned
from search.result import TrialResult, key_of
from search.searchers import Random


def even(grid: Grid) -> Grid:
    """The same space, every configuration as good as the default's value and keeping every promise."""
    base, best = grid.cells[key_of(grid.space.default())], grid.best
    value, took = (base.value, base.seconds) if base.value else (best.value, best.seconds)
    assert value is not None
    kept = dict.fromkeys((name for name in grid.constraints if name != "runs"), -0.5)
    cells = {
        key: replace(cell, values=(value,), violations=kept, failure=None, seconds=took)
        for key, cell in grid.cells.items()
    }
    return replace(grid, cells=cells)


def false_winners(course: Course, seeds: int, processes: int) -> float:
    """Share of searches that crown something. Looks at random: of equals no searcher finds better ones."""
    asked = [(course, seed) for seed in range(seeds)]
    if processes == 1:
        return sum(_crowns(*one) for one in asked) / seeds
    with one_thread(), get_context("spawn").Pool(processes) as pool:
        return sum(pool.starmap(_crowns, asked, chunksize=max(1, seeds // processes // 8))) / seeds


def _crowns(course: Course, seed: int) -> bool:
    grid = even(grid_of(course.path))
    searcher = Random(grid.space, grid.goal, grid.constraints, seed)
    evaluator, history = GridEvaluator(grid, seed, course.spread), list[TrialResult]()
    for _ in range(course.crowned_at):
        settings = searcher.ask(history)
        if settings is None:
            break
        history.append(evaluator.measure(settings, "full"))
    return crowned(grid, evaluator, history)[0] == "winner"
