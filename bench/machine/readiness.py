"""Is servetune set up, and can this scenario run here? Packages, engines, models, disk, what is left over."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import psutil

from bench.machine.fitness import GIB, MachineCheck
from bench.plan.planning import Plan
from bench.scenario.model import Scenario
from serving.errors import UserError

ENGINES_BYTES = 8 * GIB
"""Room for a first set-up: the environments of vLLM, transformers and llm-compressor for CPU, and caches."""
RUN_BYTES = GIB // 4
MADE_IN = ".models"
"""Where `make model` and `make variants` put what they make."""

_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)\s*(;)?", re.M)


def packages(project: Path) -> MachineCheck:
    """Installed versions against requirements.lock. A package pinned under a condition (another system or
    Python) may be absent, and have any of its pins."""
    lock = project / "requirements.lock"
    if not lock.is_file():
        return MachineCheck("packages", "ok", "no requirements.lock beside this installation")
    needed = _needed()
    pins: dict[str, list[tuple[str, bool]]] = {}
    for name, pin, condition in _PINNED.findall(lock.read_text(encoding="utf-8")):
        pins.setdefault(name, []).append((pin, bool(condition)))
    installed = {name: _version(name) for name in pins}
    missing, other = [], []
    for name, choices in pins.items():
        found, allowed = installed[name], [pin for pin, _ in choices]
        if found is None and name in needed and not all(condition for _, condition in choices):
            missing.append(name)
        elif found is not None and found not in allowed:
            other.append(f"{name} {found} (locked: {' or '.join(allowed)})")
    if missing:
        return MachineCheck("packages", "failed", f"not installed: {', '.join(missing)}", "make setup")
    if other:
        return MachineCheck(
            "packages", "warning", f"not as locked: {', '.join(other)}", "rm -r .venv; make setup"
        )
    count = sum(version is not None for version in installed.values())
    return MachineCheck("packages", "ok", f"{count} as locked")


def model(scenario: Scenario) -> list[MachineCheck]:
    """Weights, tokenizer and checkpoints of a scenario: there, to be made, to be downloaded, or missing."""
    places = {"model": scenario.model.path}
    if scenario.model.tokenizer not in (None, "none"):
        places["tokenizer"] = str(scenario.model.tokenizer)
    used = {value for part in scenario.engines for value in _quantizations(part.settings, part.grid)}
    places |= {name: path for name, path in scenario.model.checkpoints.items() if name in used}
    return [_weights(name, place) for name, place in places.items()]


def disk(folder: Path, set_up: bool) -> MachineCheck:
    """Free space where results go, and the engines too while they are still to be installed."""
    there = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    free = shutil.disk_usage(there).free
    needed = RUN_BYTES if set_up else ENGINES_BYTES
    found = f"{free / GIB:.1f} GiB free for results" + ("" if set_up else ", engines and models")
    hint = f"df -h {folder}; du -sh .engines .models results ~/.cache"
    if free < needed:
        return MachineCheck("disk", "failed", f"{found}; {needed / GIB:g} GiB are needed", hint)
    if free < 4 * RUN_BYTES:
        return MachineCheck("disk", "warning", f"{found}: enough for a short run only", hint)
    return MachineCheck("disk", "ok", found)


def engines(installed: Mapping[str, str], why_not: Mapping[str, Sequence[str]]) -> list[MachineCheck]:
    """One check an engine: its version here, or why it cannot start. `why_not` by engine, empty: it can."""
    found = []
    for name, reasons in why_not.items():
        version = installed.get(name, "unknown")
        if reasons:
            told = any("is built for CUDA" in reason for reason in reasons)  # says itself what to do
            hint = "nvidia-smi" if told else "make engines"
            found.append(MachineCheck(f"engine {name}", "warning", "; ".join(reasons), hint))
        else:
            found.append(MachineCheck(f"engine {name}", "ok", version))
    return found


def job(scenario: Scenario, plan: Callable[[Scenario], Plan], set_up: bool) -> MachineCheck:
    """What the scenario's `plan` keeps and drops on this machine; failed when nothing is left to run."""
    name = f"scenario {scenario.name}"
    try:
        planned = plan(scenario)
    except UserError as error:
        if not set_up:
            return MachineCheck(name, "warning", "nothing is installed to run it with yet", "make bench")
        return MachineCheck(name, "failed", error.message, error.hint or f"servetune plan {scenario.file}")
    runs: dict[str, dict[str, None]] = {}
    for launch in planned.launches:
        runs.setdefault(launch.config.engine, {})[launch.config.quantization] = None
    said = "; ".join(f"{engine}: {', '.join(kinds)}" for engine, kinds in runs.items())
    found = (
        f"{len(planned.points)} points in {len(planned.launches)} launches, "
        f"about {planned.estimated_s / 60:.0f} min ({said})"
    )
    reasons = {dropped.reason: None for dropped in planned.dropped}
    if reasons:
        found += f"; left out: {'; '.join(reasons)}"
    absent = [part.engine for part in scenario.engines if part.engine not in runs]
    if absent:
        return MachineCheck(name, "warning", f"{found}; nothing of {', '.join(absent)}", "make engines")
    return MachineCheck(name, "ok", found)


