"""One engine installation: `.engines/<name>-<version>/`. Only the standard library is imported here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

Build = Literal["cpu", "cuda"]
STAMP = "servetune.json"


@dataclass(frozen=True)
class Environment:
    """One engine installation: where it is, and which lock file it comes from."""

    name: str
    version: str
    device: Build
    folder: Path
    lock: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def lock_sha256(self) -> str:
        return sha256(self.lock.read_bytes()).hexdigest()

    def program(self, name: str) -> Path:
        return self.folder / "bin" / name

    @property
    def installed(self) -> bool:
        """Whole, and from this very lock file."""
        return bool(self.stamp.get("lock_sha256") == self.lock_sha256)

    @property
    def stamp(self) -> dict[str, Any]:
        """What its installation left behind; empty where it is not whole."""
        try:
            stamp = json.loads((self.folder / STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}
