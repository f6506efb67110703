"""What other load tools reported, held against the truth: the judgement, and one real comparison."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from rivals import timed  # noqa: E402
from rivals.clients import CLIENTS, Job, Told  # noqa: E402
from rivals.reading import STREAMS, Run, Truth, tables, wrong  # noqa: E402

TRUTH = Truth(12, 50.0, 51.0, 10.0, 360.0, 0.9)
RIGHT = Told(12, 0, 384, 50.5, 52.0, 10.01, 361.0)
RUN = Run("some tool", "1.0", "plain", 1, 12, 32, TRUTH, RIGHT, 0, 9.0, 4.0, "")


def test_what_agrees_is_right() -> None:
    assert wrong(RUN) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ttft_p50_ms": 1.7}, "TTFT 1.7 ms, truly 50.0"),
        ({"ttft_p99_ms": 80.0}, "TTFT p99 80.0 ms"),
        ({"e2e_p50_ms": 460.0}, "E2E 460.0 ms"),
        ({"tpot_p50_ms": 11.6}, "TPOT 11.60 ms, truly 10.00"),
        ({"output_tokens": 96.0}, "8 tokens a request, truly 32"),
        ({"completed": 11, "failed": 1}, "1 reported as failed"),
    ],
)
def test_what_does_not_is_said(changed: dict[str, float], said: str) -> None:
    found = wrong(replace(RUN, told=replace(RIGHT, **changed)))
    assert any(said in line for line in found)


def test_a_failure_counted_as_success_is_said() -> None:
    ended = replace(RUN, model="error_in_stream")
    assert wrong(ended) == ["12 failures reported as successes"]
    assert wrong(replace(ended, told=Told(0, 12))) == []


def test_a_tool_without_figures_says_its_last_line() -> None:
    assert wrong(replace(RUN, told=None, last_line="no such option")) == ["no such option"]


def test_tables_have_a_row_a_run_and_a_cell_a_case() -> None:
    text = tables([replace(RUN, model=STREAMS, streams=32), RUN], 1)
    assert (
        "| 32 | some tool 1.0 | 50.5 (50.0) | 52.0 (51.0) | 10.01 (10.00) | 361 (360) | 90% | 4 | 9 |" in text
    )
    assert "| `plain` | right |" in text


def test_every_tool_is_asked_for_the_same_load(tmp_path: Path) -> None:
    job = Job("http://127.0.0.1:1", "plain", 7, 7011, 3013, tmp_path)
    for name, client in CLIENTS.items():
        asked = " ".join(client.arguments(job, tmp_path))
        assert all(word in asked for word in ("http://127.0.0.1:1", "plain", "7011", "3013")), name


def test_a_tool_is_ended_at_its_limit_with_all_it_started(tmp_path: Path) -> None:
    program = "import os, subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    program += "print(child.pid, flush=True); time.sleep(60)"
    spent = timed.run([sys.executable, "-c", program], tmp_path / "log", 2.0)
    assert spent.status == -9
    assert 2.0 <= spent.wall_s < 30.0
    child = int((tmp_path / "log").read_text())
    deadline = time.monotonic() + 10
    while running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(child)


def test_what_a_tool_costs_includes_its_children(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 1: pass"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); sys.exit(3)"
    spent = timed.run([sys.executable, "-c", program], tmp_path / "log", 60.0)
    assert spent.status == 3
    assert spent.cpu_s >= 1.0


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.engine
def test_real_tools_on_the_server_that_knows(tmp_path: Path) -> None:
    """The two that every installation has."""
    asked = [sys.executable, "tools/bench_rivals.py", "--clients", "servetune", "vllm bench serve",
               "--streams", "--cases", "plain", "--out", str(tmp_path / "rivals.json")]  # fmt: skip
    ran = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    runs = json.loads((tmp_path / "rivals.json").read_text())["runs"]
    assert ran.returncode == 0, ran.stderr
    assert [run["client"] for run in runs] == ["servetune", "vllm bench serve"]
    for run in runs:
        assert run["truth"]["requests"] == run["told"]["completed"] == 12
        assert run["told"]["output_tokens"] == 12 * 32
