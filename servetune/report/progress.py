"""What a campaign is doing, on stderr: two live lines in a terminal, one line an event anywhere else."""

from __future__ import annotations

import atexit
import sys
import time
from collections import deque
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from statistics import mean
from typing import TYPE_CHECKING, TextIO

from bench.accuracy.evaluation import Evaluation
from bench.client.drive import Progress
from bench.plan.planning import Plan
from bench.point import Load, Point, label
from bench.progress import Watch
from bench.records.model import Run
from bench.result import outcome
from servetune.report import accuracy_table, labels
from servetune.report.marks import RANK_MARK, VALIDITY_RANK
from serving.config import ServingConfig
from serving.errors import Failure
from serving.units import duration

if TYPE_CHECKING:
    from rich.console import Group


RECENT = 15
"""Reports of a running load, several a second, over which its live speed is taken."""
QUIET_S = 30.0
"""In a log, a running load says something this often."""


def watch_for(plan: Plan, done: Set[str] = frozenset(), stream: TextIO | None = None) -> Watch:
    """A Watch on `stream` (stderr) for a plan of which the points with keys `done` are measured already."""
    out = stream or sys.stderr
    return LiveWatch(plan, done, out) if out.isatty() else LineWatch(plan, done, out)


@dataclass
class State:
    """Where a campaign stands, and how long the rest takes; times in seconds of `clock`."""

    plan: Plan
    done: Set[str]
    clock: Callable[[], float] = time.monotonic
    left: dict[str, Point] = field(init=False)
    launch: str = ""
    phase: str = ""
    point: Point | None = None
    recent: deque[Progress] = field(default_factory=lambda: deque(maxlen=RECENT))
    scoring: str = ""
    failed: int = 0
    ready_s: list[float] = field(default_factory=list)
    took_s: dict[Load, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.left = {p.key: p for p in self.plan.points if p.key not in self.done}
        self.began = self.point_began = self.clock()
        self.to_score_s = [one.estimated_s for one in self.plan.evaluations]

    @property
    def total(self) -> int:
        return len(self.plan.points)

    @property
    def number(self) -> int:
        """Points finished or failed, those of an earlier part of the run included."""
        return self.total - len(self.left)

    @property
    def elapsed_s(self) -> float:
        return self.clock() - self.began

    def launch_started(self, config: ServingConfig, index: int, total: int) -> None:
        self.launch, self.phase, self.point = f"launch {index}/{total}", "starting engine", None
        self.config, self.index = config, index

    def point_started(self, point: Point) -> None:
        self.point, self.phase, self.point_began = point, "warm-up", self.clock()
        self.recent.clear()

    def load_progress(self, progress: Progress) -> None:
        self.phase = "measuring"
        self.recent.append(progress)

    def measuring(self) -> str:
        """Requests ended and output speed of the last seconds; a read is nearly always one token."""
        now, before = self.recent[-1], self.recent[0]
        text = f"measuring {now.done}{f'/{now.total}' if now.total else ''} requests"
        span_s = now.elapsed_s - before.elapsed_s
        return (
            f"{text} · ≈{labels.number((now.events - before.events) / span_s)} tokens/s" if span_s else text
        )

    def point_finished(self, run: Run) -> None:
        self.left.pop(run.point.key, None)
        self.phase = "stopping"
        self.failed += run.failure is not None
        if run.failure is None:
            self.took_s.setdefault(run.point.load, []).append(self.clock() - self.point_began)

    def evaluating(self, task: str, done: int, total: int, items_per_s: float) -> None:
        self.phase, self.point = "scoring", None
        left = f" · about {duration((total - done) / items_per_s)} left" if items_per_s > 0 else ""
        self.scoring = f"scoring {task} {done:,}/{total:,} items · {items_per_s:.1f}/s{left}"

    def evaluated(self) -> None:
        self.to_score_s = self.to_score_s[1:]
        self.phase = "stopping"

    def launch_failed(self) -> int:
        """What is left of the launch is lost; returns how many points that is."""
        lost = [p.key for p in self.plan.launches[self.index - 1].points if p.key in self.left]
        for key in lost:
            del self.left[key]
        self.failed += len(lost)
        return len(lost)

    def left_s(self) -> float:
        """Time left: what the same loads took so far (else all loads, else the plan's estimate)."""
        known = [s for times in self.took_s.values() for s in times]
        if not known:
            share = len(self.left) / max(1, self.total)
            return max(0.0, self.plan.estimated_s * share - (self.elapsed_s if self.left else 0.0))
        points = sum(mean(self.took_s.get(p.load, known)) for p in self.left.values())
        configs = {p.config.key for p in self.left.values()} - {self.config.key}
        launches = len(configs) * (mean(self.ready_s) if self.ready_s else 0.0)
        points += sum(self.to_score_s)
        return max(0.0, points + launches - (self.clock() - self.point_began) * (self.phase == "measuring"))


def _finished_line(state: State, run: Run) -> tuple[str, str]:
    """Mark and sentence of a finished point."""

    name = f"{run.point.config.label} | {label(run.point.load)}"
    if run.failure:
        return RANK_MARK["failed"], f"{name}: {run.failure.kind}: {run.failure.detail}"
    found = outcome(run, state.plan.scenario)
    speed, ttft = found.metrics["output_token_throughput_per_s"], labels.figure(found, "ttft_p50_ms", "ms")
    verdict = found.judgement.verdict
    mark = RANK_MARK[VALIDITY_RANK[verdict]]
    why = f"; {found.judgement.reasons[0].text}" if found.judgement.reasons else ""
    simulated = "SIMULATED " if run.simulated else ""
    return mark, f"{simulated}{name}: {labels.number(speed)} tokens/s, TTFT p50 {ttft} ms{why}"


class LineWatch:
    """One line an event, no control characters: for logs, CI and nohup."""

    def __init__(
        self, plan: Plan, done: Set[str], stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.state, self.stream, self.clock = State(plan, done, clock), stream, clock
        self.spoke = clock()

    def _say(self, text: str) -> None:
        self.spoke = self.clock()
        clean = "".join(c if c.isprintable() else " " for c in text)
        print(f"[{duration(self.state.elapsed_s)}] {clean}", file=self.stream, flush=True)

    def launch_started(self, config: ServingConfig, index: int, total: int) -> None:
        self.state.launch_started(config, index, total)
        self._say(f"launch {index}/{total}: starting {config.label}")

    def ready(self, seconds: float | None) -> None:
        if seconds is not None:
            self.state.ready_s.append(seconds)
        self._say("ready" if seconds is None else f"ready after {duration(seconds)}")

    def point_started(self, point: Point) -> None:
        self.state.point_started(point)
        self._say(f"point {self.state.number + 1}/{self.state.total}: {label(point.load)}")

    def load_progress(self, progress: Progress) -> None:
        self.state.load_progress(progress)
        if self.clock() - self.spoke >= QUIET_S:
            self._say(self.state.measuring())

    def point_finished(self, run: Run) -> None:
        self.state.point_finished(run)
        mark, line = _finished_line(self.state, run)
        left = f"; about {duration(self.state.left_s())} left" if self.state.left else ""
        self._say(f"{mark} {line}{left}")

    def evaluating(self, task: str, done: int, total: int, items_per_s: float) -> None:
        self.state.evaluating(task, done, total, items_per_s)
        if self.clock() - self.spoke >= QUIET_S:
            self._say(self.state.scoring)

    def evaluated(self, config: ServingConfig, evaluation: Evaluation) -> None:
        self.state.evaluated()
        mark, line = accuracy_table.finished_line(config, evaluation)
        self._say(f"{mark} {line}")

    def launch_failed(self, failure: Failure) -> None:
        lost = self.state.launch_failed()
        self._say(f"! failed {failure.kind}: {failure.detail} ({lost} points lost)")

    def finished(self) -> None:
        state = self.state
        self._say(f"finished: {state.number}/{state.total} points, {state.failed} failed")


class LiveWatch:
    """Two lines that stay at the foot of the terminal; finished points scroll by above them."""

    def __init__(
        self, plan: Plan, done: Set[str], stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        self.state = State(plan, done, clock)
        self.console = Console(file=stream, highlight=False, soft_wrap=False)
        self.live = Live(
            get_renderable=self._lines, console=self.console, refresh_per_second=4, transient=True
        )
        atexit.register(self.live.stop)  # an interrupt must not leave the terminal without its cursor
        self.live.start()

    def _lines(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        state = self.state
        head = Table.grid(padding=(0, 1))
        failed = Text(f"{state.failed} failed", style="red" if state.failed else "dim")
        took, left = duration(state.elapsed_s), duration(state.left_s())
        head.add_row(
            ProgressBar(total=max(1, state.total), completed=state.number, width=16),
            f"{state.launch}  point {min(state.number + 1, state.total)}/{state.total}",
            failed,
            Text(f"{took} gone, about {left} left", style="dim"),
        )
        return Group(head, Text(self._now(), overflow="ellipsis", no_wrap=True))

    def _now(self) -> str:
        state = self.state
        said = {"scoring": state.scoring}.get(state.phase, state.phase)
        parts = [state.measuring() if state.phase == "measuring" else said]
        if state.point:
            parts.append(label(state.point.load))
        if state.launch:
            parts.append(state.config.label)
        return " · ".join(parts)

    def _print(self, mark: str, line: str, style: str) -> None:
        from rich.text import Text

        self.console.print(Text.assemble((mark, style), f" {line}"))

    def launch_started(self, config: ServingConfig, index: int, total: int) -> None:
        self.state.launch_started(config, index, total)

    def ready(self, seconds: float | None) -> None:
        if seconds is not None:
            self.state.ready_s.append(seconds)
        self.state.phase = "ready"

    def point_started(self, point: Point) -> None:
        self.state.point_started(point)

    def load_progress(self, progress: Progress) -> None:
        self.state.load_progress(progress)

    def point_finished(self, run: Run) -> None:
        self.state.point_finished(run)
        mark, line = _finished_line(self.state, run)
        self._print(mark, line, {"✓": "green", "?": "yellow"}.get(mark[0], "red"))

    def evaluating(self, task: str, done: int, total: int, items_per_s: float) -> None:
        self.state.evaluating(task, done, total, items_per_s)

    def evaluated(self, config: ServingConfig, evaluation: Evaluation) -> None:
        self.state.evaluated()
        mark, line = accuracy_table.finished_line(config, evaluation)
        self._print(mark, line, {"✓": "green", "?": "yellow"}.get(mark[0], "red"))

    def launch_failed(self, failure: Failure) -> None:
        lost = self.state.launch_failed()
        self._print("! failed", f"{failure.kind}: {failure.detail} ({lost} points lost)", "red")

    def finished(self) -> None:
        self.live.stop()
        atexit.unregister(self.live.stop)
        state = self.state
        print(
            f"{state.number}/{state.total} points in {duration(state.elapsed_s)}, {state.failed} failed",
            file=self.console.file,
        )
