"""Where Optuna keeps a study: one suite for every storage; `study.jsonl` stays the truth whatever becomes of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from search.loop import Loop
from search.resume import StudyLog
from search.study import Study
from serving.errors import UserError
from tests.support.postgres import Postgres, postgres
from tests.support.search_fixture import CONSTRAINTS, GOAL, SPACE, loop


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    pytest.importorskip("psycopg", reason="servetune[postgres] is not installed")
    # Not pytest's own folder, which only its user may enter.
    folder = Path(tempfile.mkdtemp(prefix="servetune-pg-"))
    folder.chmod(0o755)
    try:
        with postgres(folder) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        found: Postgres = request.getfixturevalue("server")
        with subprocess.Popen(["true"]):
            return found.url
    return {"sqlite": f"sqlite:///{tmp_path}/s.db", "journal": f"journal:{tmp_path}/s.journal"}[request.param]


def study_of(folder: Path, storage: str, name: str) -> Loop:
    """The known optimum, its study called `name`."""
    made = loop(folder, 6, sampler="tpe")
    made.study = Study.open(storage, name, SPACE, GOAL, CONSTRAINTS, "tpe", 1)
    return made


def test_a_study_is_kept_and_gone_on_with(
    tmp_path: Path, storage: str, request: pytest.FixtureRequest
) -> None:
    name = re.sub(r"\W", "-", request.node.name)
    first = study_of(tmp_path, storage, name)
    first.run()
    told = [t for t in first.study.optuna.get_trials() if "discarded" not in t.user_attrs]
    assert [t.user_attrs["trial"] for t in told] == list(range(6))
    assert all(t.state.is_finished() for t in told)
    again = study_of(tmp_path, storage, name)
    again.budget.__dict__["trials"] = 9
    again.run()
    assert len(StudyLog(tmp_path).trials()) == 9
    kept = [t.user_attrs["trial"] for t in again.study.optuna.get_trials() if "discarded" not in t.user_attrs]
    assert sorted(kept) == list(range(9))


def test_a_storage_that_was_lost_is_told_everything_again(
    tmp_path: Path, storage: str, request: pytest.FixtureRequest
) -> None:
    name = re.sub(r"\W", "-", request.node.name)
    study_of(tmp_path, storage, name).run()
    fresh = study_of(tmp_path, storage, name + "-new")
    fresh.run()
    states = [t.state.name for t in fresh.study.optuna.get_trials()]
    assert len(states) == 6
    assert "RUNNING" not in states


def test_a_lost_database_stops_the_search_loudly_and_costs_nothing(tmp_path: Path, server: Postgres) -> None:
    made = study_of(tmp_path, server.url, "lost")
    before = made.evaluator.measure
    looks = 0

    def measure(settings, fidelity):  # type: ignore[no-untyped-def]
        nonlocal looks
        looks += 1
        if looks == 4:
            server.stop()
        return before(settings, fidelity)

    made.evaluator.measure = measure  # type: ignore[method-assign]
    try:
        with pytest.raises(UserError, match="storage") as raised:
            made.run()
        assert "--resume" in raised.value.hint
        measured = len(StudyLog(tmp_path).history())
        assert measured >= 4, "what was measured when it went away is in the log"
    finally:
        server.start()
    study_of(tmp_path, server.url, "lost").run()
    trials = StudyLog(tmp_path).trials()
    assert len(trials) == 6
    assert all(one.ended and one.attempts == 1 for one in trials), "nothing was measured twice"


def test_a_storage_that_cannot_be_reached_is_an_error_with_a_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for url in (f"postgresql+psycopg://u:secret@127.0.0.1:{port}/x", "mysql+nodriver://u:secret@127.0.0.1/x"):
        with pytest.raises(UserError) as raised:
            Study.open(url, "x", SPACE, GOAL, CONSTRAINTS, "tpe", 1)
        assert "secret" not in str(raised.value)
        assert "--storage" in raised.value.hint


@pytest.mark.slow
def test_optuna_dashboard_opens_a_study_as_it_is(tmp_path: Path) -> None:
    loop(tmp_path, 6).run()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("optuna-dashboard")
    command = [str(program), f"sqlite:///{tmp_path}/study.db", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as served:
        try:
            studies = _when_up(f"http://127.0.0.1:{port}/api/studies")
        finally:
            os.killpg(served.pid, signal.SIGKILL)
    assert [one["study_name"] for one in studies["study_summaries"]] == ["known"]


def _when_up(url: str) -> dict:  # type: ignore[type-arg]
    deadline = time.monotonic() + 60
    while True:
        try:
            return httpx.get(url, trust_env=False, timeout=5).raise_for_status().json()
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
