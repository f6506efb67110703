"""Engines that are installed already (a container image, a machine without a network), taken as they are.

`adopt` makes `.engines/<name>-<version>/` of two small programs that call the interpreter at hand, so that
the rest of servetune finds, checks and starts them like its own. What is adopted is not pinned by a lock
file: its stamp says so.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from importlib.metadata import distributions
from pathlib import Path

from serving.config import Device
from serving.errors import UserError
from serving.install.environment import STAMP, Environment
from serving.install.environments import ENGINES, environments, prove

WITHOUT: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    # vLLM imports it for its sampler without a look whether it is there
    "vllm": {"flashinfer": {"VLLM_USE_FLASHINFER_SAMPLER": "0"}},
}
"""Engine -> module that may be missing -> what the engine must be told then."""


def adopt(
    name: str, site: str, device: Device = "cuda", *, interpreter: str = sys.executable, root: Path = ENGINES
) -> Environment:
    """The engine `name` of this interpreter, its packages in `site` first. UserError: it is not installed.

    Its version must be one that there is a lock file for: those are the versions that servetune knows.
    """
    path = _path(site, interpreter)
    installed = next(iter(distributions(name=name, path=path)), None)
    if installed is None:
        raise UserError(f"{interpreter} has no {name}", f"install it, or: make engines DEVICE={device}")
    found = installed.version.partition("+")[0]
    known = [e for e in environments(name, root=root) if e.device == device]
    environment = next((e for e in known if e.version == found), None)
    if environment is None:
        versions = ", ".join(e.version for e in known) or "none"
        raise UserError(f"{name} {found} on {device} has no lock file", f"known versions: {versions}")
    programs = environment.folder / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    told = _told(name, path)
    _program(programs / "python", _script(site, interpreter, (), told))
    _program(programs / name, _script(site, interpreter, (f"{site}/bin/{name}",), told))
    prove(environment)
    lock = {"lock": environment.lock.name, "lock_sha256": environment.lock_sha256}
    stamp = lock | {"device": device, "adopted": interpreter, "environment": told}
    (environment.folder / STAMP).write_text(json.dumps(stamp), encoding="utf-8")
    return environment


def adopted(name: str, site: str, *, interpreter: str = sys.executable, root: Path = ENGINES) -> bool:
    """Whether that was done already, with this interpreter and these packages."""
    wanted = _script(site, interpreter, (), _told(name, _path(site, interpreter)))
    for environment in environments(name, root=root):
        program = environment.program("python")
        if environment.installed and program.is_file():
            return program.read_text(encoding="utf-8", errors="replace") == wanted
    return False


def _path(site: str, interpreter: str) -> list[str]:
    """Where its packages are looked for; of another interpreter than ours only `site` is known."""
    return [site, *sys.path] if interpreter == sys.executable else [site]


def _told(name: str, path: list[str]) -> dict[str, str]:
    """Environment variables that make up for what is not installed."""
    missing = [
        told for module, told in WITHOUT.get(name, {}).items() if not PathFinder.find_spec(module, path)
    ]
    return {variable: value for told in missing for variable, value in told.items()}


def _program(file: Path, script: str) -> None:
    file.write_text(script, encoding="utf-8")
    file.chmod(0o755)


def _script(site: str, interpreter: str, arguments: tuple[str, ...], told: Mapping[str, str]) -> str:
    exports = [f"export {name}={shlex.quote(value)}" for name, value in {"PYTHONPATH": site, **told}.items()]
    command = f'exec {shlex.join((interpreter, *arguments))} "$@"'
    return "\n".join(("#!/bin/sh", *exports, command, ""))
