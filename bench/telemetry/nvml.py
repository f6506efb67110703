"""NVML, field by field: a card, a driver or a virtual machine may know its power and not its energy.

A field the driver does not know is absent, with the reason kept, and never 0.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

ZERO_IS_UNKNOWN = ("energy_j", "power_w", "sm_clock_mhz")
"""Fields that some drivers and virtual machines answer with 0 for "cannot say" (CodeCarbon #1316)."""

THROTTLE_REASONS: Mapping[int, str] = {
    0x001: "idle",
    0x002: "application clocks set",
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "power brake",
    0x100: "display clocks",
}
"""Bits of `gpu<i>_throttle_reasons`: nvmlClocksEventReason* of nvml.h."""

SLOWDOWNS = 0x004 | 0x008 | 0x020 | 0x040 | 0x080
"""The bits that mean clocks were taken away: neither idleness nor a setting."""


class UnavailableError(Exception):
    """NVML cannot be used here; the text says why."""


class Nvml:
    """An open NVML session. `missing` holds what could not be answered: field -> the driver's words."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.missing: dict[str, str] = {}

    def ask(self, name: str, function: str, *arguments: Any) -> Any:
        """The driver's answer, or None and `missing[name]` says why."""
        call = getattr(self.module, function, None)
        if call is None:
            self.missing[name] = f"this nvidia-ml-py has no {function}"
            return None
        try:
            return call(*arguments)
        except self.module.NVMLError as error:
            self.missing[name] = str(error)
            return None

    def handle(self, index: int) -> Any:
        return self.ask(f"gpu{index}", "nvmlDeviceGetHandleByIndex", index)

    def handles(self) -> dict[int, Any]:
        """Handles of every GPU the driver hands out, by NVML index (the order of the PCI bus)."""
        count = self.ask("count", "nvmlDeviceGetCount") or 0
        found = {index: self.handle(index) for index in range(count)}
        return {index: handle for index, handle in found.items() if handle is not None}

    def read(self, index: int, handle: Any) -> dict[str, float]:
        """Readings of one GPU by field name, the unit at its end; unknown ones left out."""
        nvml, prefix = self.module, f"gpu{index}_"
        found: dict[str, float] = {}

        def put(name: str, function: str, *more: Any, of: Callable[[Any], float] = float) -> None:
            answer = self.ask(prefix + name, function, handle, *more)
            if answer is not None:
                found[name] = of(answer)

        put("memory_total_used_bytes", "nvmlDeviceGetMemoryInfo", of=lambda memory: float(memory.used))
        put("power_w", "nvmlDeviceGetPowerUsage", of=lambda mw: mw / 1e3)
        put("energy_j", "nvmlDeviceGetTotalEnergyConsumption", of=lambda mj: mj / 1e3)
        put("utilization_share", "nvmlDeviceGetUtilizationRates", of=lambda percent: percent.gpu / 100)
        put("sm_clock_mhz", "nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM)
        put("temperature_c", "nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU)
        put("throttle_reasons", "nvmlDeviceGetCurrentClocksEventReasons")
        if "throttle_reasons" not in found:  # its name before driver 535
            put("throttle_reasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
            if "throttle_reasons" in found:
                del self.missing[prefix + "throttle_reasons"]
        for name in ZERO_IS_UNKNOWN:
            if found.get(name) == 0:
                del found[name]
                self.missing[prefix + name] = "the driver answers 0, which here means unknown"
        return found

    def processes(self, index: int, handle: Any) -> dict[int, int | None] | None:
        """Compute processes on the GPU: pid -> bytes, None where the driver hides them (MIG, containers).

        None altogether when the list cannot be had. A desktop's graphics processes are not counted.
        Inside a container the driver may give the host's pids (nvidia-docker #1483).
        """
        direct = self.ask(f"gpu{index}_processes", "nvmlDeviceGetComputeRunningProcesses", handle)
        if direct is None:
            return None
        shared = self.ask(f"gpu{index}_mps_processes", "nvmlDeviceGetMPSComputeRunningProcesses", handle)
        return {process.pid: process.usedGpuMemory for process in [*direct, *(shared or ())]}

    def energy_update_periods_s(
        self, handles: Sequence[Any], changes: int = 6, timeout_s: float = 1.0
    ) -> list[float | None]:
        """For each GPU the median time between steps of its energy counter; None when it did not move.

        The counter steps every 10 to 100 ms depending on the card, so a difference over fewer than about
        20 steps is mostly rounding (Zeus, pynvml PR #18). All are watched together, `timeout_s` in all.
        """
        function = "nvmlDeviceGetTotalEnergyConsumption"
        stamps: list[list[float]] = [[] for _ in handles]
        last = [self.ask("energy_update_period_s", function, handle) for handle in handles]
        until = time.monotonic() + timeout_s
        waiting = [i for i, counter in enumerate(last) if counter]
        while waiting and time.monotonic() < until:
            time.sleep(0.002)
            for i in waiting:
                counter = self.ask("energy_update_period_s", function, handles[i])
                if counter is not None and counter != last[i]:
                    stamps[i].append(time.monotonic())
                    last[i] = counter
            waiting = [i for i in waiting if len(stamps[i]) < changes]
        gaps = [[b - a for a, b in pairwise(times)] for times in stamps]
        return [statistics.median(some) if len(some) >= 2 else None for some in gaps]


@contextmanager
def session(module: Any = None) -> Iterator[Nvml]:
    """An open session; UnavailableError without a driver. `module` stands in for pynvml."""
    nvml = module or importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise UnavailableError(f"no NVIDIA driver to ask (NVML: {error})") from error
    try:
        yield Nvml(nvml)
    finally:
        nvml.nvmlShutdown()


def throttle_text(bits: int) -> str:
    """Names of the set bits, for people: "power cap, hardware slowdown"."""
    names = [name for bit, name in THROTTLE_REASONS.items() if bits & bit]
    unknown = bits & ~sum(THROTTLE_REASONS)
    return ", ".join([*names, *([f"0x{unknown:x}"] if unknown else [])]) or "none"
