"""A search without engines: a space, a known optimum, an oracle that fails where it is told to. Runs as a script.

`python tests/support/search_fixture.py FOLDER TRIALS [SECONDS]` starts or resumes a study in FOLDER; each look takes
SECONDS, and is written to `looked.txt` so that a test can count them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from search.budget import Budget
from search.evaluator import Certificate, Promote
from search.finals.finals import Finals
from search.finals.reserve import reserve_s
from search.loop import Loop
from search.objective import Goal
from search.result import Fidelity, Settings, TrialResult, key_of
from search.resume import StudyLog
from search.space import Axis, Space
from search.study import Study, default_storage

SPACE = Space(
    {
        "one": (
            Axis("max_num_seqs", "int", low=1, high=256, log=True),
            Axis("quantization", choices=("none", "fp8", "broken"), default="none"),
            Axis("enforce_eager", choices=(True, False)),
        ),
        "two": (Axis("max_num_batched_tokens", choices=(512, 2048)),),
    }
)
GOAL = Goal((("cost_per_million_good_tokens", True),))
CONSTRAINTS = ("runs", "ttft:p50<=200ms")


class Plain:
    """An evaluator of one method, `measure`: a short and a full load, confirmations, and nothing beside them."""

    def measure(self, settings: Settings, fidelity: Fidelity) -> TrialResult:
        raise NotImplementedError

    def refusal(self, settings: Settings, incumbent: TrialResult | None) -> TrialResult | None:
        return None

    def evaluate(self, settings: Settings, promote: Promote) -> list[TrialResult]:
        screen = self.measure(settings, "screen")
        return [screen, self.measure(settings, "full")] if promote(screen) else [screen]

    def confirm(self, settings: Settings) -> TrialResult:
        return self.measure(settings, "confirm")

    def stress(self, settings: Settings, like: TrialResult) -> dict[str, TrialResult]:
        return {}

    def certificates(self, finalists: Sequence[Settings]) -> dict[str, Certificate]:
        return {}

    def answers_like(self, one: Settings, other: Settings) -> bool:
        return False

    def certificate_s(self, full: TrialResult) -> float:
        return 0.0

    def stress_s(self, full: TrialResult) -> float:
        return 0.0


@dataclass
class Known(Plain):
    """cost = 10 - log2(max_num_seqs), fp8 saves 2; above 128 sequences the SLO breaks; `broken` runs out of memory."""

    folder: Path
    takes_s: float = 0.0
    seen: list[tuple[str, Fidelity]] = field(default_factory=list)

    def measure(self, settings: Settings, fidelity: Fidelity) -> TrialResult:
        time.sleep(self.takes_s)
        self.seen.append((key_of(settings), fidelity))
        with (self.folder / "looked.txt").open("a") as file:
            file.write(f"{fidelity} {key_of(settings)}\n")
        seconds = {"launch": 2.0, "measure": 8.0}
        if settings.get("quantization") == "broken":
            return TrialResult(
                settings, fidelity, None, failure="oom_at_launch", detail="no room", seconds=seconds
            )
        seqs = settings.get("max_num_seqs", 8)
        assert isinstance(seqs, int)
        value = 10.0 - seqs.bit_length() - 2.0 * (settings.get("quantization") == "fp8")
        value += 3.0 * (settings["engine"] == "two")
        missed = {"ttft:p50<=200ms": (seqs - 128) / 128}
        return TrialResult(
            settings, fidelity, value, 0.01, missed, None, seconds, (), values={GOAL.metric: value}
        )


def loop(
    folder: Path,
    trials: int,
    *,
    sampler: str = "tpe",
    seed: int = 1,
    takes_s: float = 0.0,
    storage: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    space: Space = SPACE,
) -> Loop:
    folder.mkdir(exist_ok=True)
    study = Study.open(storage or default_storage(folder), "known", space, GOAL, CONSTRAINTS, sampler, seed)
    budget = Budget(trials=trials)
    made = Loop(space, GOAL, Known(folder, takes_s), study, StudyLog(folder), budget, 0.0, None, say)
    made.reserve_s = lambda history: reserve_s(finals(made), history)
    return made


def finals(of: Loop, finalists: int = 2) -> Finals:
    """The finals of this loop as it is now."""
    return Finals(of.space, of.goal, of.evaluator, of.log, of.budget, of.worthwhile, finalists, of.say)


if __name__ == "__main__":
    at = Path(sys.argv[1])
    log = StudyLog(at)
    if (at / "study.jsonl").exists():
        log.append("resumed")
    takes = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    print(loop(at, int(sys.argv[2]), takes_s=takes, say=lambda text: print(text, flush=True)).run())
