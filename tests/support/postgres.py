"""A PostgreSQL of its own for a test, from Debian's package: on loopback, in the test's folder, gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

USER = "servetune"


@dataclass
class Postgres:
    """`url` as SQLAlchemy wants it; `stop` at once, as a power cut does, and `start` again."""

    programs: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c fsync=off"
        self._ctl("start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def stop(self) -> None:
        self._ctl("stop", "-m", "immediate")

    def run(self, program: str, *arguments: str) -> None:
        """As an ordinary user: the server refuses to be root."""
        command = [str(self.programs / program), *arguments]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=60)

    def _ctl(self, *arguments: str) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), *arguments)


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """Started in `folder`, which must be short enough for a socket's name. Skips where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    which = shutil.which("initdb")
    if not found and which is None:
        pytest.skip("no PostgreSQL: apt install postgresql")
    programs = found[-1].parent if found else Path(str(which)).parent
    folder.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody", "nogroup")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = Postgres(programs, folder, port)
    made.run("initdb", "-D", str(folder / "data"), "-U", USER, "-A", "trust", "--no-sync")
    made.start()
    try:
        yield made
    finally:
        made.stop()
