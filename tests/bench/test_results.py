"""A run on disk: what is written comes back, nothing is written over, a kill costs one point at most."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.records import parquet
from bench.records.folder import RunFolder
from bench.records.model import Record, RequestError
from serving.errors import BrokenRunError, UserError
from tests.support.stored_run import FAILED, RUN


def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {"name": "demo"}, b"schema: 1\n")


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    made = folder(tmp_path)
    made.save(RUN)
    made.save(FAILED)
    assert RunFolder.open(made.path).runs() == [RUN, FAILED]
    assert made.done() == {RUN.point.key, FAILED.point.key}


def test_a_run_is_never_written_over(tmp_path: Path) -> None:
    folder(tmp_path)
    with pytest.raises(UserError, match="never writes over"):
        folder(tmp_path)


def test_what_is_not_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(BrokenRunError, match="not a run"):
        RunFolder.open(tmp_path)
    made = folder(tmp_path)
    (made.path / "manifest.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(BrokenRunError, match="schema 99"):
        RunFolder.open(made.path)


def test_a_torn_line_is_passed_over_and_healed(tmp_path: Path) -> None:
    made = folder(tmp_path)
    made.save(RUN)
    with (made.path / "events.jsonl").open("a") as log:
        log.write('{"event":"point","key":"abc')
    assert made.done() == {RUN.point.key}
    made.append("resumed")
    made.save(FAILED)
    assert made.done() == {RUN.point.key, FAILED.point.key}


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    made = folder(tmp_path)
    (made.path / "events.jsonl").write_text('{"event":"a"}\ngarbage\n{"event":"b"}\n')
    with pytest.raises(BrokenRunError, match=":2:"):
        list(made.events())


stamps = st.none() | st.floats(0, 1e6)
records = st.builds(
    Record,
    index=st.integers(0, 2**40),
    planned_s=st.floats(0, 1e6),
    sent_s=stamps,
    first_s=stamps,
    event_s=st.lists(st.floats(0, 1e6)).map(tuple),
    event_tokens=st.lists(st.integers(0, 2**31 - 1)).map(tuple),
    output_tokens=st.none() | st.integers(0, 2**40),
    error=st.none() | st.sampled_from(RequestError),
    error_detail=st.text(st.characters(codec="utf-8")),
)


@given(st.lists(records, max_size=5))
def test_parquet_keeps_every_field(tmp_path_factory: pytest.TempPathFactory, rows: list[Record]) -> None:
    path = tmp_path_factory.mktemp("t") / "r.parquet"
    parquet.write_records(rows, path)
    assert parquet.read_records(path) == tuple(rows)


ROOT = Path(__file__).parents[2]
WRITER = """
    from dataclasses import replace
    from pathlib import Path
    from tests.support.stored_run import RUN
    from bench.records.folder import RunFolder
    folder = RunFolder.open(Path({path!r}))
    for repeat in range(len(folder.done()), 400):
        folder.save(replace(RUN, point=replace(RUN.point, repeat=repeat)))
        print(repeat, flush=True)
"""


def test_kill_9_at_random_moments_loses_at_most_the_point_in_flight(tmp_path: Path) -> None:
    made = folder(tmp_path)
    code = textwrap.dedent(WRITER.format(path=str(made.path)))
    moments = random.Random(5)
    for _ in range(6):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(moments.randrange(1, 12))]
        os.kill(child.pid, signal.SIGKILL)
        said += child.stdout.readlines()
        assert child.wait() == -signal.SIGKILL
        finished = {int(line) for line in said if line.endswith("\n")}
        assert finished
        runs = made.runs()  # every logged point reads back whole
        repeats = {run.point.repeat for run in runs}
        assert finished <= repeats
        assert repeats == set(range(len(runs)))
