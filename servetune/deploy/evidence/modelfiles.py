"""The files a model is made of, with their hashes: a folder here, or a hub id in the local hub cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from servetune.deploy.deployable import COMMIT, HUB_ID
from servetune.deploy.spec import ModelFile


def model_files(source: str, revision: str | None) -> tuple[list[ModelFile], str | None]:
    """Every file by path, and the reason why there are none: nothing is downloaded to hash it."""
    place = folder(source, revision)
    if place is not None:
        return list(hashed(place)), None
    if not HUB_ID.fullmatch(source):
        return [], f"{source} is no folder here: its files were not hashed"
    if not COMMIT.fullmatch(revision or ""):
        return [], None  # refused for that reason already
    return [], f"{source} at {revision} is not in the hub cache here: its files were not hashed"


def folder(source: str, revision: str | None) -> Path | None:
    """Where the files lie: the folder itself, or the commit's snapshot in the hub cache; None: nowhere."""
    here = Path(source).expanduser()
    if here.is_dir():
        return here
    if not HUB_ID.fullmatch(source) or not COMMIT.fullmatch(revision or ""):
        return None
    snapshot = hub_cache() / f"models--{source.replace('/', '--')}" / "snapshots" / str(revision)
    return snapshot if snapshot.is_dir() else None


def hub_cache() -> Path:
    """As huggingface_hub finds it: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub."""
    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(named).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"


def hashed(place: Path) -> Iterable[ModelFile]:
    """Sorted by path. Links are followed: the hub cache is made of them."""
    for file in sorted(place.rglob("*")):
        if file.is_file():
            with file.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            path = file.relative_to(place).as_posix()
            yield ModelFile(path=path, size_bytes=file.stat().st_size, sha256=digest)
