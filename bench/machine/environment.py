"""Where a measurement was made: the facts of the machine and the software that a number depends on.

For the manifest of a run, so nothing that names a person or a place: no host name, user, address or
path, and of environment variables only those in `VARIABLES`. What cannot be read is null.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from bench.machine import cgroup
from bench.telemetry.gpus import Gpu, Inventory, inventory

PACKAGES = (
    "locust", "gevent", "geventhttpclient", "numpy", "scipy", "pandas", "pyarrow", "pydantic", "httpx",
    "tokenizers", "nvidia-ml-py", "psutil", "prometheus-client", "optuna",
)  # fmt: skip
"""Packages whose version can change a number."""

VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
    "MKL_NUM_THREADS", "LD_PRELOAD", "MALLOC_ARENA_MAX", "PYTHONHASHSEED",
)  # fmt: skip
"""Environment variables that change what is measured; none of them can hold a secret."""

CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "sve")
"""Instruction sets that decide which CPU kernels an engine takes."""

PROJECT = Path(__file__).resolve().parents[2]


def environment(root: Path = Path("/"), found: Inventory | None = None) -> dict[str, Any]:
    """Facts of this machine now, ready for JSON. Sizes in bytes, times in seconds, shares of one.

    `root` stands in for the file system's (tests); `found` for a look at the GPUs already taken.
    """
    seen = inventory() if found is None else found
    return {
        "servetune": {"version": _version("servetune"), **git_state(PROJECT)},
        "python": {"version": platform.python_version(), "implementation": platform.python_implementation()},
        "os": _os(root),
        "cpu": _cpu(root),
        "memory": _memory(root),
        "limits": _limits(root),
        "gpus": [_gpu(gpu) for gpu in seen.gpus],
        "gpus_reason": seen.reason or None,
        "packages": {name: _version(name) for name in PACKAGES},
        "variables": {name: _without_folders(os.environ[name]) for name in VARIABLES if name in os.environ},
    }


def git_state(folder: Path) -> dict[str, Any]:
    """Commit of the checkout at `folder` and whether it was changed; nulls when it is no checkout."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != folder.resolve():
        return {"commit": None, "dirty": None}
    status = _git(folder, "status", "--porcelain")
    return {
        "commit": _git(folder, "rev-parse", "--verify", "--quiet", "HEAD"),
        "dirty": None if status is None else bool(status),
    }


def usable_cores(root: Path = Path("/")) -> float:
    """Cores this process may use: its affinity, cut by the quota of its control group."""
    quota = cgroup.cpu_limit_cores(root)
    allowed = len(_affinity() or ()) or psutil.cpu_count() or 1
    return float(allowed if quota is None else min(allowed, quota))


def usable_memory_bytes(root: Path = Path("/")) -> int:
    """Memory of the machine, cut by the limit of the control group; bytes."""
    total = psutil.virtual_memory().total
    return min(total, cgroup.memory_limit_bytes(root) or total)


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of one git command that changes nothing; None when git is absent or says no."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _affinity() -> list[int] | None:
    """Cores this process may run on; None where the system does not say (macOS)."""
    ask = getattr(os, "sched_getaffinity", None)
    return sorted(ask(0)) if ask else None


def _without_folders(text: str) -> str:
    """Paths cut to file names: a folder may name a person."""
    return re.sub(r"[^\s:;,]*/", "", text)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _os(root: Path) -> dict[str, Any]:
    try:
        distribution = platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        distribution = None
    return {
        "system": platform.system(),
        "distribution": distribution,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "container": _container(root),
        "clock_source": _read(root / "sys/devices/system/clocksource/clocksource0/current_clocksource"),
    }


def _container(root: Path) -> str | None:
    marks = {"docker": root / ".dockerenv", "podman": root / "run/.containerenv"}
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    return next((name for name, mark in marks.items() if mark.exists()), None)


def _cpu(root: Path) -> dict[str, Any]:
    info = _cpuinfo(root)
    flags = set((info.get("flags") or info.get("Features") or "").split())
    system = root / "sys/devices/system"
    governors = {_read(file) for file in system.glob("cpu/cpu[0-9]*/cpufreq/scaling_governor")} - {None}
    no_turbo, boost = _read(system / "cpu/intel_pstate/no_turbo"), _read(system / "cpu/cpufreq/boost")
    turbo = no_turbo == "0" if no_turbo is not None else boost == "1" if boost is not None else None
    smt = _read(system / "cpu/smt/active")
    return {
        "model": info.get("model name"),
        "logical_cores": psutil.cpu_count(),
        "physical_cores": psutil.cpu_count(logical=False),
        "affinity": _affinity(),
        "quota_cores": cgroup.cpu_limit_cores(root),
        "usable_cores": usable_cores(root),
        "numa_nodes": len(list(system.glob("node/node[0-9]*"))) or None,
        "smt": None if smt is None else smt == "1",
        "governors": sorted(name for name in governors if name),
        "turbo": turbo,
        "virtual": "hypervisor" in flags if flags else None,
        "flags": [flag for flag in CPU_FLAGS if flag in flags],
        "load_average_1min": round(os.getloadavg()[0], 2),
    }


def _memory(root: Path) -> dict[str, Any]:
    memory = psutil.virtual_memory()
    return {
        "total_bytes": memory.total,
        "available_bytes": memory.available,
        "limit_bytes": cgroup.memory_limit_bytes(root),
        "usable_bytes": usable_memory_bytes(root),
        "swap_bytes": psutil.swap_memory().total,
        "huge_pages": _bracketed(_read(root / "sys/kernel/mm/transparent_hugepage/enabled")),
    }


def _limits(root: Path) -> dict[str, Any]:
    ports = (_read(root / "proc/sys/net/ipv4/ip_local_port_range") or "").split()

    def of(kind: int) -> list[int | None]:
        return [None if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(kind)]

    return {
        "open_files": of(resource.RLIMIT_NOFILE),
        "processes": of(resource.RLIMIT_NPROC),
        "locked_memory_bytes": of(resource.RLIMIT_MEMLOCK),
        "ephemeral_ports": [int(port) for port in ports] if len(ports) == 2 else None,
    }


def _gpu(gpu: Gpu) -> dict[str, Any]:
    facts = {name: value for name, value in asdict(gpu).items() if name != "uuid"}
    return {**facts, "id_digest": gpu.digest, "state": dict(gpu.state)}


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's entry of /proc/cpuinfo."""
    text = _read(root / "proc/cpuinfo") or ""
    lines: Iterable[list[str]] = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines())
    return {parts[0].strip(): parts[1].strip() for parts in lines if len(parts) == 2}


def _bracketed(text: str | None) -> str | None:
    """The chosen word of a line such as "always [madvise] never"."""
    return text.split("[", 1)[1].split("]", 1)[0] if text and "[" in text else text


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None
