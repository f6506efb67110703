"""Can the NVIDIA driver of this machine run that build of CUDA?

NVIDIA's rules ("CUDA Compatibility", minor version compatibility): a runtime of a major version runs on every
driver of that major version, however new its minor: 12.x from driver 525 on, 13.x from 580 on. A newer driver
runs older runtimes. The forward-compatibility package of data-centre GPUs brings a newer libcuda, which the
driver's own account then tells. Only the standard library at import: see `serving.install.environments`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from serving.install.environment import Environment

FIRST_DRIVER = {11: 450, 12: 525, 13: 580}
"""CUDA's major version -> the first driver branch that runs it (table "CUDA Toolkit and Minimum Required
Driver Version for CUDA Minor Version Compatibility" of the CUDA release notes)."""

Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class GpuDriver:
    """`version` as NVML gives it ("550.54.15"); `cuda`: the newest that its libcuda runs. None: unknown."""

    version: str | None
    cuda: Version | None


@lru_cache(maxsize=1)
def here() -> GpuDriver | None:
    """The driver of this machine; None without one, or without a GPU."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        if not pynvml.nvmlDeviceGetCount():
            return None
        try:
            cuda = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
            return GpuDriver(str(pynvml.nvmlSystemGetDriverVersion()), (cuda // 1000, cuda % 1000 // 10))
        except pynvml.NVMLError:
            return GpuDriver(None, None)
    finally:
        pynvml.nvmlShutdown()


@lru_cache(maxsize=64)
def runtime(lock: Path) -> Version | None:
    """The CUDA that a lock's packages are built for; None: none, or it does not tell.

    From torch's own version (+cu129), the CUDA runtime it brings, the toolkit, or at the least the ending
    of NVIDIA's other packages (-cu13: of that major version).
    """
    text = lock.read_text(encoding="utf-8")
    built = re.search(r"^(?:# torch: )?torch==\S+?\+cu(\d+)(\d)\b", text, re.M)
    found = built or re.search(
        r"^(?:nvidia-cuda-runtime(?:-cu\d+)?|cuda-toolkit(?:\[[^\]]*\])?)==(\d+)\.(\d+)", text, re.M
    )
    if found:
        return int(found[1]), int(found[2])
    endings = [int(n) for n in re.findall(r"^nvidia-[a-z-]+-cu(\d+)==", text, re.M)]
    return (max(endings), 0) if endings else None


def refusal(name: str, needed: Version | None, driver: GpuDriver | None) -> tuple[str, str] | None:
    """Why the driver cannot run what is built for that CUDA, and what to do. None: it can, or not known."""
    if needed is None or driver is None:
        return None
    first = FIRST_DRIVER.get(needed[0])
    branch = re.match(r"\d+", driver.version or "")
    if driver.cuda is not None:
        enough = driver.cuda[0] >= needed[0]
    elif branch and first:
        enough = int(branch[0]) >= first
    else:
        return None
    if enough:
        return None
    runs = f"runs CUDA up to {driver.cuda[0]}.x" if driver.cuda else f"is older than {first}"
    text = f"{name} is built for CUDA {needed[0]}.{needed[1]}; driver {driver.version or 'unknown'} {runs}"
    newer = f"a driver of {first} or newer" if first else f"a driver for CUDA {needed[0]}"
    hint = (
        f"install {newer} and reboot; on a data-centre GPU also: the package cuda-compat-{needed[0]}-"
        f"{needed[1]}, its folder first in LD_LIBRARY_PATH; or serve from an image built for this driver and "
        "measure it as an endpoint; or without the GPU: make engines DEVICE=cpu"
    )
    return text, hint


def refused(environment: Environment) -> tuple[str, str] | None:
    """The same for an engine's environment on this machine. What was adopted has a CUDA of its own."""
    if environment.device != "cuda" or "adopted" in environment.stamp:
        return None
    return refusal(f"{environment.name} {environment.version}", runtime(environment.lock), here())
