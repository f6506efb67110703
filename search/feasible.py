"""Before a launch: what cannot run here, or not win even at the roofline. Each launch recalibrates."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bench.plan.estimate import throughput_bound
from bench.plan.feasibility import budget_of, calibrate, fits
from bench.plan.planning import COMMON, beside_the_engine
from bench.plan.target import Target, place
from bench.point import Load
from bench.records.model import Run
from serving.config import ServingConfig
from serving.costmodel.memory import MemoryBudget
from serving.engines import engine

ENOUGH = 3
"""Launches of an engine after which its bound may refuse: all of them must have stayed below it."""
OVER = 1.02
"""Measured / bound above which the bound is wrong for this device, and refuses nothing any more."""


@dataclass
class Feasible:
    """What earlier launches of this search have shown about the predictions."""

    target: Target
    seen: list[tuple[MemoryBudget, int]] = field(default_factory=list)
    reached: dict[str, list[float]] = field(default_factory=dict)
    said: dict[str, int] = field(default_factory=dict)

    def refusal(
        self, config: ServingConfig, loads: Sequence[Load], incumbent: float | None
    ) -> tuple[str, str] | None:
        """(class, reason) when it is of no use to launch this. `incumbent`: good output tokens per second.

        UNCALIBRATED figures refuse only what `bench.plan.feasibility` calls impossible.
        """
        chosen = engine(config.engine)
        strangers = sorted(set(config.settings) - chosen.honours - COMMON)
        problems = (
            [f"{config.engine} has no {', '.join(strangers)}"]
            if strangers
            else [*chosen.problems(config), *beside_the_engine(config, self.target)]
        )
        if problems:
            return "refused", "; ".join(problems)
        target = replace(self.target, calibration=calibrate(self.seen))
        memory = fits(config, target)
        if memory.verdict == "does_not_fit":
            return "does_not_fit", memory.reason
        bound = self.bound(config, loads)
        ratios = self.reached.get(config.engine, [])
        if bound is None or incumbent is None or len(ratios) < ENOUGH or max(ratios) > OVER:
            return None
        if bound < incumbent:
            return "cannot_win", (
                f"at most {bound:,.0f} tokens/s by the roofline, the incumbent makes {incumbent:,.0f} "
                f"({len(ratios)} launches reached at most {max(ratios):.0%} of theirs)"
            )
        return None

    def bound(self, config: ServingConfig, loads: Sequence[Load]) -> float | None:
        """Output tokens per second that no load here can exceed; None: not known."""
        where, shape = place(config, self.target)
        if where is None or shape is None:
            return None
        try:
            return max(throughput_bound(config, load, where, shape) for load in loads)
        except KeyError:
            return None

    def learn(self, config: ServingConfig, runs: Sequence[Run], tokens_per_s: float | None) -> None:
        """From one launch: memory as the engine reports it, speed as it was measured, and how it ended."""
        where, shape = place(config, self.target)
        if where is None or shape is None:
            return
        predicted = fits(config, replace(self.target, calibration=calibrate(self.seen))).verdict
        out_of_memory = any(run.failure and run.failure.kind.value.startswith("oom") for run in runs)
        ended = "oom" if out_of_memory else "ran"
        self.said[f"{predicted}/{ended}"] = self.said.get(f"{predicted}/{ended}", 0) + 1
        tokens = next((run.effective.get("kv_cache_tokens") for run in runs if run.effective), None)
        if (
            isinstance(tokens, int)
            and config.kv_cache_bytes is None
            and config.engine not in ("sim", "transformers")
        ):
            with contextlib.suppress(KeyError):  # a quantization of unknown bytes predicts nothing
                self.seen.append((budget_of(config, where, shape), tokens))
        if tokens_per_s:
            self.reach(config, [run.point.load for run in runs], tokens_per_s)

    def reach(self, config: ServingConfig, loads: Sequence[Load], tokens_per_s: float) -> None:
        """How much of its bound one launch reached."""
        bound = self.bound(config, loads)
        if bound:
            self.reached.setdefault(config.engine, []).append(tokens_per_s / bound)

    def report(self, refused: int) -> dict[str, object]:
        """How the memory model did. `refused`: configurations not launched for memory.

        `precision` is known only where a refused configuration was launched all the same, which a search
        does not do: it is null. `recall`: of those out of memory as far as known, the share refused.
        """
        died = sum(n for said, n in self.said.items() if said.endswith("/oom"))
        recall = refused / (refused + died) if refused + died else None
        calibration = calibrate(self.seen)
        return {
            "refused_for_memory": refused,
            "said": dict(self.said),
            "recall": recall,
            "precision": None,
            "calibration": {
                "launches": calibration.launches,
                "low": calibration.low,
                "high": calibration.high,
            },
            "roofline_reached": {name: max(ratios) for name, ratios in self.reached.items()},
        }
