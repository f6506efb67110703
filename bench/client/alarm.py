"""Alarm: wakes a greenlet at a moment, some tens of microseconds late.

gevent's own timers wait in epoll, which counts whole milliseconds: they fire half a millisecond late in the
mean. A timerfd is a file that becomes readable at its moment (timerfd_create(2)), and the kernel keeps it to
the microsecond.
"""

from __future__ import annotations

import ctypes
import os
import sys
from time import monotonic
from typing import Any

from gevent.hub import get_hub

from bench.client.client import pause_until

CLOCK_MONOTONIC = 1
ABSOLUTE = 1
READABLE = 1


class _Spec(ctypes.Structure):
    """struct itimerspec: interval (none), then the moment."""

    _fields_ = (
        ("every_s", ctypes.c_long),
        ("every_ns", ctypes.c_long),
        ("at_s", ctypes.c_long),
        ("at_ns", ctypes.c_long),
    )


class Alarm:
    """One for each greenlet that waits; a context. Where there is no timerfd, gevent's timers are used."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = -1
        self._watch: Any = None
        if sys.platform == "linux":
            self._fd = self._libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            _check(self._fd)
            self._watch = get_hub().loop.io(self._fd, READABLE)

    def __enter__(self) -> Alarm:
        return self

    def __exit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.close()
            os.close(self._fd)

    def wait_until(self, moment_s: float) -> None:
        """Other greenlets run until a CLOCK_MONOTONIC moment; returns at once when it is past."""
        if moment_s <= monotonic():
            return
        if self._watch is None:
            pause_until(moment_s)
            return
        whole_s = int(moment_s)
        spec = _Spec(0, 0, whole_s, int((moment_s - whole_s) * 1e9) + 1)
        _check(self._libc.timerfd_settime(self._fd, ABSOLUTE, ctypes.byref(spec), None))
        while monotonic() < moment_s:
            get_hub().wait(self._watch)


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
