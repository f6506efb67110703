"""`drive` end to end against the scripted server: what is sent, when, by whom, and what becomes of failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest

from bench.client.drive import Interrupted
from bench.proof.conformance import truth
from bench.records.model import RequestError
from bench.traffic import arrivals
from serving.errors import ServetuneError, UserError
from tests.support.load_fixture import CLOSED, bodies, free_port, load_processes, run, url

__all__ = ["url"]


def prompts(url: str) -> set[str]:
    """The first two words of every prompt the server has answered; it numbers those it saw before."""
    return {name.partition(" #")[0] for name in truth(url)}


def test_a_closed_loop_keeps_so_many_in_flight_and_ends(url: str, tmp_path: Path) -> None:
    driven = run(url, CLOSED, tmp_path)
    assert [r.index for r in driven.records] == sorted(r.index for r in driven.records)
    assert {r.index for r in driven.records} == set(range(20))
    assert all(r.ok and r.output_tokens == r.asked_output_tokens == 8 for r in driven.records)
    assert all(r.input_tokens == r.asked_input_tokens == 12 for r in driven.records)
    starts = np.array([r.sent_s for r in driven.records])
    ends = np.array([r.closed_s for r in driven.records])
    in_flight = [((starts <= t) & (ends > t)).sum() for t in starts]
    assert max(in_flight) == 4
    assert sum(r.connected_s is not None for r in driven.records) == 0  # all set up before the load
    assert driven.load_end_s == pytest.approx(starts.max())
    assert driven.client.workers == 1
    assert driven.client.events >= 8
    assert abs(driven.started_unix_s - time.time()) < 60
    assert not (tmp_path / "load").exists()


def test_an_open_loop_sends_at_the_planned_moments(url: str, tmp_path: Path) -> None:
    load = replace(CLOSED, concurrency=None, arrivals="poisson", rate_per_s=60.0, requests=90)
    driven = run(url, load, tmp_path)
    planned = [r.planned_s for r in driven.records]
    np.testing.assert_allclose(planned, arrivals.planned(load, 1), atol=1e-6)
    lags = [r.sent_s - r.planned_s for r in driven.records if r.sent_s is not None]
    assert len(lags) == 90
    assert min(lags) >= 0
    assert np.median(lags) < 0.02


def test_an_open_loop_does_not_wait_for_answers(url: str, tmp_path: Path) -> None:
    load = replace(
        CLOSED, concurrency=None, arrivals="burst", rate_per_s=1000.0, burst_size=100, requests=100
    )
    driven = run(url, load, tmp_path, model="plain:300:5")
    assert all(r.ok for r in driven.records)
    # All are under way before the first is answered.
    assert max(r.sent_s or 9e9 for r in driven.records) < min(r.first_s or 0 for r in driven.records)


def test_by_duration_prompts_are_begun_anew_when_used_up(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.client.schedule.LARGEST_PLAN_TOKENS", 100)
    load = replace(CLOSED, requests=None, duration_s=1.5, shared_prefix_tokens=3)
    before = prompts(url)
    driven = run(url, load, tmp_path, salt="anew", keep_raw=True)
    assert len(bodies(tmp_path)) == 8
    assert len(driven.records) > 20
    assert len({r.index for r in driven.records}) == len(driven.records)
    assert all(r.ok and r.asked_input_tokens == r.input_tokens == 12 for r in driven.records)
    assert max(r.sent_s or 0 for r in driven.records) < 1.6
    # Two words are all of the shared prefix here.
    assert len(prompts(url) - before) == 1
    fresh = run(url, replace(load, shared_prefix_tokens=0), tmp_path, salt="other")
    assert len(prompts(url) - before) == 1 + len(fresh.records)


def test_workers_split_one_schedule_without_overlap(url: str, tmp_path: Path) -> None:
    load = replace(CLOSED, concurrency=None, arrivals="poisson", rate_per_s=80.0, requests=120)
    driven = run(url, load, tmp_path, workers=2)
    assert driven.client.workers == 2
    assert sorted(r.index for r in driven.records) == list(range(120))
    assert {r.worker for r in driven.records} == {0, 1}
    np.testing.assert_allclose([r.planned_s for r in driven.records], arrivals.planned(load, 1), atol=1e-6)


def test_workers_share_the_users_of_a_closed_loop(url: str, tmp_path: Path) -> None:
    driven = run(url, replace(CLOSED, concurrency=5, requests=40), tmp_path, workers=2, model="plain:50:5")
    assert sorted(r.index for r in driven.records) == list(range(40))
    assert all(r.ok for r in driven.records)
    starts = np.array([r.sent_s for r in driven.records])
    ends = np.array([r.closed_s for r in driven.records])
    assert max(((starts <= t) & (ends > t)).sum() for t in starts) == 5
    assert not load_processes()


def test_a_session_holds_the_conversation_before_it(url: str, tmp_path: Path) -> None:
    load = replace(CLOSED, concurrency=2, requests=6, turns=3, endpoint="chat")
    driven = run(url, load, tmp_path)
    by_session: dict[int, list] = {}  # type: ignore[type-arg]
    for record in driven.records:
        assert record.session is not None
        by_session.setdefault(record.session, []).append(record)
    assert sorted(len(turns) for turns in by_session.values()) == [3, 3]
    for turns in by_session.values():
        for earlier, later in pairwise(turns):
            assert later.sent_s >= earlier.closed_s


def test_a_session_of_completions_grows(url: str, tmp_path: Path) -> None:
    driven = run(url, replace(CLOSED, concurrency=1, requests=3, turns=3), tmp_path)
    # 12 words, then what was said and answered (8 words), and 12 more.
    assert [r.input_tokens for r in driven.records] == [12, 32, 52]


def test_warm_up_is_sent_before_and_counted_nowhere(url: str, tmp_path: Path) -> None:
    before = set(truth(url))
    seen: list[int] = []
    driven = run(url, replace(CLOSED, warmup_requests=3), tmp_path, salt="warm",
                 before_start=lambda: seen.append(len(set(truth(url)) - before)))  # fmt: skip
    assert seen == [3]
    assert len(driven.records) == 20
    assert len(set(truth(url)) - before) == 23
    assert min(r.planned_s for r in driven.records) >= 0


def test_a_failing_warm_up_is_noted(url: str, tmp_path: Path) -> None:
    driven = run(url, replace(CLOSED, warmup_requests=2), tmp_path, model="broken")
    assert driven.client.notes == ("2 of 2 warm-up requests failed: http_status: 503: no capacity",)


def test_nobody_listening_is_an_error_of_every_request(tmp_path: Path) -> None:
    driven = run(f"http://127.0.0.1:{free_port()}", CLOSED, tmp_path)
    assert {r.error for r in driven.records} == {RequestError.CONNECT}
    assert len(driven.records) == 20
    assert "refused" in driven.records[0].error_detail


def test_a_dead_server_stops_the_load_and_nothing_planned_is_lost(url: str, tmp_path: Path) -> None:
    load = replace(CLOSED, concurrency=None, arrivals="constant", rate_per_s=50.0, requests=500)
    begun: list[float] = []

    def alive() -> bool:
        return not begun or time.monotonic() - begun[0] < 3

    driven = run(
        url,
        load,
        tmp_path,
        model="plain:300:5",
        alive=alive,
        before_start=lambda: begun.append(time.monotonic()),
    )
    assert len(driven.records) == 500
    censored = [r for r in driven.records if r.error is RequestError.CENSORED]
    assert 100 < len(censored) < 500
    assert {r.error_detail for r in censored} == {"the server died"}
    assert any(r.sent_s is not None for r in censored)
    assert all(r.ok for r in driven.records if r.error is not RequestError.CENSORED)


def test_a_load_process_that_dies_is_an_error_not_a_gap(url: str, tmp_path: Path) -> None:
    def kill_one(progress: object) -> None:
        for process in load_processes()[-1:]:
            process.kill()

    load = replace(CLOSED, requests=4000)
    with pytest.raises(ServetuneError, match="ended with -9"):
        run(url, load, tmp_path, workers=2, progress=kill_one)
    assert not load_processes()


def test_ctrl_c_keeps_what_was_recorded(url: str, tmp_path: Path) -> None:
    pressed: list[object] = []

    def press(progress: object) -> None:
        if not pressed:
            pressed.append(progress)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        run(url, replace(CLOSED, requests=4000), tmp_path, progress=press)
    records = caught.value.drive.records
    assert sum(r.ok for r in records) > 4
    assert {r.error_detail for r in records if not r.ok} <= {"interrupted"}
    assert not load_processes()


def test_load_processes_end_with_their_parent(url: str, tmp_path: Path) -> None:
    script = f"""
