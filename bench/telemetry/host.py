"""Memory and CPU time of a whole process tree, from /proc.

Pages shared between processes (libraries, memory inherited over fork) are counted once for each in a
sum of resident sizes. The proportional size (PSS, /proc/<pid>/smaps_rollup) divides them, so its sum is
what the tree really holds; reading it makes the kernel walk the page tables, so it is read less often.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

from bench.records.model import Sample

TREE_REFRESH_S = 5.0
PSS_BUDGET_SHARE = 0.003
"""Share of the wall time that reading PSS may take; its own duration sets how often it is read."""


class Tree:
    """The processes of one engine: descendants of `pid`, and what else is in its process group."""

    def __init__(self, pid: int) -> None:
        self.root = pid
        self.processes: dict[int, psutil.Process] = {}
        self.refresh()

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(self.processes)

    def refresh(self) -> None:
        """Looks again who belongs to the tree; empty when the root is gone."""
        try:
            root = psutil.Process(self.root)
            found = {process.pid: process for process in [root, *root.children(recursive=True)]}
        except psutil.NoSuchProcess:
            self.processes = {}
            return
        # A helper whose parent died belongs to init, but stays in the group its leader was started in.
        for pid in psutil.pids() if _group(self.root) == self.root else ():
            if pid not in found and _group(pid) == self.root:
                try:
                    found[pid] = psutil.Process(pid)
                except psutil.NoSuchProcess:
                    continue
        self.processes = {pid: self.processes.get(pid, process) for pid, process in found.items()}

    def rss_bytes(self) -> int | None:
        """Sum of resident sizes, shared pages counted once for each process; None when none is left."""
        sizes = [size for process in self.processes.values() if (size := _rss(process)) is not None]
        return sum(sizes) if sizes else None

    def pss_bytes(self) -> int | None:
        """Sum of proportional sizes; None when that of any member cannot be read."""
        sizes = [pss(pid) for pid in self.processes]
        return None if not sizes or None in sizes else sum(size or 0 for size in sizes)

    def cpu_s(self) -> dict[int, float]:
        """CPU time, user plus system, of each living member since its start."""
        found: dict[int, float] = {}
        for pid, process in self.processes.items():
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            found[pid] = times.user + times.system
        return found


class HostProbe:
    """Reads a tree: `rss_bytes`, `cpu_share` (in cores) and, where PSS can be read, `rss_sum_bytes`."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.by_pss = tree.pss_bytes() is not None
        self.notes: list[str] = [
            "rss_bytes is the proportional size (PSS) of the process tree, each shared page counted once; "
            "rss_sum_bytes adds up resident sizes"
            if self.by_pss
            else "rss_bytes adds up the resident sizes of the process tree: shared pages are counted for "
            "each process (smaps_rollup cannot be read here)"
        ]
        self._cpu: tuple[float, dict[int, float]] | None = None
        self._refresh_at = 0.0
        self._pss_at = 0.0
        self._gone = False

    def read(self, last: bool = False) -> list[Sample]:
        """One reading; the `last` one measures PSS whatever it costs."""
        now = time.monotonic()
        if now >= self._refresh_at:
            self.tree.refresh()
            self._refresh_at = now + TREE_REFRESH_S
        found: list[Sample] = []
        resident = self.tree.rss_bytes()
        if resident is None:
            if not self._gone:
                self.notes.append("the engine's processes ended while it was watched")
            self._gone = True
            return found
        found.append(Sample(now, "rss_sum_bytes" if self.by_pss else "rss_bytes", float(resident)))
        found += self._cpu_share(now)
        if self.by_pss and (last or now >= self._pss_at):
            size = self.tree.pss_bytes()
            cost_s = time.monotonic() - now
            self._pss_at = now + cost_s / PSS_BUDGET_SHARE
            if size is not None:
                found.append(Sample(now, "rss_bytes", float(size)))
        return found

    def _cpu_share(self, now: float) -> list[Sample]:
        """Cores used since the last reading, over the members alive at both ends of it."""
        used = self.tree.cpu_s()
        before, self._cpu = self._cpu, (now, used)
        if before is None or now <= before[0]:
            return []
        spent = sum(seconds - before[1][pid] for pid, seconds in used.items() if pid in before[1])
        return [Sample(now, "cpu_share", spent / (now - before[0]))]


def pss(pid: int) -> int | None:
    """Proportional set size of a process, bytes; None where the kernel does not tell us."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return None


def _rss(process: psutil.Process) -> int | None:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return None


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None
