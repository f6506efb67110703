"""What is said while a campaign runs: in a terminal, in a log, and how long it says the rest takes."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench.client.drive import Progress
from bench.plan.expand import expand
from bench.plan.planning import Launch, Plan
from bench.point import Point
from bench.progress import Watch
from bench.scenario import scenariofile
from servetune.report.progress import LineWatch, LiveWatch, State, watch_for
from serving.errors import Failure, FailureKind
from tests.support.report_fixture import SCENARIO, run_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Time that moves only when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """9 launches of 4 points each, thought to take ten minutes."""
    file = tmp_path / "scenario.yaml"
    file.write_text(SCENARIO.replace("SIM\n", "").replace("REPEATS", "1"))
    scenario = scenariofile.load(file)
    points, _ = expand(scenario, "cpu")
    grouped: dict[str, list[Point]] = {}
    for point in points:
        grouped.setdefault(point.config.key, []).append(point)
    launches = tuple(
        Launch(f"{n:03d}-{key}", of[0].config, tuple(of)) for n, (key, of) in enumerate(grouped.items(), 1)
    )
    return Plan(scenario, "cpu", launches, (), {}, 600.0)


def campaign(watch: Watch, plan: Plan, clock: Clock, launches: int = 9) -> None:
    """The calls of bench.measure: a launch takes 30 s, a point 10, one launch fails."""
    for number, launch in enumerate(plan.launches[:launches], 1):
        watch.launch_started(launch.config, number, len(plan.launches))
        clock.now += 30
        if launch.config.quantization == "bnb-4bit":
            watch.launch_failed(Failure(FailureKind.OOM_LAUNCH, "out of\x1b[31m memory\r\nhere"))
            continue
        watch.ready(30.0)
        for place, point in enumerate(launch.points):
            watch.point_started(point)
            for step in range(3):
                clock.now += 3
                watch.load_progress(Progress(10 * step, 30, 400 * step, 3.0 * step))
            clock.now += 1
            watch.point_finished(run_of(point, place, 30))
    if launches == len(plan.launches):
        watch.finished()


def test_a_log_gets_lines_without_control_characters(plan: Plan) -> None:
    out, clock = io.StringIO(), Clock()
    watch = LineWatch(plan, frozenset(), out, clock)
    campaign(watch, plan, clock)
    text = out.getvalue()
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text) is None
    lines = text.splitlines()
    assert lines[0].endswith("launch 1/9: starting " + plan.launches[0].config.label)
    assert "ready after 30 s" in lines[1]
    assert "point 1/36: chat 128->32 c=2" in lines[2]
    assert "tokens/s, TTFT p50" in lines[3]
    assert "! failed oom_at_launch: out of [31m memory  here (4 points lost)" in text
    assert lines[-1].endswith("finished: 36/36 points, 5 failed")


def test_a_long_load_is_heard_of_but_not_too_often(plan: Plan) -> None:
    out, clock = io.StringIO(), Clock()
    watch = LineWatch(plan, frozenset(), out, clock)
    watch.launch_started(plan.launches[0].config, 1, 9)
    watch.point_started(plan.points[0])
    before = out.getvalue().count("\n")
    for second in range(1, 121):
        clock.now += 1
        watch.load_progress(Progress(second, 300, 50 * second, float(second)))
    said = out.getvalue().splitlines()[before:]
    assert len(said) == 4
    assert "measuring 120/300 requests · ≈50.0 tokens/s" in said[-1]


def test_what_it_is_decides_where_it_goes(plan: Plan) -> None:
    assert isinstance(watch_for(plan, stream=io.StringIO()), LineWatch)
    live = watch_for(plan, stream=Terminal())
    assert isinstance(live, LiveWatch)
    live.finished()


def test_a_terminal_keeps_a_line_a_point_and_gives_its_cursor_back(plan: Plan) -> None:
    out, clock = Terminal(), Clock()
    watch = LiveWatch(plan, frozenset(), out, clock)
    campaign(watch, plan, clock)
    text = out.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert text.count("TTFT p50") == 31
    assert "36/36 points in 10 min, 5 failed" in text.replace("\x1b[2K", "")


def test_the_live_lines_say_where_it_stands(plan: Plan) -> None:
    from rich.console import Console

    out, clock = Terminal(), Clock()
    watch = LiveWatch(plan, frozenset(), out, clock)
    campaign(watch, plan, clock, launches=2)
    watch.launch_started(plan.launches[2].config, 3, 9)
    watch.ready(30.0)
    watch.point_started(plan.launches[2].points[0])
    watch.load_progress(Progress(10, 30, 0, 1.0))
    watch.load_progress(Progress(20, 30, 800, 3.0))
    said = io.StringIO()
    Console(file=said, width=80).print(watch._lines())
    watch.finished()
    lines = said.getvalue().splitlines()
    assert len(lines) == 2
    assert "launch 3/9" in lines[0]
    assert "point 9/36" in lines[0]
    assert "1 failed" in lines[0]
    assert lines[1].startswith("measuring 20/30 requests · ≈400 tokens/s · chat 128->32 c=2 · vllm w8a8")


def test_time_left_starts_with_the_plan_and_learns(plan: Plan) -> None:
    clock = Clock()
    state = State(plan, frozenset(), clock)
    assert state.left_s() == 600
    clock.now += 60
    assert state.left_s() == 540
    state.launch_started(plan.launches[0].config, 1, 9)
    state.ready_s.append(30.0)
    for point in plan.launches[0].points:
        state.point_started(point)
        clock.now += 10 if point.load.input_tokens == 128 else 20
        state.point_finished(run_of(point, 0, 30))
    expected = 8 * 30 + 16 * 10 + 16 * 20
    assert state.left_s() == pytest.approx(expected)


def test_failed_points_do_not_teach_the_time(plan: Plan) -> None:
    clock = Clock()
    state = State(plan, frozenset(), clock)
    point = plan.points[0]
    state.launch_started(point.config, 1, 9)
    state.point_started(point)
    clock.now += 1
    state.point_finished(replace(run_of(point, 0, 30), failure=Failure(FailureKind.CRASH, "x")))
    assert not state.took_s
    assert state.failed == 1


def test_a_resumed_run_counts_what_is_done(plan: Plan) -> None:
    done = frozenset(p.key for p in plan.points[:10])
    state = State(plan, done, Clock())
    assert (state.number, state.total) == (10, 36)
    assert state.left_s() == pytest.approx(600 * 26 / 36)
    state.launch_started(plan.launches[2].config, 3, 9)
    assert state.launch_failed() == 2
    assert state.number == 12