import sys; sys.path.insert(0, ".")
from pathlib import Path
from dataclasses import replace
from tests.support.load_fixture import CLOSED, run, load_processes
def tell(progress):
    print(*[p.pid for p in load_processes()], flush=True)
run({url!r}, replace(CLOSED, requests=5000), Path({str(tmp_path)!r}), workers=2, progress=tell)
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=root, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = list(map(int, parent.stdout.readline().split()))
        parent.kill()
    assert len(pids) == 3  # Locust's master and two workers
    _, alive = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], timeout=10)
    assert not alive


def test_loads_that_cannot_be_planned(url: str, tmp_path: Path) -> None:
    open_loop = replace(CLOSED, concurrency=None, arrivals="poisson", rate_per_s=1.0)
    with pytest.raises(UserError, match="closed loop"):
        run(url, replace(open_loop, turns=2), tmp_path)
    with pytest.raises(UserError, match="no request"):
        run(url, replace(open_loop, requests=None, duration_s=1e-4), tmp_path)
    with pytest.raises(UserError, match="prompt tokens"):
        run(url, replace(CLOSED, requests=10**6, input_tokens=1000), tmp_path)
    with pytest.raises(UserError, match="users need a connection"):
        run(url, replace(CLOSED, concurrency=10**8, requests=1), tmp_path)
