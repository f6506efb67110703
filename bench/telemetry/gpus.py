"""The NVIDIA GPUs of this machine, as the driver describes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.telemetry.nvml import Nvml, UnavailableError, session


@dataclass(frozen=True)
class Gpu:
    """One card. None: the driver does not say.

    `index` is NVML's (order of the PCI bus), `power_limit_w` the one in force. `processes` counts the
    compute processes on it. `state` is what it did when looked at, only what is known: power_w,
    temperature_c, utilization_share, sm_clock_mhz, throttle_reasons, memory_total_used_bytes,
    energy_j, ecc_uncorrected_errors (since the driver was loaded).
    """

    index: int
    name: str
    uuid: str
    memory_bytes: int | None = None
    driver: str | None = None
    cuda: str | None = None
    compute_capability: str | None = None
    mig: bool | None = None
    ecc: bool | None = None
    persistence: bool | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    pcie_max_width: int | None = None
    power_limit_w: float | None = None
    processes: int | None = None
    state: Mapping[str, float] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Tells two equal cards apart without giving their serial number away."""
        return hashlib.sha256(self.uuid.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Inventory:
    """The GPUs of this machine; when there are none, why."""

    gpus: tuple[Gpu, ...]
    reason: str = ""


def inventory(module: Any = None) -> Inventory:
    """Every GPU the driver shows, or the reason why none. Needs no driver, changes nothing."""
    try:
        with session(module) as nvml:
            gpus = tuple(_describe(nvml, index, handle) for index, handle in nvml.handles().items())
            why = "; ".join(f"{name}: {text}" for name, text in nvml.missing.items())
            return Inventory(gpus, "" if gpus else why or "the driver shows no GPU")
    except UnavailableError as error:
        return Inventory((), str(error))


def gpus_visible(module: Any = None) -> list[Gpu]:
    """The GPUs of this machine, [] without any (`inventory` also says why)."""
    return list(inventory(module).gpus)


def _describe(nvml: Nvml, index: int, handle: Any) -> Gpu:
    def about(function: str, *more: Any) -> Any:
        return nvml.ask(f"gpu{index}_{function}", function, handle, *more)

    def enabled(answer: Any) -> bool | None:
        """NVML gives [current, pending] for ECC and MIG, a bare state for persistence."""
        current = answer[0] if isinstance(answer, list) else answer
        return None if current is None else bool(current)

    memory = about("nvmlDeviceGetMemoryInfo")
    capability = about("nvmlDeviceGetCudaComputeCapability")
    cuda = nvml.ask("cuda", "nvmlSystemGetCudaDriverVersion_v2")
    limit_mw = about("nvmlDeviceGetEnforcedPowerLimit")
    processes = nvml.processes(index, handle)
    state = nvml.read(index, handle)
    lost, since_boot = nvml.module.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.module.NVML_VOLATILE_ECC
    errors = about("nvmlDeviceGetTotalEccErrors", lost, since_boot)
    if errors is not None:
        state["ecc_uncorrected_errors"] = float(errors)
    return Gpu(
        index=index,
        name=about("nvmlDeviceGetName") or "unnamed GPU",
        uuid=about("nvmlDeviceGetUUID") or f"gpu{index}",
        memory_bytes=None if memory is None else int(memory.total),
        driver=nvml.ask("driver", "nvmlSystemGetDriverVersion"),
        cuda=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        compute_capability=None if capability is None else "{}.{}".format(*capability),
        mig=enabled(about("nvmlDeviceGetMigMode")),
        ecc=enabled(about("nvmlDeviceGetEccMode")),
        persistence=enabled(about("nvmlDeviceGetPersistenceMode")),
        pcie_generation=about("nvmlDeviceGetCurrPcieLinkGeneration"),
        pcie_width=about("nvmlDeviceGetCurrPcieLinkWidth"),
        pcie_max_width=about("nvmlDeviceGetMaxPcieLinkWidth"),
        power_limit_w=None if limit_mw is None else limit_mw / 1e3,
        processes=None if processes is None else len(processes),
        state=state,
    )
