"""Every check of `servetune doctor`: of this machine, and of a scenario on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.machine import fitness, readiness
from bench.machine.environment import PROJECT, environment
from bench.machine.fitness import MachineCheck, MachineFacts
from bench.plan.planning import plan
from bench.scenario import scenariofile
from bench.scenario.model import Scenario
from bench.telemetry.gpus import inventory
from serving.config import Device, ServingConfig
from serving.engines import ENGINES, engine
from serving.install import environments

DEFAULT = Path("scenarios/quickstart.yaml")


COMPILERS = ("gcc", "g++")


LOOK_S = 0.5
"""How long the machine is watched for other work."""


def checks(file: Path | None = None) -> list[MachineCheck]:
    """Every check of this machine, and of the scenario in `file` (default: the quick start, where it is)."""

    default = next((place for place in (DEFAULT, PROJECT / DEFAULT) if place.is_file()), None)
    chosen = file or default
    scenario = scenariofile.load(chosen) if chosen else None
    looked = facts(scenario)
    set_up = (PROJECT / ".engines").is_dir()
    found = [*fitness.machine_checks(looked), readiness.packages(PROJECT)]
    found += [readiness.disk(Path("results"), set_up), readiness.leftovers(PROJECT)]
    found += readiness.engines(*_engines("cuda" if looked.gpus.gpus else "cpu"))
    if scenario is not None:
        found += [*readiness.model(scenario), readiness.job(scenario, plan, set_up)]
    return found


def facts(scenario: Scenario | None) -> MachineFacts:
    """Looks at the machine; takes about `LOOK_S`."""
    import os
    import shutil
    import sys

    seen = inventory()
    busy, busiest = _busy()
    shm = Path("/dev/shm")  # noqa: S108 -- only its size is read
    names = {"http_proxy", "https_proxy", "all_proxy"}
    asked = [users for work in scenario.workloads for users in work.concurrency or ()] if scenario else []
    real = scenario is None or any(part.engine not in ("sim", "endpoint") for part in scenario.engines)
    return fitness.MachineFacts(
        environment=environment(found=seen),
        gpus=seen,
        python=(sys.version_info.major, sys.version_info.minor),
        busy_share=busy,
        busiest=busiest,
        concurrency=max(asked, default=fitness.MachineFacts.concurrency),
        shm_bytes=shutil.disk_usage(shm).free if shm.is_dir() else None,
        proxies=sorted(name for name, value in os.environ.items() if value and name.lower() in names),
        missing_tools=[tool for tool in COMPILERS if shutil.which(tool) is None],
        nvidia_device=Path("/proc/driver/nvidia").exists() or Path("/dev/nvidia0").exists(),
        locks=_locks(scenario),
        memory_needed_bytes=fitness.LEAST_MEMORY_BYTES if real else fitness.LEAST_MEMORY_BYTES // 6,
    )


def _locks(scenario: Scenario | None) -> list[Path] | None:
    """Lock files of the CUDA engines that the scenario starts on this machine; None: all there are."""

    if scenario is None:
        return None
    found = [environments.find(part.engine, part.version, "cuda") for part in scenario.engines]
    return list(dict.fromkeys(one.lock for one in found if one and one.device == "cuda"))


def _engines(device: Device) -> tuple[dict[str, str], dict[str, list[str]]]:
    """By engine: its version here, and why it cannot start on `device` (nothing: it can)."""

    versions: dict[str, str] = {}
    why_not: dict[str, list[str]] = {}
    for name in ENGINES:
        if name != "endpoint":  # runs elsewhere
            # The simulator takes a model's shape in place of weights.
            model = "llama-3.1-8b" if name == "sim" else "-"
            chosen, config = engine(name), ServingConfig(engine=name, model=model, device=device)
            versions[name], why_not[name] = chosen.version(config), chosen.problems(config)
    return versions, why_not


def _busy() -> tuple[float, list[str]]:
    """Share of all cores that is busy over `LOOK_S`, and the names of what takes most of it."""
    import time

    import psutil

    psutil.cpu_percent()
    watched = [process for process in psutil.process_iter() if process.pid != psutil.Process().pid]
    for process in watched:
        _share(process)
    time.sleep(LOOK_S)
    busy = psutil.cpu_percent() / 100
    shares = sorted(((_share(process), process) for process in watched), key=lambda pair: -pair[0])
    names = []
    for share, process in shares[:3]:
        if share > 0.1:
            names.append(f"{process.name()} {process.pid}: {share:.0%} of a core")
    return busy, names


def _share(process: Any) -> float:
    """Cores used since the last call for this process; 0 for one that is gone or hidden."""
    import psutil

    try:
        return float(process.cpu_percent()) / 100
    except psutil.Error:
        return 0.0
