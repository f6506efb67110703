"""The sequential FAIL of one task while it is being asked: the e-process over items in their fixed order."""

from __future__ import annotations

from collections.abc import Sequence

from bench.accuracy.eprocess import EProcess
from bench.accuracy.result import TaskResult
from bench.accuracy.task import Answer, Item, Task, prompt_hash
from bench.accuracy.thinking import unanswered


class Sequential:
    """Told of items in whatever order the answers come; looks at them in the order they were drawn.

    An order that depended on the answers (the quick ones first) would not be a fair sample. Only tasks
    with one pass have a score before the end; without a `baseline` nothing is ever rejected.
    """

    def __init__(
        self, task: Task, items: Sequence[Item], baseline: TaskResult | None, floor: float, alpha: float
    ) -> None:
        self._task, self._floor = task, floor
        usable = baseline is not None and task.measures == "accuracy" and len(task.passes) == 1
        scored = baseline.scored if usable and baseline else {}
        self._baseline = {
            item.id: scored[item.id].value
            for item in items
            if item.id in scored
            and not scored[item.id].error
            and not scored[item.id].unanswered
            and scored[item.id].prompt == prompt_hash(task.asks(item))
        }
        self._order = [item.id for item in items if item.id in self._baseline]
        self._waiting: dict[str, float | None] = {}
        self._next = 0
        self._process = EProcess(alpha)

    @property
    def rejected_at(self) -> int | None:
        """Items after which the candidate was rejected, or None."""
        return self._process.failed_at

    def add(self, item: Item, answers: Sequence[Answer]) -> bool:
        """One more item (no answers: its request failed); True when the candidate is rejected.

        What failed on its way or was not answered is passed over: it is no evidence of a wrong answer.
        """
        if item.id not in self._baseline:
            return self.rejected_at is not None
        passed = self._task.passes[0].name
        known = bool(answers) and not unanswered(self._task.asks(item), answers, self._task.measures)
        self._waiting[item.id] = self._task.score(item, {passed: answers}).value if known else None
        while self._next < len(self._order) and self._order[self._next] in self._waiting:
            here = self._order[self._next]
            value = self._waiting.pop(here)
            if value is not None:
                self._process.add(value - self._floor * self._baseline[here])
            self._next += 1
        return self.rejected_at is not None
