"""One engine process of ours, from its start below `serving/launch/supervisor.py` until nothing of it is
left.

Only processes that came from our own child are ever signalled, by identity and never by name.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from serving import masking
from serving.engine import Command
from serving.launch import gpumemory, supervisor

LOG = "engine.log"
COMMAND = "command.json"
GRACE_S = 20.0
"""From TERM to KILL."""
FREE_WAIT_S = 20.0
KEPT_ENVIRONMENT = re.compile(
    r"^(PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|LD_PRELOAD|SSL_CERT_\w+|REQUESTS_CA_BUNDLE"
    r"|XDG_CACHE_HOME|https?_proxy|HTTPS?_PROXY|no_proxy|NO_PROXY|CUDA_\w+|NVIDIA_\w+|NCCL_\w+|HF_\w+"
    r"|OMP_\w+|MKL_\w+|KMP_\w+)$"
)


@dataclass
class Child:
    """The guard's process, with the engine below it. `port` is the one the engine was told to use."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int
    gpu_bytes_before: int | None = None
    held_port: bool = True
    """False: another process turned out to listen on it."""
    hide: Callable[[str], str] = field(default=masking.formed, repr=False)
    """Masks its secrets in a text."""
    started_s: float = field(default_factory=time.monotonic)
    oom_kills_before: int = field(default_factory=lambda: _oom_kills())

    def runs(self) -> bool:
        return self.process.poll() is None

    def engine_pid(self) -> int | None:
        """Process id of the engine itself; None once it is gone."""
        try:
            below = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return None
        return below[0].pid if below else None

    def exit_code(self, wait_s: float = 0.0) -> int | None:
        """The engine's exit status, signals negative; None while it runs (after waiting `wait_s`)."""
        try:
            code = self.process.wait(wait_s) if wait_s else self.process.poll()
        except subprocess.TimeoutExpired:
            return None
        return 128 - code if code is not None and code > 128 else code

    def log_text(self) -> str:
        """Everything it wrote so far, secrets masked."""
        return self.hide((self.folder / LOG).read_text(encoding="utf-8", errors="replace"))

    def out_of_host_memory(self) -> bool:
        """Whether the kernel's out-of-memory killer has struck on this machine since the start."""
        return _oom_kills() > self.oom_kills_before

    def stop(self) -> None:
        """Ends the engine and all it started, then waits until its port and GPU memory are free again.

        What it wrote of its own secrets is masked in its log.
        """
        assert self.process.stdin is not None
        self.process.stdin.close()  # the guard's sign to end it all
        try:
            self.process.wait(GRACE_S + 15)
        except subprocess.TimeoutExpired:
            _end_tree(self.process.pid)
            self.process.wait()
        self._clean_log()
        deadline = time.monotonic() + FREE_WAIT_S
        while self.held_port and not port_is_free(self.port):
            if time.monotonic() > deadline:
                print(f"warning: port {self.port} is still in use after the engine's end", file=sys.stderr)
                break
            time.sleep(0.02)
        if self.gpu_bytes_before is not None:
            gpumemory.wait_until(self.gpu_bytes_before, deadline)

    def _clean_log(self) -> None:
        log = self.folder / LOG
        said = log.read_text(encoding="utf-8", errors="surrogateescape")
        clean = self.hide(said)
        if clean != said:
            log.write_text(clean, encoding="utf-8", errors="surrogateescape")


def start(command: Command, folder: Path, port: int, env: Mapping[str, str], *, gpu: bool) -> Child:
    """Starts `command` with its log and command.json in `folder`; its working directory is `folder`/cwd.

    The environment is small: what programs and drivers need, the engine's own, then `env`. `gpu`: it will
    use one, so its memory is to be free again at the end.
    """
    gpu_bytes_before = gpumemory.used_bytes() if gpu else None
    _write_command(folder, command)
    (folder / "cwd").mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if KEPT_ENVIRONMENT.match(name)}
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", supervisor.__file__, str(GRACE_S), *command.argv],
            cwd=folder / "cwd",
            env={**kept, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", **command.env, **env},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    hide = masking.hiding({**kept, **command.env, **env}, command.argv)
    return Child(process, folder, port, gpu_bytes_before, hide=hide)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


def _end_tree(pid: int) -> None:
    """KILL for our child and everything below it: when the guard itself does not answer."""
    try:
        root = psutil.Process(pid)
        tree = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return
    for process in tree:
        try:
            process.kill()  # psutil refuses when the id now belongs to another process
        except psutil.NoSuchProcess:
            continue


def _write_command(folder: Path, command: Command) -> None:
    """What was started, to be started again by hand. Secrets are masked."""
    env = masking.shown("env", dict(command.env))
    text = json.dumps({"argv": masking.command_line(command.argv), "env": env}, indent=1)
    (folder / COMMAND).write_text(text + "\n", encoding="utf-8")


def _oom_kills() -> int:
    """Kills by the kernel's out-of-memory killer since the machine started; 0 where it is not told."""
    try:
        found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(encoding="ascii"), re.M)
    except OSError:
        return 0
    return int(found[1]) if found else 0
