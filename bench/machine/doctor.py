"""`servetune doctor`: what this machine can run, what it cannot, why, and what to type about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bench.machine.fitness import Check, Facts
    from bench.plan.scenario import Scenario
    from serving.config import Device

DEFAULT = Path("scenarios/quickstart.yaml")
COMPILERS = ("gcc", "g++")
PIPED_WIDTH = 200
LOOK_S = 0.5
"""How long the machine is watched for other work."""


def doctor(
    scenario: Annotated[
        Path | None,
        typer.Option(help=f"Check what this scenario needs too. Default: {DEFAULT}.", show_default=False),
    ] = None,
    json: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE|-", help="Write the data as JSON to a file, or - for stdout."),
    ] = None,
) -> int:
    """What this machine can run and why not. Exit status 0, or 1 when the job cannot run at all."""
    found = checks(scenario)
    if json:
        from bench.output import write_json

        write_json(as_json(found), json)
    if json != "-":
        _show(found)
    return 0 if all(check.ok for check in found) else 1


def checks(file: Path | None = None) -> list[Check]:
    """Every check of this machine, and of the scenario in `file` (default: the quick start, where it is)."""
    from bench.machine import fitness, readiness
    from bench.machine.environment import PROJECT
    from bench.plan import scenariofile

    default = next((place for place in (DEFAULT, PROJECT / DEFAULT) if place.is_file()), None)
    chosen = file or default
    scenario = scenariofile.load(chosen) if chosen else None
    looked = facts(scenario)
    set_up = (PROJECT / ".engines").is_dir()
    found = [*fitness.machine_checks(looked), readiness.packages(PROJECT)]
    found += [readiness.disk(Path("results"), set_up), readiness.leftovers(PROJECT)]
    found += readiness.engines(*_engines("cuda" if looked.gpus.gpus else "cpu"))
    if scenario is not None:
        from bench.plan.planning import plan

        found += [*readiness.model(scenario), readiness.job(scenario, plan, set_up)]
    return found


def as_json(found: Sequence[Check]) -> dict[str, Any]:
    """`ok` is false when `make bench` cannot run its default here; warnings leave it true."""
    rows = [
        {"name": c.name, "ok": c.ok, "level": c.level, "found": c.found, "hint": c.hint or None}
        for c in found
    ]
    return {"ok": all(check.ok for check in found), "checks": rows}


def facts(scenario: Scenario | None) -> Facts:
    """Looks at the machine; takes about `LOOK_S`."""
    import os
    import shutil
    import sys

    from bench.machine import fitness
    from bench.machine.environment import environment
    from bench.telemetry.gpus import inventory

    seen = inventory()
    busy, busiest = _busy()
    shm = Path("/dev/shm")  # noqa: S108 -- only its size is read
    names = {"http_proxy", "https_proxy", "all_proxy"}
    asked = [users for work in scenario.workloads for users in work.concurrency or ()] if scenario else []
    real = scenario is None or any(part.engine not in ("sim", "endpoint") for part in scenario.engines)
    return fitness.Facts(
        environment=environment(found=seen),
        gpus=seen,
        python=(sys.version_info.major, sys.version_info.minor),
        busy_share=busy,
        busiest=busiest,
        concurrency=max(asked, default=fitness.Facts.concurrency),
        shm_bytes=shutil.disk_usage(shm).free if shm.is_dir() else None,
        proxies=sorted(name for name, value in os.environ.items() if value and name.lower() in names),
        missing_tools=[tool for tool in COMPILERS if shutil.which(tool) is None],
        nvidia_device=Path("/proc/driver/nvidia").exists() or Path("/dev/nvidia0").exists(),
        locks=_locks(scenario),
        memory_needed_bytes=fitness.LEAST_MEMORY_BYTES if real else fitness.LEAST_MEMORY_BYTES // 6,
    )


def _locks(scenario: Scenario | None) -> list[Path] | None:
    """Lock files of the CUDA engines that the scenario starts on this machine; None: all there are."""
    from serving import environments

    if scenario is None:
        return None
    found = [environments.find(part.engine, part.version, "cuda") for part in scenario.engines]
    return list(dict.fromkeys(one.lock for one in found if one and one.device == "cuda"))


def _engines(device: Device) -> tuple[dict[str, str], dict[str, list[str]]]:
    """By engine: its version here, and why it cannot start on `device` (nothing: it can)."""
    from serving.config import ServingConfig
    from serving.engines import ENGINES, engine

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


def _show(found: Sequence[Check]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    styles = {"ok": "green", "warning": "yellow", "failed": "red bold"}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", "check", "found"):
        table.add_column(title, overflow="fold")
    for check in found:
        text = check.found + (f"\n→ {check.hint}" if check.hint else "")
        table.add_row(f"[{styles[check.level]}]{check.level}[/]", check.name, escape(text))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPED_WIDTH)  # a hint broken over lines cannot be pasted
    console.print(table)
    failed = sum(check.level == "failed" for check in found)
    warned = sum(check.level == "warning" for check in found)
    verdict = f"{failed} failed: this job cannot run here" if failed else "the job can run here"
    console.print(f"\n{len(found)} checks, {warned} warnings; {verdict}")
