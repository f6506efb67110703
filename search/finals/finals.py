"""Finals: what measuring the finalists again needs, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from search.budget import Budget
from search.evaluator import Evaluator
from search.finals.spread import LEAST_ROUNDS
from search.objective import Goal
from search.resume import StudyLog
from search.space import Space

MOST_ROUNDS = 6
"""Unless the scenario or the command line says otherwise."""


@dataclass
class Finals:
    """A study that has ended, and what may still be spent on its best trials. `say`: one line a launch.

    worthwhile    least gain over the baseline, as a share, that is worth a change
    finalists     configurations measured again beside the baseline
    rounds        at most;  least_rounds  for which time and money are kept back
    """

    space: Space
    goal: Goal
    evaluator: Evaluator
    log: StudyLog
    budget: Budget
    worthwhile: float
    finalists: int
    say: Callable[[str], None]
    rounds: int = MOST_ROUNDS
    least_rounds: int = LEAST_ROUNDS
