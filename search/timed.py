"""Timed: a Watch that adds up where the seconds of a launch go."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.point import Point
from bench.records.folder import RunFolder
from bench.records.model import Run
from serving.config import ServingConfig
from serving.errors import Failure

if TYPE_CHECKING:
    from bench.accuracy.evaluation import Evaluation
    from bench.client.drive import Progress


@dataclass
class Timed:
    """Seconds by phase (`search.result.PHASES`); `show` is told what is being done, and on which launch."""

    show: Callable[[str, str], None] = lambda doing, launch: None
    launch: str = ""
    spent: dict[str, float] = field(default_factory=dict)
    done: dict[str, Run] = field(default_factory=dict)

    def begin(self, stored: Collection[str], folder: RunFolder) -> None:
        """A new launch. `stored`: keys of its points that are measured already."""
        self.spent = {}
        self.done = {key: folder.run(key) for key in stored}
        self.phase, self.since = "launch", time.monotonic()

    def seconds(self, whole_s: float) -> dict[str, float]:
        """What each phase took; what is left of `whole_s` (stopping the server) goes to the launch."""
        self._turn("launch")
        rest = whole_s - sum(self.spent.values())
        return {**self.spent, "launch": self.spent.get("launch", 0.0) + max(0.0, rest)}

    def launch_started(self, config: ServingConfig, index: int, total: int) -> None:
        self._turn("launch")
        self.launch = config.label
        self.show("starting the engine", self.launch)

    def ready(self, seconds: float | None) -> None:
        self._turn("warmup")

    def point_started(self, point: Point) -> None:
        self._turn("warmup")
        self.show("warming up", self.launch)

    def load_progress(self, progress: Progress) -> None:
        total = f"/{progress.total}" if progress.total else ""
        self.show(f"measuring {progress.done}{total} requests", self.launch)

    def point_finished(self, run: Run) -> None:
        # The load says when it began; what came before it on this point was warming up.
        measured_s = max(0.0, time.time() - run.started_unix_s) if run.started_unix_s else 0.0
        measured_s = min(measured_s, time.monotonic() - self.since)
        self._turn("launch")
        self.spent["warmup"] = self.spent.get("warmup", 0.0) - measured_s
        self.spent["measure"] = self.spent.get("measure", 0.0) + measured_s
        self.done[run.point.key] = run

    def evaluating(self, task: str, done: int, total: int, items_per_s: float) -> None:
        if self.phase != "accuracy":
            self._turn("accuracy")
        self.show(f"scoring {task} {done:,}/{total:,} items", self.launch)

    def evaluated(self, config: ServingConfig, evaluation: Evaluation) -> None:
        self._turn("launch")

    def launch_failed(self, failure: Failure) -> None:
        self._turn("launch")

    def finished(self) -> None:
        self._turn("launch")

    def _turn(self, phase: str) -> None:
        now = time.monotonic()
        self.spent[self.phase] = self.spent.get(self.phase, 0.0) + now - self.since
        self.phase, self.since = phase, now
