"""Is this machine fit to measure on? One check a question; each looks at facts it is given.

Levels: `ok`; `warning`, numbers may suffer or something cannot run; `failed`, `make bench` cannot run
its default. Whoever reads a warning must be able to do something about it: the hint is to be typed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.telemetry.gpus import Gpu, Inventory
from bench.telemetry.nvml import SLOWDOWNS, throttle_text
from serving.install import driver, environments

GIB = 2**30
LEAST_MEMORY_BYTES = 3 * GIB
"""transformers with the small model holds about 1.5 GiB, its load process and ours half a GiB."""
GOOD_MEMORY_BYTES = 7 * GIB
"""vLLM on CPU with 1 GiB of KV cache holds about 5 GiB (measured, SmolLM2-135M)."""
BUSY_SHARE = 0.25
HOT_C = 80
EXACT_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "xen", "ptp")

Level = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class MachineCheck:
    """One answer. `ok` is false only when the default job cannot run; a warning carries a hint too."""

    name: str
    level: Level
    found: str
    hint: str = ""

    @property
    def ok(self) -> bool:
        return self.level != "failed"


@dataclass(frozen=True)
class MachineFacts:
    """What the checks look at. `environment` as bench.machine.environment gives it; sizes in bytes.

    `busy_share` share of all cores busy just now; `concurrency` most requests at once that are planned;
    `proxies` names of proxy variables that are set; `missing_tools` of the compiler's commands;
    `nvidia_device` whether the kernel shows one, driver or not; `locks` of the CUDA engines that are to run,
    None: all there are.
    """

    environment: Mapping[str, Any]
    gpus: Inventory
    python: tuple[int, int] = (3, 11)
    busy_share: float = 0.0
    busiest: Sequence[str] = ()
    concurrency: int = 64
    shm_bytes: int | None = None
    proxies: Sequence[str] = ()
    missing_tools: Sequence[str] = ()
    nvidia_device: bool = False
    locks: Sequence[Path] | None = None
    memory_needed_bytes: int = field(default=LEAST_MEMORY_BYTES)


def machine_checks(facts: MachineFacts) -> list[MachineCheck]:
    """Every check of the machine, in the order a reader wants them."""
    one_each = (python, cpu, idle, memory, open_files, ports, shared_memory, clock, compiler, proxies)
    return [*(check(facts) for check in one_each), *gpus(facts)]


def python(facts: MachineFacts) -> MachineCheck:
    found = "{}.{}".format(*facts.python)
    if facts.python < (3, 11):
        hint = "make PYTHON=/path/to/python3.11 setup"
        return MachineCheck("python", "failed", f"{found}; 3.11 or newer is needed", hint)
    return MachineCheck("python", "ok", facts.environment["python"]["version"])


def cpu(facts: MachineFacts) -> MachineCheck:
    about = facts.environment["cpu"]
    cores, governors = about["usable_cores"], about["governors"]
    found = f"{cores:g} usable cores of {about['logical_cores']}, {about['model'] or 'model unknown'}"
    if about["quota_cores"] is not None:
        found += f", held to {about['quota_cores']:g} by the container"
    if governors and set(governors) != {"performance"}:
        hint = "sudo cpupower frequency-set -g performance"
        return MachineCheck("cpu", "warning", f"{found}; frequency governor {', '.join(governors)}", hint)
    if cores < 2:
        hint = "use a machine or container with 2 cores or more (docker run --cpus=2 ...)"
        return MachineCheck("cpu", "warning", f"{found}; the load client and the engine share one core", hint)
    return MachineCheck("cpu", "ok", found)


def idle(facts: MachineFacts) -> MachineCheck:
    load = facts.environment["cpu"]["load_average_1min"]
    found = f"{facts.busy_share:.0%} busy now, load average {load:g}"
    if facts.busy_share > BUSY_SHARE:
        busiest = f" ({', '.join(facts.busiest)})" if facts.busiest else ""
        hint = "wait for it or stop it: ps -eo pid,pcpu,etime,comm --sort=-pcpu | head"
        return MachineCheck("cpu idle", "warning", f"{found}: something else is running{busiest}", hint)
    return MachineCheck("cpu idle", "ok", found)


def memory(facts: MachineFacts) -> MachineCheck:
    about = facts.environment["memory"]
    free = min(about["available_bytes"], about["usable_bytes"])
    found = f"{free / GIB:.1f} GiB free of {about['usable_bytes'] / GIB:.1f}"
    if about["limit_bytes"] is not None:
        found += ", limited by the container"
    if free < facts.memory_needed_bytes:
        text = f"{found}; at least {facts.memory_needed_bytes / GIB:.0f} GiB are needed"
        return MachineCheck("memory", "failed", text, "free some: ps -eo pid,rss,comm --sort=-rss | head")
    if free < GOOD_MEMORY_BYTES:
        text = f"{found}; vLLM on CPU takes about {GOOD_MEMORY_BYTES / GIB:.0f} GiB"
        return MachineCheck("memory", "warning", text, "free some: ps -eo pid,rss,comm --sort=-rss | head")
    return MachineCheck("memory", "ok", found)


def open_files(facts: MachineFacts) -> MachineCheck:
    soft, hard = facts.environment["limits"]["open_files"]
    needed = facts.concurrency + 256
    found = f"{'unlimited' if soft is None else soft}; {facts.concurrency} requests at once are planned"
    if soft is None or soft >= needed:
        return MachineCheck("open files", "ok", found)
    possible = hard is None or hard >= needed
    wanted = max(needed, min(65536, hard or 65536))
    hint = f"ulimit -n {wanted}" if possible else f"docker run --ulimit nofile={wanted} ..., or limits.conf"
    return MachineCheck("open files", "failed" if soft < 128 else "warning", f"{found}: too few", hint)


def ports(facts: MachineFacts) -> MachineCheck:
    span = facts.environment["limits"]["ephemeral_ports"]
    if span is None:
        return MachineCheck("ports", "ok", "range of local ports unknown")
    count = span[1] - span[0] + 1
    found = f"{count} local ports ({span[0]} to {span[1]})"
    if count < 4 * facts.concurrency or count < 2000:
        hint = 'sudo sysctl -w net.ipv4.ip_local_port_range="15000 64000"'
        return MachineCheck(
            "ports", "warning", f"{found}: few for {facts.concurrency} requests at once", hint
        )
    return MachineCheck("ports", "ok", found)


def shared_memory(facts: MachineFacts) -> MachineCheck:
    if facts.shm_bytes is None:
        hint = "mount it: sudo mount -t tmpfs -o size=8g tmpfs /dev/shm"
        return MachineCheck("shared memory", "warning", "no /dev/shm; vLLM's processes talk through it", hint)
    found = f"{facts.shm_bytes / GIB:.2g} GiB free in /dev/shm"
    if facts.shm_bytes < GIB:
        hint = "docker run --shm-size=8g ..., or sudo mount -o remount,size=8g /dev/shm"
        return MachineCheck("shared memory", "warning", f"{found}: little for vLLM on several GPUs", hint)
    return MachineCheck("shared memory", "ok", found)


def clock(facts: MachineFacts) -> MachineCheck:
    source = facts.environment["os"]["clock_source"]
    if source is None or source in EXACT_CLOCKS:
        return MachineCheck("clock", "ok", source or "source unknown")
    text = f"{source}: reading the time takes microseconds, and is done for every token"
    path = "/sys/devices/system/clocksource/clocksource0"
    return MachineCheck("clock", "warning", text, f"cat {path}/available_clocksource; echo tsc | sudo tee "
                 f"{path}/current_clocksource")  # fmt: skip


def compiler(facts: MachineFacts) -> MachineCheck:
    if facts.missing_tools:
        text = f"no {' and no '.join(facts.missing_tools)}: vLLM compiles its graphs with it"
        return MachineCheck(
            "compiler", "warning", text, "sudo apt-get install -y gcc g++ (or run with enforce_eager)"
        )
    return MachineCheck("compiler", "ok", "gcc and g++")


def proxies(facts: MachineFacts) -> MachineCheck:
    """Never a fault: said because who set one expects it to be used."""
    found = f"{', '.join(facts.proxies)} set; the load client does not use them" if facts.proxies else "none"
    return MachineCheck("proxies", "ok", found)


def gpus(facts: MachineFacts) -> list[MachineCheck]:
    """One check a card; one saying why when there is none."""
    if facts.gpus.gpus:
        return [gpu(card, facts.locks) for card in facts.gpus.gpus]
    if facts.nvidia_device:
        text = f"an NVIDIA device is there, and cannot be asked: {facts.gpus.reason}"
        return [MachineCheck("gpu", "warning", text, "nvidia-smi; after a driver update: sudo reboot")]
    return [MachineCheck("gpu", "ok", f"none, engines run on the CPU ({facts.gpus.reason})")]


def gpu(card: Gpu, locks: Sequence[Path] | None = None) -> MachineCheck:
    """The state of one card: what would make its numbers another card's, and if its driver is new enough.

    `locks`: of the engines that are to run on it; None: all for CUDA that there are. A driver too old for
    each of them is a failure, for some of them a warning.
    """
    state, name = card.state, f"gpu {card.index}"
    memory_gib = "memory unknown" if card.memory_bytes is None else f"{card.memory_bytes / GIB:.0f} GiB"
    found = [card.name, memory_gib, f"driver {card.driver or 'unknown'}", f"CUDA {card.cuda or 'unknown'}"]
    if card.compute_capability:
        found.append(f"capability {card.compute_capability}")
    wrong: list[tuple[str, str]] = []
    if state.get("ecc_uncorrected_errors", 0) > 0:
        count = state["ecc_uncorrected_errors"]
        wrong.append((f"{count:.0f} uncorrected memory errors", f"nvidia-smi -i {card.index} -q -d ECC"))
    if card.processes:
        wrong.append(
            (f"{card.processes} other processes on it",
             f"nvidia-smi -i {card.index} --query-compute-apps=pid,name,used_memory --format=csv")
        )  # fmt: skip
    bits = int(state.get("throttle_reasons", 0)) & SLOWDOWNS
    if bits:
        text = f"clocks held down: {throttle_text(bits)}"
        wrong.append((text, f"nvidia-smi -i {card.index} -q -d PERFORMANCE,POWER,TEMPERATURE"))
    if state.get("temperature_c", 0) >= HOT_C:
        text = f"{state['temperature_c']:.0f} degrees C before any load"
        wrong.append((text, f"nvidia-smi -i {card.index} -q -d TEMPERATURE"))
    if card.persistence is False:
        wrong.append(("persistence mode off: clocks and driver state are set up anew at each launch",
                      f"sudo nvidia-smi -i {card.index} -pm 1"))  # fmt: skip
    if card.pcie_width and card.pcie_max_width and card.pcie_width < card.pcie_max_width:
        text = f"PCIe x{card.pcie_width} of x{card.pcie_max_width}"
        wrong.append((text, f"nvidia-smi -i {card.index} -q | grep -A4 'Link Width'"))
    if card.mig:
        found.append("MIG on")
    text = ", ".join(found)
    wanted = _cuda_locks() if locks is None else locks
    refused = [why for lock in wanted if (why := _too_old(card, lock)) is not None]
    wrong = [*refused, *wrong]
    if refused and len(refused) == len(wanted):
        return MachineCheck(name, "failed", f"{text}; {'; '.join(w for w, _ in wrong)}", wrong[0][1])
    if wrong:
        return MachineCheck(name, "warning", f"{text}; {'; '.join(w for w, _ in wrong)}", wrong[0][1])
    return MachineCheck(name, "ok", text)


def _cuda_locks() -> list[Path]:
    return [environment.lock for environment in environments.environments() if environment.device == "cuda"]


def _too_old(card: Gpu, lock: Path) -> tuple[str, str] | None:
    """Why this card's driver cannot run what a lock holds, and what to do."""
    numbers = [int(n) for n in (card.cuda or "").split(".") if n.isdigit()]
    cuda = (numbers[0], numbers[1]) if len(numbers) == 2 else None
    return driver.refusal(
        lock.stem.removesuffix("-cuda"), driver.runtime(lock), driver.GpuDriver(card.driver, cuda)
    )
