"""Watch: what `bench.measure` tells whoever looks on. It only tells; nothing comes back."""

from __future__ import annotations

from typing import Protocol

from bench.accuracy.evaluation import Evaluation
from bench.client.drive import Progress
from bench.point import Point
from bench.records.model import Run
from serving.config import ServingConfig
from serving.errors import Failure


class Watch(Protocol):
    """Told of a campaign as it goes. `index` and `total` count launches from 1; times in seconds."""

    def launch_started(self, config: ServingConfig, index: int, total: int) -> None:
        """A server is being started."""
        ...

    def ready(self, seconds: float | None) -> None:
        """It answers, `seconds` after its start (None: nobody started it)."""
        ...

    def point_started(self, point: Point) -> None:
        """Warm-up, then load, begin for one point."""
        ...

    def load_progress(self, progress: Progress) -> None:
        """The load is running; told several times a second."""
        ...

    def point_finished(self, run: Run) -> None:
        """The point is stored, its own failure included."""
        ...

    def evaluating(self, task: str, done: int, total: int, items_per_s: float) -> None:
        """Accuracy items of one task are being asked; told several times a second."""
        ...

    def evaluated(self, config: ServingConfig, evaluation: Evaluation) -> None:
        """The evaluation of one configuration is stored, its own failure included."""
        ...

    def launch_failed(self, failure: Failure) -> None:
        """The server did not start or died; what was left of its points is stored as failed."""
        ...

    def finished(self) -> None:
        """Nothing is left to measure."""
        ...
