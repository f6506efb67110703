"""Telemetry of one measurement: what the engine, its GPUs and its machine did while the load ran.

Two threads, so that a server slow to answer /metrics does not delay the readings of memory and power.
A series that cannot be had has no samples and a note; it is never 0.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from bench.records.model import Sample
from bench.telemetry.gpuprobe import GpuProbe
from bench.telemetry.host import HostProbe, Tree
from bench.telemetry.nvml import UnavailableError, session
from bench.telemetry.scrape import ServerProbe


class Probe(Protocol):
    """A source of samples, stamped with time.monotonic(); `last` marks the final reading."""

    notes: list[str]

    def read(self, last: bool = False) -> list[Sample]: ...


class Sampler:
    """Samples from entering to leaving; both ends are readings of their own, so deltas cover the load.

    pid      root of the engine's process tree; None (a server we did not start): no memory, CPU or GPU
    url      base of the server, for /metrics; None or `metrics` false: no server series
    gpus     NVML indices of the engine's cards; None: those its processes are seen on
    cpu_s    CPU time of ours that the sampling took beside the load, without its two ends;
             `cpu_share` the same in cores
    """

    def __init__(
        self,
        pid: int | None,
        url: str | None,
        device: Literal["cpu", "cuda"],
        interval_s: float = 0.5,
        metrics: bool = True,
        gpus: Sequence[int] | None = None,
        nvml: Any = None,
    ) -> None:
        self.pid, self.url, self.device, self.interval_s = pid, url, device, interval_s
        self.metrics, self.gpus, self._module = metrics, gpus, nvml
        self.cpu_s = 0.0
        self.elapsed_s = 0.0
        self._samples: list[Sample] = []
        self._notes: list[str] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._broken: BaseException | None = None

    @property
    def cpu_share(self) -> float:
        return self.cpu_s / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What is missing or must be known about the series; complete after leaving."""
        return tuple(self._notes)

    def samples(self, origin_monotonic_s: float = 0.0) -> tuple[Sample, ...]:
        """All samples so far in order of time, `t_s` counted from `origin_monotonic_s` (CLOCK_MONOTONIC).

        Readings before the origin have negative times: they are the state before the load.
        """
        with self._lock:
            taken = sorted(self._samples, key=lambda sample: sample.t_s)
        return tuple(Sample(s.t_s - origin_monotonic_s, s.name, s.value) for s in taken)

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._machine = self._machine_probes(opened)
            self._server: list[ServerProbe] = [ServerProbe(self.url)] if self.url and self.metrics else []
            self._take([*self._server, *self._machine])
            self._open = opened.pop_all()
        groups: list[Sequence[Probe]] = [self._machine, self._server]
        self._threads = [
            threading.Thread(target=self._run, args=(group,), name="telemetry", daemon=True)
            for group in groups
            if group
        ]
        self._begun = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.elapsed_s = time.monotonic() - self._begun
        with self._open:
            self._take([*self._machine, *self._server], last=True)
        for probe in [*self._machine, *self._server]:
            self._notes += probe.notes
        self._samples.append(Sample(time.monotonic(), "sampler_cpu_s", self.cpu_s))
        if self._broken is not None and error is None:
            raise self._broken

    def _machine_probes(self, opened: ExitStack) -> list[HostProbe | GpuProbe]:
        if self.pid is None:
            self._notes.append("memory, CPU and GPU series not available: the server was not started by us")
            return []
        tree = Tree(self.pid)
        found: list[HostProbe | GpuProbe] = [HostProbe(tree)]
        if self.device == "cpu":
            self._notes.append("GPU series not available: the engine runs on the CPU")
            return found
        try:
            found.append(GpuProbe(opened.enter_context(session(self._module)), tree, self.gpus))
        except UnavailableError as error:
            self._notes.append(f"GPU series not available: {error}")
        return found

    def _take(self, probes: Sequence[Probe], last: bool = False) -> None:
        for probe in probes:
            taken = probe.read(last)
            with self._lock:
                self._samples += taken

    def _run(self, probes: Sequence[Probe]) -> None:
        """Readings on a fixed beat; one that comes too late is left out, not caught up with."""
        due = time.monotonic() + self.interval_s
        try:
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                self._take(probes)
                due = max(due + self.interval_s, time.monotonic())
        except BaseException as error:  # noqa: BLE001 -- raised again where the measurement can see it
            self._broken = error
        finally:
            with self._lock:
                self.cpu_s += time.thread_time()
