"""Locks that end with their process: one a device, so that two runs never measure each other."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.errors import BusyError


def runtime_folder() -> Path:
    """This user's folder for locks; other users cannot write to it."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "servetune" if base else Path(tempfile.gettempdir()) / f"servetune-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise BusyError(f"{folder} belongs to another user", "set XDG_RUNTIME_DIR to a folder of your own")
    return folder


@contextmanager
def device_lock(device: str, purpose: str, folder: Path | None = None) -> Iterator[None]:
    """Holds `device` ("cpu", or the identity of a GPU) while the body runs.

    BusyError names the holder: its process id, what it does and since when. The lock is the kernel's
    (flock), so a killed process never leaves it behind.
    """
    path = (folder or runtime_folder()) / f"{_plain(device)}.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(device, os.pread(handle, 4096, 0)) from None
        said = json.dumps({"pid": os.getpid(), "purpose": purpose, "since_unix_s": time.time()})
        os.ftruncate(handle, 0)
        os.pwrite(handle, said.encode(), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Waits until no other process holds `path`, then holds it while the body runs."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _busy(device: str, holder: bytes) -> BusyError:
    try:
        found = json.loads(holder)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["since_unix_s"]))
        who = f"{found['purpose']} (process {found['pid']}, since {since})"
        hint = f"wait until it is done, or end it: kill {found['pid']}"
    except (ValueError, KeyError):
        who, hint = "another run that is just starting or ending", "try again"
    return BusyError(f"{device} is in use by {who}; two runs would measure each other", hint)


def _plain(device: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in device)
