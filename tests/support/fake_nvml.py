"""A stand-in for pynvml: the functions servetune calls, over cards described as dicts.

A value may be an exception to raise, or a function to call at each question. A key that is absent
raises "Not Supported", as a driver does for a field it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

QUESTIONS = {
    "nvmlDeviceGetName": "name",
    "nvmlDeviceGetUUID": "uuid",
    "nvmlDeviceGetMemoryInfo": "memory",
    "nvmlDeviceGetPowerUsage": "power_mw",
    "nvmlDeviceGetTotalEnergyConsumption": "energy_mj",
    "nvmlDeviceGetUtilizationRates": "utilization",
    "nvmlDeviceGetClockInfo": "clock",
    "nvmlDeviceGetTemperature": "temperature",
    "nvmlDeviceGetCurrentClocksEventReasons": "reasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons": "old_reasons",
    "nvmlDeviceGetComputeRunningProcesses": "processes",
    "nvmlDeviceGetMPSComputeRunningProcesses": "mps_processes",
    "nvmlDeviceGetCudaComputeCapability": "capability",
    "nvmlDeviceGetEnforcedPowerLimit": "limit_mw",
    "nvmlDeviceGetMigMode": "mig",
    "nvmlDeviceGetEccMode": "ecc",
    "nvmlDeviceGetTotalEccErrors": "ecc_errors",
    "nvmlDeviceGetPersistenceMode": "persistence",
    "nvmlDeviceGetCurrPcieLinkGeneration": "pcie_generation",
    "nvmlDeviceGetCurrPcieLinkWidth": "pcie_width",
    "nvmlDeviceGetMaxPcieLinkWidth": "pcie_max_width",
}
OTHERS = (
    "nvmlInit", "nvmlShutdown", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex",
    "nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion_v2",
)  # fmt: skip
CONSTANTS = (
    "NVML_CLOCK_SM", "NVML_TEMPERATURE_GPU", "NVML_MEMORY_ERROR_TYPE_UNCORRECTED", "NVML_VOLATILE_ECC",
)  # fmt: skip


class FakeNVMLError(Exception):
    pass


class FakeNvml:
    """`cards` by index; `init` an exception that the driver answers nvmlInit with."""

    NVMLError = FakeNVMLError

    def __init__(self, *cards: dict[str, Any], init: Exception | None = None) -> None:
        self.cards = cards
        self.init = init
        self.sessions = 0
        for number, name in enumerate(CONSTANTS):
            setattr(self, name, number)

    def nvmlInit(self) -> None:
        if self.init:
            raise self.init
        self.sessions += 1

    def nvmlShutdown(self) -> None:
        self.sessions -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
        if "lost" in self.cards[index]:
            raise FakeNVMLError("GPU is lost")
        return self.cards[index]

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.95.05"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 13000

    def __getattr__(self, function: str) -> Callable[..., Any]:
        if function not in QUESTIONS:
            raise AttributeError(function)

        def answer(handle: dict[str, Any], *_: Any) -> Any:
            value = handle.get(QUESTIONS[function], FakeNVMLError("Not Supported"))
            value = value() if callable(value) else value
            if isinstance(value, Exception):
                raise value
            return value

        return answer


def process(pid: int, used_bytes: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used_bytes)


def card(**changes: Any) -> dict[str, Any]:
    """A card in good health with an energy counter that moves at each look; None takes a field away."""
    counter = iter(range(10**6, 10**9, 250))
    whole = {
        "name": "NVIDIA H200",
        "uuid": "GPU-0000",
        "memory": SimpleNamespace(total=139 * 2**30, used=40 * 2**30, free=99 * 2**30),
        "power_mw": 312_500,
        "energy_mj": lambda: next(counter),
        "utilization": SimpleNamespace(gpu=87, memory=40),
        "clock": 1980,
        "temperature": 54,
        "reasons": 0,
        "processes": [],
        "mps_processes": [],
        "capability": (9, 0),
        "limit_mw": 700_000,
        "mig": [0, 0],
        "ecc": [1, 1],
        "ecc_errors": 0,
        "persistence": 1,
        "pcie_generation": 5,
        "pcie_width": 16,
        "pcie_max_width": 16,
    }
    return {name: value for name, value in (whole | changes).items() if value is not None}
