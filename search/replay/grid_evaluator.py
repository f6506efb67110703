"""Replay: an evaluator that looks into a grid in place of launching, with the noise of a launch on top.

A look is the recorded value times one factor for the launch: drawn from the recorded repeats' own deviations
where there are enough of them, else lognormal with a stated spread. The same factor slows the latencies of
its promises. A short look is noisier by the square root of its share.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from search.evaluator import Certificate, Promote
from search.replay.grids import Cell, Grid
from search.result import Fidelity, Settings, TrialResult, key_of

SPREAD = 0.03
"""Standard deviation of one launch to the next, as a share, where a grid has no repeats to draw from."""
ENOUGH = 20
"""Deviations from their configuration's mean, over the whole grid, from which noise is drawn as recorded."""
STILL = ("accuracy",)
"""Promises that the speed of a launch does not touch."""


@dataclass
class GridEvaluator:
    """Evaluator (`search.evaluator`). Equal seeds give equal answers, whatever the order of the questions.

    spread        None: the grid's own, else SPREAD;  screen_share  of a full look that a short one takes
    """

    grid: Grid
    seed: int = 0
    spread: float | None = None
    screen_share: float = 0.25
    looks: dict[tuple[str, Fidelity], int] = field(default_factory=dict)

    def refusal(self, settings: Settings, incumbent: TrialResult | None) -> TrialResult | None:
        """None: what could not be launched is recorded as such."""
        return None

    def evaluate(self, settings: Settings, promote: Promote) -> list[TrialResult]:
        """The short load, unless it is the full one, and the full one where `promote` says so."""
        if self.screen_share >= 1:
            return [self.measure(settings, "full")]
        screen = self.measure(settings, "screen")
        return [screen, self.measure(settings, "full")] if promote(screen) else [screen]

    def confirm(self, settings: Settings) -> TrialResult:
        """The recorded value with the noise of a fresh launch."""
        return self.measure(settings, "confirm")

    def stress(self, settings: Settings, like: TrialResult) -> dict[str, TrialResult]:
        """Empty: a grid has recorded one load."""
        return {}

    def certificates(self, finalists: Sequence[Settings]) -> dict[str, Certificate]:
        """Empty: accuracy is a recorded constraint, no held-out items are stored."""
        return {}

    def answers_like(self, one: Settings, other: Settings) -> bool:
        """Nothing is certified, so that nothing answers like what was not."""
        return False

    def certificate_s(self, full: TrialResult) -> float:
        return 0.0

    def stress_s(self, full: TrialResult) -> float:
        return 0.0

    def measure(self, settings: Settings, fidelity: Fidelity) -> TrialResult:
        """One launch; KeyError for a configuration that the grid has not."""
        key = key_of(settings)
        cell = self.grid.cells[key]
        number = self.looks.get((key, fidelity), 0)
        self.looks[key, fidelity] = number + 1
        share = self.screen_share if fidelity == "screen" else 1.0
        seconds = {p: s * (share if p == "measure" else 1.0) for p, s in cell.seconds.items()}
        if cell.failure is not None or cell.value is None:
            return TrialResult(settings, fidelity, None, failure=cell.failure or "no_value", seconds=seconds,
                           simulated=self.grid.simulated, detail="as recorded")  # fmt: skip
        slow, sigma = self._slow(f"{self.seed}:{key}:{fidelity}:{number}", share)
        value = cell.value * slow if self.grid.goal.minimize else cell.value / slow
        return TrialResult(
            settings,
            fidelity,
            value,
            variance=(sigma * cell.value) ** 2,
            violations=self._missed(cell, slow),
            seconds=seconds,
            simulated=self.grid.simulated,
            values={self.grid.goal.metric: value},
        )

    @cached_property
    def deviations(self) -> np.ndarray:
        """Log of each repeat over the mean of its configuration, scaled up for that mean's own error."""
        found: list[float] = []
        for cell in self.grid.cells.values():
            count = len(cell.values)
            if count > 1 and cell.value and min(cell.values) > 0:
                grow = math.sqrt(count / (count - 1))
                found += [grow * math.log(v / cell.value) for v in cell.values]
        return np.array(found)

    @property
    def sigma(self) -> float:
        """Spread of one full launch, as a share."""
        if self.spread is not None:
            return self.spread
        return float(self.deviations.std()) if len(self.deviations) >= ENOUGH else SPREAD

    def _slow(self, name: str, share: float) -> tuple[float, float]:
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        source = np.random.default_rng(int.from_bytes(digest, "little"))
        sigma = self.sigma / math.sqrt(share)
        if self.spread is None and len(self.deviations) >= ENOUGH:
            return math.exp(float(source.choice(self.deviations)) / math.sqrt(share)), sigma
        return math.exp(float(source.normal(0.0, sigma))), sigma

    def _missed(self, cell: Cell, slow: float) -> dict[str, float]:
        """Each violation as that launch would show it: its latency is (1 + violation) of the limit."""
        return {n: v if n in STILL else (1 + v) * slow - 1 for n, v in cell.violations.items()}
