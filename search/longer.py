"""Longer and shorter loads of one look: a share of the load at first, more of it where a promise needs more.

The steady window leaves out the ramp, up to half of a run, so that a load with room to spare may end at 640
of 662 requests all the same. Such a point is measured again, longer, on the same server.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bench.grid import Load, Point
from bench.metrics import enough
from bench.metrics.view import View
from bench.outcome import outcome
from bench.records import Run
from search.objective import Goal, promised, promises

if TYPE_CHECKING:
    from bench.plan.scenario import Scenario

MOST_LONGER, MOST_GROWTH, SPARE = 2, 4.0, 1.2
"""How often a load is made longer, for how many times its samples at the most, and how much beyond that."""
LEAST_REQUESTS = 8
LEAST_S = 2.0
"""A short look is never shorter."""


@dataclass
class Longer:
    """The longer load after a point that left a promise or the goal undetermined; None: none, or no use.

    Where a promise is surely missed nothing is gained by more. `grown`: keys of the points that may be made
    longer -> how often that was done.
    """

    scenario: Scenario
    goal: Goal
    grown: dict[str, int] = field(default_factory=dict)

    def __call__(self, run: Run) -> Point | None:
        times = self.grown.get(run.point.key)
        if times is None or times >= MOST_LONGER or run.failure is not None or not run.records:
            return None
        metrics = [metric for metric, _ in (*promised(self.scenario).values(), *self.goal.metrics)]
        if all(enough.needed(metric) == 1 for metric in metrics):
            return None
        found = outcome(run, self.scenario)
        missed, undetermined = promises(self.scenario, found)
        open_ = [promised(self.scenario)[name][0] for name in undetermined]
        open_ += [metric for metric, _ in self.goal.metrics if found.metrics[metric] is None]
        factor = enough.growth(View(run), open_)
        if any(by > 0 for by in missed.values()) or not 1 < factor <= MOST_GROWTH:
            return None
        # What is missing is added: the ramp has been paid for. Where it was not, all grows in proportion.
        kept = 1.0 if times else (found.metrics["requests"] or 0.0) / len(run.records)
        made = replace(run.point, load=lengthened(run.point.load, 1 + SPARE * (factor - 1) * kept))
        if made.key == run.point.key:  # a trace from end to end
            return None
        self.grown[made.key] = times + 1
        return made

    def last(self, point: Point, held: Collection[str], read: Callable[[str], Run]) -> Point:
        """The longest load that this point has grown to; it may be one that is still to be measured."""
        while point.key in held:
            more = self(read(point.key))
            if more is None:
                break
            point = more
        return point


def short(load: Load, share: float, least: int = 0) -> Load:
    """The same load for a share of its requests and time; `least` requests where it counts them."""
    fewest = max(LEAST_REQUESTS, least)
    return replace(
        load,
        requests=load.requests and max(min(load.requests, fewest), round(load.requests * share)),
        duration_s=load.duration_s and max(min(load.duration_s, LEAST_S), load.duration_s * share),
    )


def for_goal(goal: Goal) -> int:
    """Requests from which the goal has a value; 0 where one is enough."""
    least = max(enough.needed(metric) for metric, _ in goal.metrics)
    return math.ceil(least * enough.ROOM) if least > 1 else 0


def lengthened(load: Load, factor: float) -> Load:
    """The same load with that many times its requests and its time."""
    return replace(
        load,
        requests=load.requests and math.ceil(load.requests * factor),
        duration_s=load.duration_s and load.duration_s * factor,
    )
