"""Processes we own: what ready means, why a launch failed, and that nothing of an engine is ever left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from serving.engine import Engine
from serving.errors import EngineError, Failure, FailureKind
from serving.launch import child as child_module
from serving.launch.child import port_is_free
from serving.launch.launch import launch
from tests.support.stand_in import MARK, StandIn, config, marked, wait_until_none


@pytest.fixture
def mark() -> str:
    return uuid.uuid4().hex


def failure_of(engine: Engine, folder: Path, **limits: float) -> Failure:
    with pytest.raises(EngineError) as caught, launch(engine, config(), folder, **limits):  # type: ignore[arg-type]
        pytest.fail("it must not get ready")
    return caught.value.failure


def test_a_server_is_ready_ours_and_gone_afterwards(tmp_path: Path, mark: str) -> None:
    with launch(StandIn(mark=mark), config(), tmp_path / "launch") as server:
        at = server.endpoint
        assert server.alive()
        assert at.pid in marked(mark)
        assert at.ready_s is not None
        assert 0 < at.ready_s < 30
        assert at.effective == {"max_num_seqs": 8, "version": "1.0"}
        assert "stand-in listens" in server.log_text()
        port = int(at.url.rsplit(":", 1)[1])
        assert not port_is_free(port)
        where = Path(f"/proc/{at.pid}/cwd").resolve()
        assert where == tmp_path / "launch" / "cwd"
        assert os.getpgid(at.pid) != os.getpgid(0)
    assert not marked(mark)
    assert port_is_free(port)
    assert not server.alive()


def test_command_json_says_how_to_start_it_again_without_secrets(tmp_path: Path) -> None:
    class WithSecret(StandIn):
        def command(self, config, port):  # type: ignore[no-untyped-def]
            command = super().command(config, port)
            return type(command)(command.argv, {**command.env, "SOME_API_KEY": "hidden"})

    with launch(WithSecret(), config(), tmp_path):
        kept = json.loads((tmp_path / "command.json").read_text())
    assert kept["argv"][0] == sys.executable
    assert "hidden" not in (tmp_path / "command.json").read_text()


def test_the_engine_sees_a_small_environment(
    tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_PASSWORD", "hidden")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with launch(StandIn(mark=mark), config(env={"EXTRA": "1"}), tmp_path / "l") as server:
        seen = dict(
            part.split("=", 1)
            for part in Path(f"/proc/{server.endpoint.pid}/environ").read_text().split("\0")
            if "=" in part
        )
    assert seen["PYTHONSAFEPATH"] == "1"
    assert seen["EXTRA"] == "1"
    assert "SOME_PASSWORD" not in seen
    assert "PYTHONPATH" not in seen


@pytest.mark.parametrize(
    ("mode", "kind", "text"),
    [
        ("bad_flag", FailureKind.BAD_FLAG, "--no-such-flag"),
        ("oom", FailureKind.OOM_LAUNCH, "CUDA out of memory"),
        ("crash", FailureKind.CRASH, "RuntimeError: broken on purpose"),
        ("killed", FailureKind.KILLED, "SIGKILL"),
        ("segfault", FailureKind.CRASH, "SIGSEGV"),
        ("stranger", FailureKind.WRONG_IDENTITY, "another"),
        ("old", FailureKind.WRONG_IDENTITY, "9.9"),
        ("coerces", FailureKind.WRONG_IDENTITY, "max_num_seqs: asked 8, the server says 4"),
        ("idle", FailureKind.NO_EFFECT, "on purpose"),
        ("error", FailureKind.CRASH, "500"),
        ("empty", FailureKind.CRASH, "without a token"),
        ("dies_on_request", FailureKind.CRASH, "dead on purpose"),
        ("orphans", FailureKind.CRASH, "exit status 7"),
    ],
)
def test_why_a_launch_failed(tmp_path: Path, mark: str, mode: str, kind: FailureKind, text: str) -> None:
    failure = failure_of(StandIn(mode, mark), tmp_path)
    assert failure.kind == kind
    assert text in failure.detail
    assert failure.hint
    assert failure.settings["max_num_seqs"] == 8
    assert not marked(mark)


@pytest.mark.parametrize("mode", ["mute", "stalls"])
def test_healthy_without_a_finished_generation_is_a_hang(tmp_path: Path, mark: str, mode: str) -> None:
    failure = failure_of(StandIn(mode, mark), tmp_path, hang_s=0.5)
    assert failure.kind == FailureKind.HANG
    assert failure.log_tail == ("stand-in listens",)
    assert not marked(mark)


def test_not_ready_in_time(tmp_path: Path, mark: str) -> None:
    failure = failure_of(StandIn("never", mark), tmp_path, ready_timeout_s=0.5)
    assert failure.kind == FailureKind.NOT_READY
    assert "waited" in failure.detail
    assert not marked(mark)


def test_healthy_too_late_is_no_hang(tmp_path: Path, mark: str) -> None:
    failure = failure_of(StandIn("mute", mark), tmp_path, ready_timeout_s=1.5)
    assert failure.kind == FailureKind.NOT_READY


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    class Missing(StandIn):
        def command(self, config, port):  # type: ignore[no-untyped-def]
            return type(super().command(config, port))(("/no/such/program",))

    assert failure_of(Missing(), tmp_path).kind == FailureKind.NOT_INSTALLED


def test_a_given_port_that_is_taken_is_never_used(tmp_path: Path, mark: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        failure = failure_of(StandIn(mark=mark), tmp_path, port=port)
    assert failure.kind == FailureKind.PORT_TAKEN
    assert str(port) in failure.detail
    assert not marked(mark)


def test_a_chosen_port_that_is_lost_to_another_is_chosen_again(
    tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken, free = other.getsockname()[1], child_module.free_port()
        ports = iter([taken, free])
        monkeypatch.setattr("serving.launch.launch.free_port", lambda: next(ports))
        monkeypatch.setattr("serving.launch.launch.port_is_free", lambda port: True)
        with launch(StandIn(mark=mark), config(), tmp_path) as server:
            assert server.endpoint.url.endswith(str(free))


def test_death_under_load_is_told_from_the_log(tmp_path: Path, mark: str) -> None:
    with launch(StandIn(mark=mark), config(), tmp_path) as server:
        with (tmp_path / "engine.log").open("a") as log:
            log.write("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB.\n")
        assert server.endpoint.pid is not None
        os.kill(server.endpoint.pid, signal.SIGABRT)
        deadline = time.monotonic() + 10
        while server.alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        failure = server.why_dead()
    assert failure.kind == FailureKind.OOM_LOAD
    assert failure.exit_code == -signal.SIGABRT


def test_silence_of_a_living_server_is_a_hang(tmp_path: Path) -> None:
    with launch(StandIn(), config(), tmp_path) as server:
        failure = server.why_silent([object()] * 3)
    assert failure.kind == FailureKind.HANG
    assert "3 requests" in failure.detail


def test_stubborn_families_end_too(tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TERM ignored, children in sessions of their own, one of them an orphan: all of it ends."""
    monkeypatch.setattr(child_module, "GRACE_S", 0.3)
    with launch(StandIn("stubborn", mark), config(), tmp_path):
        assert len(marked(mark)) == 5  # the guard, the engine, two children, one orphan
    assert not marked(mark)


