"""Exporters: a spec as the files of one deployment target. Adding a target is a file here and a table row.

An exporter is a function of a `Deployment` that returns path -> text, paths relative and sorted by no one;
it reads no clock, no file and no environment. `tests/deploy/test_exporters.py` then tests it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from pkgutil import resolve_name

from servetune.deploy.exporters import safe
from servetune.deploy.exporters.deployment import Deployment
from servetune.deploy.quoting import one_line
from serving.errors import UserError

EXPORTERS: dict[str, str] = {
    "vllm": "servetune.deploy.exporters.vllm:files",
    "compose": "servetune.deploy.exporters.compose:files",
    "kubernetes": "servetune.deploy.exporters.kubernetes:files",
    "production-stack": "servetune.deploy.exporters.production_stack:files",
    "kserve": "servetune.deploy.exporters.kserve:files",
    "ray": "servetune.deploy.exporters.ray:files",
    "delivery": "servetune.deploy.exporters.delivery:files",
    "bom": "servetune.deploy.exporters.bom:files",
}
MANIFEST = "MANIFEST.sha256"
Exporter = Callable[[Deployment], dict[str, str]]


def exporter(target: str) -> Exporter:
    """The function of a target; UserError naming the others when there is none."""
    if target not in EXPORTERS:
        raise UserError(f"no export target is called {target!r}", f"known: {', '.join(EXPORTERS)}")
    found: Exporter = resolve_name(EXPORTERS[target])
    return found


def render(deployment: Deployment, target: str, *, allow_undeployable: bool = False) -> dict[str, str]:
    """Path -> text of one target, with the manifest of their hashes.

    UserError when the spec is not deployable, unless allowed; then every file says so at its top.
    """
    return rendered(deployment, exporter(target), allow_undeployable=allow_undeployable)


def rendered(deployment: Deployment, made: Exporter, *, allow_undeployable: bool = False) -> dict[str, str]:
    """As `render`, of what a function writes that is no target of its own."""
    if deployment.engine != "vllm":
        raise UserError(
            f"engine {deployment.engine} has no production target; a spec of it is for reference only",
            "search with engine: vllm, then export that spec",
        )
    if deployment.refusals and not allow_undeployable:
        raise UserError(
            "the spec is not deployable: " + "; ".join(map(one_line, deployment.refusals)),
            "mend these, or look at the files all the same with --allow-undeployable",
        )
    head = banner(deployment)
    safe.check(deployment)
    files = {path: headed(path, text, head) for path, text in sorted(made(deployment).items())}
    sums = "".join(f"{digest(text)}  {path}\n" for path, text in files.items())
    return files | {MANIFEST: headed(MANIFEST, sums, head)}


def banner(deployment: Deployment) -> list[str]:
    """What stands at the top of every file: where it is from, and why it must not be deployed, if so."""
    whence = f"{deployment.name}, spec {one_line(deployment.spec_id)}"
    lines = [f"{whence}: written by servetune export; edit the spec instead."]
    lines += [f"NOT DEPLOYABLE: {one_line(reason)}" for reason in deployment.refusals]
    return lines


def write(files: dict[str, str], folder: Path) -> list[Path]:
    """Writes the files below `folder`, which must be empty or not exist. Scripts are executable."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty", "give -o a new folder")
    written = []
    for path, text in files.items():
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise ValueError(f"exporter path {path!r} leaves its folder")
        file = folder / pure
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")
        if path.endswith(".sh"):
            file.chmod(0o755)
        written.append(file)
    return written


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def headed(path: str, text: str, head: list[str]) -> str:
    """JSON has no comments: its files carry the banner in a `description` of their own."""
    if path.endswith(".json"):
        return text
    mark, end = ("<!-- ", " -->") if path.endswith(".md") else ("# ", "")
    lines = "".join(f"{mark}{line.replace('--', '- -') if end else line}{end}\n" for line in head)
    if text.startswith("#!"):
        first, rest = text.split("\n", 1)
        return f"{first}\n{lines}{rest}"
    return lines + text
