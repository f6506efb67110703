"""On a GPU machine without a network: the parts of `make gpu-pack` to measured results, in one command a call.

    python3 tools/gpu_machine.py --parts /tmp/parts --out "$OUT" --limit-s 570 --task smoke failures=120 grid

Puts the parts together (once), adopts that vLLM, makes the models, then does the tasks within the limit: each
by name, with the most seconds it may take, or what is left. A later call goes on where the last one stopped. Whatever
is new under `--work`/results comes back in `--out`, in at most 7 pieces of 16 MiB (docs/gpu-machine.md).
`--scenario FILE` is a task too: `servetune bench` of that file.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from gpu import back, models, payload
from gpu.tasks import TASKS, Step, bench

ROOT = Path(__file__).resolve().parent.parent
WORK = Path("/tmp/servetune-gpu")  # noqa: S108 -- a bare machine's own
STOP_S = 30.0
"""What a step that is out of time gets to stop its engine and to write what it has."""
BACK_S = 15.0
"""Kept for bringing back."""


def main() -> int:
    """0 when every task ran to its end; 1 when one did not, 2 when what is asked for is not known."""
    asked = arguments()
    until = time.monotonic() + asked.limit_s - BACK_S
    asked.out.mkdir(parents=True, exist_ok=True)
    results = asked.work / "results"
    results.mkdir(parents=True, exist_ok=True)
    try:
        with (results / "setup.log").open("a") as log:
            say(log, f"call at {time.strftime('%H:%M:%S')}: {' '.join(sys.argv[1:])}")
            payload.install(asked.parts, asked.work)
            own, beside = payload.own(asked.work), payload.environment(asked.work)
            payload.adopt(asked.work)
            models.small(payload.environment(asked.work, engine=True))
            if asked.dummy:
                run([own, "tools/gpu/models.py", *asked.dummy], beside, until)
            say(log, f"set up {until - time.monotonic():.0f} s before the end")
        done = []
        for task, seconds in tasks(asked):
            end = min(until, time.monotonic() + seconds)
            done += [do(step, results, own, beside, end) for step in task]
    finally:
        left = back.bring(results, asked.out)
        print(f"brought back; {left} files are left for the next call", file=sys.stderr)
    return 0 if all(done) else 1


def arguments() -> argparse.Namespace:
    """The command line; exits with 2 when it names what is not known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", type=Path, default=Path("/tmp/parts"))  # noqa: S108
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit-s", type=float, default=570, help="of this whole call")
    parser.add_argument("--task", nargs="*", default=[], metavar="NAME[=SECONDS]")
    parser.add_argument("--scenario", type=Path)
    parser.add_argument("--dummy", nargs="*", default=[], metavar="SHAPE")
    asked = parser.parse_args()
    for task in asked.task:
        name, _, seconds = task.partition("=")
        if name not in TASKS or (seconds and not seconds.isdigit()):
            parser.error(f"no task is called {task!r}: NAME or NAME=SECONDS, of {', '.join(TASKS)}")
    return asked


def tasks(asked: argparse.Namespace) -> list[tuple[tuple[Step, ...], float]]:
    """The steps of each task asked for, in order, with the seconds that it may take."""
    found: list[tuple[tuple[Step, ...], float]] = []
    for task in asked.task:
        name, _, seconds = task.partition("=")
        found.append((TASKS[name].steps, float(seconds or "inf")))
    if asked.scenario is not None:
        found.append(((bench(str(asked.scenario)),), float("inf")))
    return found


def do(step: Step, results: Path, own: str, environment: Mapping[str, str], end: float) -> bool:
    """One step; whether it ended well. Passed over when too little time is left to be worth it."""
    left = end - time.monotonic()
    command = step.command(results)
    if step.done(results):
        return True
    if not step.possible(results):
        print(f"not begun, {step.needs} is not there: {' '.join(command)}", file=sys.stderr)
        return False
    if left < STOP_S + step.least_s:
        print(f"not begun, {left:.0f} s are left: {' '.join(command)}", file=sys.stderr)
        return False
    started = time.monotonic()
    status = run([own, *command], environment, end)
    took = time.monotonic() - started
    with (results / "setup.log").open("a") as log:
        say(log, f"status {status} after {took:.0f} s: {' '.join(command)}")
    return status in step.good


def run(command: Sequence[str], environment: Mapping[str, str], until: float) -> int:
    """Its exit status. Out of time it is interrupted as by Ctrl-C, so that nothing measured is lost."""
    with subprocess.Popen(command, env=dict(environment), cwd=ROOT) as child:
        for how, seconds in (
            (signal.SIGINT, until - STOP_S - time.monotonic()),
            (signal.SIGTERM, STOP_S * 2 / 3),
            (signal.SIGKILL, STOP_S / 3),
        ):
            try:
                return child.wait(max(0.0, seconds))
            except subprocess.TimeoutExpired:
                child.send_signal(how)
        return child.wait()


def say(log: TextIO, text: str) -> None:
    """On stderr and into the log."""
    for stream in (sys.stderr, log):
        print(text, file=stream, flush=True)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
