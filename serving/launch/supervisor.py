"""A small process between servetune and an engine, so that nothing of an engine outlives its run.

It starts the engine in a session of its own, holds everything the engine starts (also what leaves the
group: on Linux orphans come back to this process), and ends it all when its standard input closes, which
happens whenever servetune stops it, crashes or is killed. Its own exit status is the engine's.
Run by path with nothing but the standard library: `python guard.py GRACE_S PROGRAM ARGUMENT...`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.2
LINUX = sys.platform == "linux"
NOT_FOUND = 127
_LIBC = ctypes.CDLL(None) if LINUX else None


def main() -> int:
    """Runs the engine until it ends or standard input closes; returns its status, signals as 128 + n."""
    grace_s, argv = float(sys.argv[1]), sys.argv[2:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        engine = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_bind)
    except OSError as error:
        print(f"cannot start {argv[0]}: {error.strerror}", flush=True)
        return NOT_FOUND
    try:
        _wait(engine)
        ended = engine.poll()
        if ended is None:
            _signal(engine, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                ended = engine.wait(grace_s)
    finally:
        _end(engine)
    status = engine.wait() if ended is None else ended
    return 128 - status if status < 0 else status


def _bind() -> None:
    """In the engine, before its program starts: dies with this process, whatever ends it; dumps no core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _wait(engine: subprocess.Popen[bytes]) -> None:
    """Until the engine ends, or the other end of standard input is closed."""
    inputs: list[int] = [0]
    timeout: float | None = POLL_S
    if hasattr(os, "pidfd_open"):
        inputs.append(os.pidfd_open(engine.pid))
        timeout = None
    while engine.poll() is None:
        ready, _, _ = select.select(inputs, [], [], timeout)
        if 0 in ready and not os.read(0, 64):
            return


def _end(engine: subprocess.Popen[bytes]) -> None:
    """KILL for the engine's group and for every process that came from it, until none is left."""
    deadline = time.monotonic() + 10
    while True:
        _signal(engine, signal.SIGKILL)
        left = _children() - {engine.pid}
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        engine.poll()
        _reap(left)
        if engine.returncode is not None and not _children():
            return
        if time.monotonic() > deadline:
            print(f"could not end processes {sorted(_children())}", flush=True)
            return
        time.sleep(0.01)


def _signal(engine: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(engine.pid, number)


def _children() -> set[int]:
    """Children of this process, adopted orphans among them. Elsewhere than on Linux: unknown, so none."""
    if not LINUX:
        return set()
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    try:
        return {int(pid) for pid in listed.read_text().split()}
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return {pid for pid in _pids() if _parent(pid) == os.getpid()}


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError):
        return 0


def _reap(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


if __name__ == "__main__":
    sys.exit(main())
