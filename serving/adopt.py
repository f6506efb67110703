"""Engines that are installed already (a container image, a machine without a network), taken as they are.

`adopt` makes `.engines/<name>-<version>/` of two small programs that call the interpreter at hand, so that
the rest of servetune finds, checks and starts them like its own. What is adopted is not pinned by a lock
file: its stamp says so.
"""

from __future__ import annotations

import json
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from serving.config import Device
from serving.environments import ENGINES, STAMP, Environment, environments, prove
from serving.errors import UserError


def adopt(
    name: str, site: str, device: Device = "cuda", *, interpreter: str = sys.executable, root: Path = ENGINES
) -> Environment:
    """The engine `name` of this interpreter, its packages in `site` first. UserError: it is not installed.

    Its version must be one that there is a lock file for: those are the versions that servetune knows.
    """
    try:
        found = version(name).partition("+")[0]
    except PackageNotFoundError as error:
        raise UserError(
            f"{interpreter} has no {name}", f"install it, or: make engines DEVICE={device}"
        ) from error
    known = [e for e in environments(name, root=root) if e.device == device]
    environment = next((e for e in known if e.version == found), None)
    if environment is None:
        versions = ", ".join(e.version for e in known) or "none"
        raise UserError(f"{name} {found} on {device} has no lock file", f"known versions: {versions}")
    programs = environment.folder / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    _program(programs / "python", site, interpreter, ())
    _program(programs / name, site, interpreter, (f"{site}/bin/{name}",))
    prove(environment)
    lock = {"lock": environment.lock.name, "lock_sha256": environment.lock_sha256}
    stamp = lock | {"device": device, "adopted": interpreter}
    (environment.folder / STAMP).write_text(json.dumps(stamp), encoding="utf-8")
    return environment


def _program(file: Path, site: str, interpreter: str, arguments: tuple[str, ...]) -> None:
    command = shlex.join((interpreter, *arguments))
    file.write_text(
        f'#!/bin/sh\nexport PYTHONPATH={shlex.quote(site)}\nexec {command} "$@"\n', encoding="utf-8"
    )
    file.chmod(0o755)