PARENT = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.support.stand_in import StandIn, config
from serving.launch import child
from serving.launch.launch import launch
child.GRACE_S = 0.3
with launch(StandIn(sys.argv[3], sys.argv[4]), config(), Path(sys.argv[2])):
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("mode", ["ok", "family", "stubborn"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_outlives_servetune(tmp_path: Path, mark: str, mode: str, number: int) -> None:
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, root, str(tmp_path), mode, mark],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    assert marked(mark)
    parent.send_signal(number)
    parent.wait(30)
    assert wait_until_none(mark, 20) == []


def test_a_killed_guard_takes_the_engine_with_it(tmp_path: Path, mark: str) -> None:
    with launch(StandIn(mark=mark), config(), tmp_path) as server:
        assert server.child is not None
        server.child.process.kill()
        assert wait_until_none(mark, 10) == []
        assert not server.alive()


@pytest.mark.slow
def test_fifty_launches_with_faults_leave_nothing(
    tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "GRACE_S", 0.2)
    modes = ["ok", "bad_flag", "oom", "crash", "killed", "mute", "stranger", "family", "orphans", "stubborn"]
    ports = []
    real = child_module.free_port
    monkeypatch.setattr("serving.launch.launch.free_port", lambda: ports.append(real()) or ports[-1])
    outcomes = []
    for number in range(50):
        mode = modes[number % len(modes)]
        try:
            with launch(StandIn(mode, mark), config(), tmp_path / str(number), hang_s=0.3) as server:
                outcomes.append("ready")
                if number >= 40 and server.endpoint.pid is not None:
                    os.kill(server.endpoint.pid, signal.SIGKILL)
        except EngineError as error:
            outcomes.append(str(error.failure.kind))
    assert len(outcomes) == 50
    assert outcomes.count("ready") == 15
    assert marked(mark) == []
    assert all(port_is_free(port) for port in ports)
    assert MARK not in os.environ