def leftovers(project: Path) -> MachineCheck:
    """Engine processes of this checkout that run now: of a run in progress, or left behind by one."""
    ours: list[int] = []
    orphans: list[int] = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        command = process.info["cmdline"] or [""]
        if not command[0].startswith(f"{project / '.engines'}/"):
            continue
        (ours if _of_a_run(process) else orphans).append(process.info["pid"])
    if orphans:
        text = f"engine processes that no run owns: {', '.join(map(str, orphans))}"
        return MachineCheck("leftovers", "warning", text, f"kill {' '.join(map(str, orphans))}")
    if ours:
        text = f"a run is in progress ({len(ours)} engine processes)"
        return MachineCheck(
            "leftovers", "warning", text, "wait until it is done: two runs would measure each other"
        )
    return MachineCheck("leftovers", "ok", "none")


def _of_a_run(process: psutil.Process) -> bool:
    """Whether a living ancestor is a servetune command or a test run, which stops what it started."""
    try:
        parents = [" ".join(parent.cmdline()[:3]) for parent in process.parents()]
    except psutil.Error:
        return False
    return any("servetune" in line or "pytest" in line for line in parents)


def _weights(name: str, place: str) -> MachineCheck:
    label, folder = f"weights {name}", Path(place).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            return _absent(label, place, f"{place} has no config.json")
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        return MachineCheck(label, "ok", f"{place}, {size / GIB:.2f} GiB" if size else f"{place}, shape only")
    if place.startswith((".", "/", "~")) or place.count("/") != 1:
        return _absent(label, place, f"no folder {place}")
    return MachineCheck(label, "ok", f"{place} from the hub, at the first launch if it is not in its cache")


def _absent(label: str, place: str, found: str) -> MachineCheck:
    if Path(place).parts[:1] == (MADE_IN,):
        return MachineCheck(label, "warning", f"{found}; `make bench` makes it", "make variants")
    return MachineCheck(label, "failed", found, "put the folder there, or correct `model:` in the scenario")


def _quantizations(settings: Mapping[str, object], grid: Mapping[str, list[object]]) -> set[object]:
    return {settings.get("quantization"), *grid.get("quantization", [])}


def _needed() -> set[str]:
    """Names of the packages that servetune itself declares, without its extras."""
    try:
        declared = metadata.requires("servetune") or []
    except metadata.PackageNotFoundError:
        return set()
    names = [re.match(r"[A-Za-z0-9._-]+", line) for line in declared if "extra ==" not in line]
    return {match[0] for match in names if match}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
