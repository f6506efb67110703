"""What the control groups of this process allow: CPU time and memory, version 1 and 2.

A container sees all cores and all memory of its host in /proc; these limits are what it really has.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

UNLIMITED_BYTES = 2**60
"""Version 1 writes "no limit" as a page-rounded 2^63."""


def cpu_limit_cores(root: Path = Path("/")) -> float | None:
    """CPU time allowed, in cores: the tightest quota on the way up; None without one."""
    quotas = []
    for folder in _folders(root, "cpu"):
        parts = _words(folder / "cpu.max") or (
            _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        )
        if len(parts) == 2 and parts[0] not in ("max", "-1"):
            quotas.append(int(parts[0]) / int(parts[1]))
    return min(quotas, default=None)


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """Memory allowed, bytes: the tightest limit on the way up; None without one."""
    limits = []
    for folder in _folders(root, "memory"):
        for word in _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes"):
            if word != "max" and int(word) < UNLIMITED_BYTES:
                limits.append(int(word))
    return min(limits, default=None)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Control-group folders that bind this process for `controller`, from its own up to the top."""
    top = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        names = [controllers, *controllers.split(",")] if controllers else ["", "unified"]
        for base in {top / name for name in names}:
            here = base / path.lstrip("/")
            yield here
            yield from (parent for parent in here.parents if parent == base or base in parent.parents)


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
