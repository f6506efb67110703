"""Unasked: engines that cannot be asked what the accuracy floor is judged by, known before anything starts.

Without an answer to each task that counts there is no certificate, so such a configuration cannot win. An
engine whose lack is not known is tried when it runs (`bench.accuracy.preflight`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.accuracy.verdict import screening
from bench.plan import evaluations
from search.space import Space, names
from serving.errors import UserError

if TYPE_CHECKING:
    from bench.scenario.model import Scenario


class Unplanned(Exception):  # noqa: N818 -- a trial that cannot be scored, which is data
    """The evaluation of one configuration cannot be planned; the search goes on without it."""


def refusal(scenario: Scenario, engine: str, *, baseline: bool = False) -> str | None:
    """Why no configuration of this engine can hold a certificate; None: it may, or none is wanted.

    Tripwires judge nothing of a candidate; the baseline must have an answer to those too.
    """
    if scenario.accuracy is None:
        return None
    found = {
        task.name: evaluations.refusal(engine, task)
        for task in evaluations.tasks_of(scenario)
        if baseline or task.measures != "tripwire"
    }
    told = "; ".join(f"{name}: {why}" for name, why in found.items() if why is not None)
    return f"{engine} cannot be asked what the accuracy is judged by: {told}" if told else None


def warnings(scenario: Scenario, space: Space) -> list[str]:
    """One line for each part of the scenario that will not be launched.

    UserError: it is the baseline's, or a task cannot be read, or not be kept to the rules of a search.
    """
    if scenario.accuracy is None:
        return []
    rules = screening(scenario.accuracy)
    for task in evaluations.tasks_of(scenario.model_copy(update={"accuracy": rules})):
        evaluations.readable(scenario, task)
    said = []
    baseline = str(space.default()["engine"])
    for name, part in zip(names(scenario), scenario.engines, strict=True):
        why = refusal(scenario, part.engine, baseline=name == baseline)
        if why is None:
            continue
        if name == baseline:
            able = (p.engine for p in scenario.engines if refusal(scenario, p.engine, baseline=True) is None)
            others = list(able)
            first = f"put {others[0]} first among the engines, or " if others else ""
            raise UserError(
                f"{scenario.file}: accuracy: the baseline {why}; nothing could be held against it",
                f"{first}name tasks that it can be asked, such as answers, chat",
            )
        said.append(f"{why}; none of its configurations is launched")
    return said
