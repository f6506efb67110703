"""Device locks: one run at a time, the holder named, nothing left by a killed holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serving.errors import BusyError
from serving.lock import device_lock, exclusive, runtime_folder

HOLD = """
import sys, time
from pathlib import Path
from serving.lock import device_lock
with device_lock("cpu", "servetune bench, results/other", Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    other = holder(tmp_path)
    try:
        with pytest.raises(BusyError) as caught, device_lock("cpu", "mine", tmp_path):
            pass
        assert "servetune bench, results/other" in caught.value.message
        assert str(other.pid) in caught.value.message
        assert str(other.pid) in caught.value.hint
        assert caught.value.exit_code == 2
        with device_lock("GPU-1234", "another device is free", tmp_path):
            pass
    finally:
        other.kill()
        other.wait()


def test_a_killed_holder_leaves_the_device_free(tmp_path: Path) -> None:
    other = holder(tmp_path)
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    with device_lock("cpu", "mine", tmp_path):
        assert "mine" in next(tmp_path.iterdir()).read_text()


def test_it_can_be_taken_again_and_is_not_inherited(tmp_path: Path) -> None:
    with device_lock("cpu", "mine", tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with device_lock("cpu", "mine again", tmp_path):
            assert "mine again" in next(tmp_path.iterdir()).read_text()
    finally:
        child.kill()
        child.wait()


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), device_lock("cpu", "mine", tmp_path):
        raise RuntimeError
    with device_lock("cpu", "mine", tmp_path):
        pass


def test_names_of_devices_cannot_leave_the_folder(tmp_path: Path) -> None:
    with device_lock("../../x", "mine", tmp_path):
        assert [p.parent for p in tmp_path.iterdir()] == [tmp_path]


def test_runtime_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = runtime_folder()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_exclusive_waits_for_the_other(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom serving.lock import exclusive\n"
        "with exclusive(Path(sys.argv[1])):\n    print('in', flush=True); time.sleep(0.4)\n"
        "    Path(sys.argv[1] + '.done').touch()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    with exclusive(path):
        assert (tmp_path / "x.lock.done").exists()
    assert other.wait() == 0
