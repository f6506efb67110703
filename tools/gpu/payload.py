"""What `make gpu-pack` carried, put in place on the machine: joined once, installed in two folders.

`engine` holds vLLM beside the machine's own torch and transformers; `own` is a virtual environment, apart from
all of that, with what servetune needs at its own versions. Only the standard library: this runs before anything
is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
GROUPS = ("engine", "own")
READY = "installed"


def install(parts: Path, work: Path) -> None:
    """Both folders under `work`; returns at once when they are whole. SystemExit: parts are missing."""
    payload = work / "payload"
    if not all((work / group).is_dir() for group in GROUPS):
        if not (payload / READY).exists():
            join(parts, payload)
        for group in GROUPS:
            if not (work / group).is_dir():
                half = work / f"{group}.half"
                pip(payload, group, environment_in(half) if group == "own" else half)
                half.rename(work / group)


def join(parts: Path, payload: Path) -> None:
    """The archive that the parts are slices of, unpacked."""
    files = sorted(parts.glob("part*"))
    numbers = [file.name.removeprefix("part") for file in files]
    if not files or numbers != [f"{n:02d}" for n in range(len(files))]:
        raise SystemExit(
            f"error: {parts} holds part {', '.join(numbers) or 'none'}\nhint: carry every .gpu/part there"
        )
    payload.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(["tar", "-x", "-C", str(payload)], stdin=subprocess.PIPE) as tar:
        assert tar.stdin is not None
        for file in files:
            tar.stdin.write(file.read_bytes())
    if tar.returncode:
        raise SystemExit(
            f"error: the parts in {parts} are no whole archive\nhint: carry every .gpu/part again"
        )
    (payload / READY).touch()


def environment_in(folder: Path) -> Path:
    """A virtual environment that imports servetune from this tree; its folder of packages."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)], check=True)
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "servetune.pth").write_text(f"{ROOT}\n")
    return packages


def pip(payload: Path, group: str, into: Path) -> None:
    """One group's wheels into one folder. CalledProcessError, with pip's own words, when one does not fit."""
    names = (payload / f"{group}.txt").read_text().split()
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile",
         "--no-cache-dir", "--upgrade", "--target", str(into), *(str(payload / "wheels" / n) for n in names)],
        check=True,
    )  # fmt: skip


def own(work: Path) -> str:
    """The interpreter that runs servetune."""
    return str(work / "own" / "bin" / "python")


def environment(work: Path, engine: bool = False) -> dict[str, str]:
    """Without a look at a network; `engine`: for the machine's own interpreter beside vLLM's packages."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return kept | ({"PYTHONPATH": str(work / "engine")} if engine else {}) | {
        "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(work / "payload" / "wheels"),
    }  # fmt: skip


def adopt(work: Path) -> None:
    """Makes the vLLM of this machine the one that servetune starts; nothing where it is already.

    SystemExit when it does not start, with what pip finds missing beside the wheels that were carried.
    """
    code = (
        "import sys; from serving.install.adopt import adopt, adopted; name, site, it = sys.argv[1:]; "
        "adopted(name, site, interpreter=it) or adopt(name, site, interpreter=it)"
    )
    command = [own(work), "-c", code, "vllm", str(work / "engine"), sys.executable]
    if subprocess.run(command, env=environment(work), cwd=ROOT, check=False).returncode:
        subprocess.run(
            [sys.executable, "-m", "pip", "check"], env=environment(work, engine=True), check=False
        )
        raise SystemExit(
            "error: the carried vLLM does not start on this machine\n"
            "hint: the traceback is above; of the packages that pip misses, add to tools/gpu/ what it names, and pack again"
        )
