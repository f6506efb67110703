"""The highest output-event rate that the load client times truthfully on this machine.

The client is run against a null server on loopback whose own stamps are the truth
(`bench.testservers.null_server`), at rising numbers of streams. Points with more output events a second than
the last honest step are refused. The result is kept in `.cache/`, by machine, Python and the client's own
source.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from bench.client.drive import Drive, drive
from bench.metrics.statistics import percentile
from bench.point import Load
from bench.store import write_whole
from bench.traffic.prompts import prompts
from serving.engine import Endpoint
from serving.errors import ServetuneError

CACHE = Path(".cache")
STREAMS = (64, 256, 512, 768, 1024, 1536)
FEWER_STREAMS = (32, 16, 8)
"""Tried downwards when already the first step of STREAMS is too much."""
STEP_TOKENS = 150
ROUNDS = 2
MOST_FIRST_MEDIAN_MS = 3.0
MOST_FIRST_P99_MS = 8.0
"""How late the client may see a first event: in the median and at the 99th percentile."""
LEAST_OFFERED = 0.98
"""Time a request took at the server / the same from the client's wish to send: what a closed loop loses."""
MOST_CPU = 0.95


@dataclass(frozen=True, slots=True)
class CalibrationStep:
    """One load of the ladder. Lateness is client stamp - server stamp of the same event."""

    streams: int
    events_per_s: float
    first_median_ms: float
    first_p99_ms: float
    last_p99_ms: float
    offered_share: float
    cpu_share: float
    cpu_us_per_event: float

    @property
    def honest(self) -> bool:
        return (
            self.first_median_ms <= MOST_FIRST_MEDIAN_MS
            and max(self.first_p99_ms, self.last_p99_ms) <= MOST_FIRST_P99_MS
            and self.offered_share >= LEAST_OFFERED
            and self.cpu_share <= MOST_CPU
        )


@dataclass(frozen=True)
class Calibration:
    """`events_per_s`: highest rate with `workers` load processes at which the client still told the truth.

    0 when even the lightest step was not timed truthfully: the machine is busy with something else.
    """

    events_per_s: float
    workers: int = 1
    steps: tuple[CalibrationStep, ...] = ()
    measured_unix_s: float = 0.0

    def limit(self, workers: int) -> float:
        """Honest rate with so many workers; more than were calibrated count as those calibrated."""
        return self.events_per_s * min(1.0, workers / self.workers)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """From `as_json`, as it stands in the cache and in a run's manifest."""
        steps = tuple(CalibrationStep(**step) for step in data["steps"])
        return cls(data["events_per_s"], data["workers"], steps, data["measured_unix_s"])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def calibration(
    workers: int = 1,
    folder: Path = CACHE,
    say: Callable[[CalibrationStep], None] = lambda step: None,
) -> Calibration:
    """The cached calibration of this machine, or a new one (about a minute), then kept."""
    if (earlier := kept(workers, folder)) is not None:
        return earlier
    file = _file(workers, folder)
    found = calibrate(workers, say=say)
    if not any(step.honest and step.streams >= STREAMS[0] for step in found.steps):
        return found  # a busy machine now is no fact about the machine
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(found.as_json(), indent=1) + "\n")
    return found


def kept(workers: int = 1, folder: Path = CACHE) -> Calibration | None:
    """The calibration of this machine as it was kept; None where there was none yet."""
    file = _file(workers, folder)
    return Calibration.from_json(json.loads(file.read_text())) if file.is_file() else None


def _file(workers: int, folder: Path) -> Path:
    return folder / f"calibration-{_key(workers)}.json"


def calibrate(workers: int = 1, say: Callable[[CalibrationStep], None] = lambda step: None) -> Calibration:
    """Climbs STREAMS until a step fails twice. ServetuneError when the null server does not start."""
    steps: list[CalibrationStep] = []

    def honest(streams: int) -> bool:
        for _ in range(2):  # one failure may be a neighbour's noise
            steps.append(measure(streams, workers))
            say(steps[-1])
            if steps[-1].honest:
                return True
        return False

    if honest(STREAMS[0]):
        all(honest(streams) for streams in STREAMS[1:])
    else:
        any(honest(streams) for streams in FEWER_STREAMS)
    best = max((step.events_per_s for step in steps if step.honest), default=0.0)
    return Calibration(best, workers, tuple(steps), time.time())


def measure(streams: int, workers: int = 1) -> CalibrationStep:
    """One step: `streams` users, `ROUNDS` requests each, against a null server of its own."""

    load = Load("calibration", input_tokens=8, output_tokens=STEP_TOKENS, concurrency=streams,
                requests=ROUNDS * streams)  # fmt: skip
    scratch = Path(tempfile.mkdtemp(prefix="servetune-calibration-"))
    try:
        with null_server() as url:
            endpoint = Endpoint(url, "null", "null", "1")
            driven = drive(
                endpoint, load, seed=0, prompts=prompts(None), folder=scratch / "load", workers=workers
            )
            with urllib.request.urlopen(f"{url}/truth", timeout=30) as answer:  # noqa: S310 -- our own server
                truth = json.load(answer)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _step(streams, driven, {number: stamps for number, *stamps in truth})


def _step(streams: int, driven: Drive, truth: dict[int, list[float]]) -> CalibrationStep:
    import numpy as np

    origin = driven.started_monotonic_s
    done = [r for r in driven.records if r.ok and r.input_tokens in truth]
    if len(done) < len(driven.records):
        broken = next(r for r in driven.records if r not in done)
        raise ServetuneError(f"calibration: a request to the null server failed: {broken.error_detail}")
    ours = np.array([[r.planned_s, r.first_s, r.last_s] for r in done], dtype=float) + origin
    theirs = np.array([truth[r.input_tokens or 0] for r in done])
    late = (ours[:, 1:] - theirs[:, 1:]) * 1e3
    events = np.sort(np.concatenate([r.event_s for r in done]))
    quarter = events.size // 4
    middle = events[quarter : 3 * quarter + 1]
    return CalibrationStep(
        streams=streams,
        events_per_s=(middle.size - 1) / float(middle[-1] - middle[0]),
        first_median_ms=percentile(late[:, 0], 0.5),
        first_p99_ms=percentile(late[:, 0], 0.99),
        last_p99_ms=percentile(late[:, 1], 0.99),
        offered_share=float((theirs[:, 2] - theirs[:, 0]).sum() / (ours[:, 2] - ours[:, 0]).sum()),
        cpu_share=driven.client.cpu_share,
        cpu_us_per_event=driven.client.cpu_s * 1e6 / events.size,
    )


@contextmanager
def null_server() -> Iterator[str]:
    """URL of a null server of our own; it ends with the block, or with this process."""
    command = [sys.executable, "-m", "bench.testservers.null_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            if not line.strip().isdigit():
                raise ServetuneError("the null server of the calibration did not start")
            yield f"http://127.0.0.1:{int(line)}"
        finally:
            child.terminate()


def _key(workers: int) -> str:
    """Content key: the machine, the interpreter and every source file of the client."""
    facts = [platform.node(), platform.machine(), _cpu(), sys.version, str(workers), _installed()]
    client = Path(__file__).parents[1] / "client"
    facts += [file.read_text() for file in sorted(client.glob("*.py"))]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:12]


def _cpu() -> str:

    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return f"{os.cpu_count()} {names[0] if names else platform.processor()}"


def _installed() -> str:
    from importlib.metadata import version

    return " ".join(f"{name} {version(name)}" for name in ("locust", "gevent", "httptools"))
