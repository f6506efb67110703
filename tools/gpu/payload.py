"""What `make gpu-pack` carried, put in place on the machine: joined once, installed in two folders.

`engine` holds vLLM beside the machine's own torch and transformers, `own` what servetune needs at its own
versions. Only the standard library: this runs before anything is installed.
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
                pip(payload, group, work / group)


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


def pip(payload: Path, group: str, into: Path) -> None:
    """One group's wheels, all or nothing."""
    names = (payload / f"{group}.txt").read_text().split()
    half = into.with_suffix(".half")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile",
         "--no-cache-dir", "--upgrade", "--target", str(half), *(str(payload / "wheels" / n) for n in names)],
        check=True,
    )  # fmt: skip
    half.rename(into)


def environment(work: Path, group: str = "own") -> dict[str, str]:
    """For programs of servetune (`own`), or for those that use the machine's torch (`engine`). No network."""
    path = [str(work / group), str(ROOT)] if group == "own" else [str(work / group)]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path),
        "PATH": f"{work / group / 'bin'}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(work / "payload" / "wheels"),
    }  # fmt: skip


def adopt(work: Path) -> None:
    """Makes the vLLM of this machine the one that servetune starts; nothing where it is already."""
    code = (
        "import sys; from serving.adopt import adopt, adopted; "
        "adopted('vllm', sys.argv[1]) or adopt('vllm', sys.argv[1])"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(work / "engine")], env=environment(work), cwd=ROOT, check=True
    )
