"""`make bench-client`: our load client's error and CPU beside plain aiohttp and httpx clients, in one run.

All read the same scripted server, which writes down what it truly sent; it has a core of its own, the client
another. Exit status 1 when our client breaks a limit of `Reading.broken`. Run it on a machine that is otherwise idle: CPU
time per event moves by a fifth between runs all the same, so ours is run three times and the median one shown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from stamps import percentiles_ms

from bench.client.drive import drive
from bench.point import Load
from bench.proof.conformance import names_of, scripted_server, truth
from bench.traffic.prompts import prompts
from serving.engine import Endpoint

FIRST_MS, STEP_MS = 50, 10
CPU_US_PER_EVENT = 15.0
OFFERED = 0.98
Truth = dict[str, tuple[float, list[float]]]
Row = tuple[str, float, float, float, float]
"""Name of a request and, on CLOCK_MONOTONIC, when it was sent, its first event, its last, its end."""


@dataclass(frozen=True)
class Reading:
    """What one client read of one load, beside the truth. offered: share of what the server offers."""

    client: str
    streams: int
    ttft_p50_ms: float
    ttft_p50_true_ms: float
    ttft_p99_ms: float
    ttft_p99_true_ms: float
    tpot_p50_ms: float
    tpot_p50_true_ms: float
    e2e_p50_ms: float
    e2e_p50_true_ms: float
    offered: float
    cpu_us_per_event: float

    @property
    def broken(self) -> list[str]:
        """Limits this reading does not hold: 5% or 3 ms, 10% or 8 ms, 1%, 1%, 98%, 15 us."""
        limits = (
            ("TTFT p50", self.ttft_p50_ms, self.ttft_p50_true_ms, max(3.0, 0.05 * self.ttft_p50_true_ms)),
            ("TTFT p99", self.ttft_p99_ms, self.ttft_p99_true_ms, max(8.0, 0.10 * self.ttft_p99_true_ms)),
            ("TPOT", self.tpot_p50_ms, self.tpot_p50_true_ms, 0.01 * self.tpot_p50_true_ms),
            ("E2E", self.e2e_p50_ms, self.e2e_p50_true_ms, 0.01 * self.e2e_p50_true_ms),
        )
        found = [
            f"{name}: {read:.2f} ms, truly {true:.2f}"
            for name, read, true, most in limits
            if abs(read - true) > most
        ]
        if self.offered < OFFERED:
            found.append(f"throughput {self.offered:.1%} of what the server offers")
        if self.cpu_us_per_event > CPU_US_PER_EVENT:
            found.append(f"{self.cpu_us_per_event:.1f} us of CPU an event")
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--rounds", type=int, default=3, help="requests of each stream")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3, help="of ours; the one of median CPU is shown")
    parser.add_argument("--plain", nargs="*", default=["aiohttp", "httpx"], help="clients to compare with")
    parser.add_argument("--json", metavar="FILE|-")
    asked = parser.parse_args(arguments)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("error: client and server need a core each; this machine lends one", file=sys.stderr)
        return 2
    # The load processes inherit this core; the server and the plain clients set their own.
    os.sched_setaffinity(0, {cores[0]})
    readings = list(_measure(asked, cores[0], cores[1]))
    ours = [reading for reading in readings if reading.client == "servetune"]
    broken = [f"{r.streams} streams: {what}" for r in ours for what in r.broken]
    if asked.json:
        data = json.dumps({"readings": [asdict(r) for r in readings], "broken": broken}, indent=1)
        print(data) if asked.json == "-" else Path(asked.json).write_text(data + "\n")
    if asked.json != "-":
        _show(readings)
    for line in broken:
        print(f"limit broken: {line}", file=sys.stderr)
    return 1 if broken else 0


def _measure(asked: argparse.Namespace, core: int, server_core: int) -> Iterator[Reading]:
    for count in asked.streams:
        runs = []
        for _ in range(asked.runs):
            with scripted_server(server_core) as url:
                rows, cpu_s = _ours(url, count, asked.rounds, asked.tokens)
                runs.append(_reading("servetune", count, rows, truth(url), cpu_s, asked.tokens))
        yield sorted(runs, key=lambda r: r.cpu_us_per_event)[len(runs) // 2]
        for library in asked.plain:
            python = _python_with(library)
            if python is None:
                print(f"{library} is not installed here: left out", file=sys.stderr)
                continue
            with scripted_server(server_core) as url:
                rows, cpu_s = _plain(python, library, url, count, asked.rounds, asked.tokens, core)
                yield _reading(library, count, rows, truth(url), cpu_s, asked.tokens)


def _ours(url: str, streams: int, rounds: int, tokens: int) -> tuple[list[Row], float]:
    endpoint = Endpoint(url, f"plain:{FIRST_MS}:{STEP_MS}", "scripted", "1")
    load = Load("client", 8, tokens, concurrency=streams, requests=streams * rounds)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "load"
        driven = drive(
            endpoint, load, seed=0, prompts=prompts(None), folder=folder, salt=str(streams), keep_raw=True
        )
        names = names_of(folder)
    rows = []
    for record in driven.records:
        if not record.ok:
            raise SystemExit(f"error: a request failed: {record.error_detail}")
        stamps = (record.planned_s, record.first_s or 0.0, record.last_s or 0.0, record.closed_s or 0.0)
        sent, first, last, closed = (stamp + driven.started_monotonic_s for stamp in stamps)
        rows.append((names[record.index], sent, first, last, closed))
    return rows, driven.client.cpu_s


def _plain(
    python: str, library: str, url: str, streams: int, rounds: int, tokens: int, core: int
) -> tuple[list[Row], float]:
    script = Path(__file__).with_name("plain_client.py")
    command = [python, str(script), library, url, *map(str, (streams, rounds, tokens, core))]
    told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=300).stdout)
    return [tuple(row) for row in told["records"]], told["cpu_s"]


def _reading(client: str, streams: int, rows: list[Row], true: Truth, cpu_s: float, tokens: int) -> Reading:
    read = np.array([row[1:] for row in rows])
    told = np.array([(true[row[0]][0], true[row[0]][1][0], true[row[0]][1][-1]) for row in rows])
    e2e_true = told[:, 2] - told[:, 0]
    truly = {name.replace("_ms", "_true_ms"): ms for name, ms in percentiles_ms(told, tokens).items()}
    return Reading(
        client=client,
        streams=streams,
        **percentiles_ms(read, tokens),
        **truly,
        offered=float(e2e_true.sum() / (read[:, 3] - read[:, 0]).sum()),
        cpu_us_per_event=cpu_s * 1e6 / (len(rows) * tokens),
    )


def _python_with(library: str) -> str | None:
    """This Python, or that of an engine's environment."""
    if find_spec(library) is not None:
        return sys.executable
    for folder in sorted(Path(".engines").glob(f"*/lib/python3*/site-packages/{library}")):
        return str(folder.parents[3] / "bin" / "python")
    return None


def _show(readings: Sequence[Reading]) -> None:
    table = Table(
        "client", "streams", "TTFT p50 (true)", "TTFT p99 (true)", "TPOT (true)", "E2E (true)", "offered",
        "us/event", "CPU, ours = 1", "p99 error, ours = 1",
    )  # fmt: skip
    for r in readings:
        ours = next(o for o in readings if o.client == "servetune" and o.streams == r.streams)
        error, our_error = (abs(x.ttft_p99_ms - x.ttft_p99_true_ms) for x in (r, ours))
        table.add_row(
            r.client, str(r.streams), f"{r.ttft_p50_ms:.1f} ({r.ttft_p50_true_ms:.1f})",
            f"{r.ttft_p99_ms:.1f} ({r.ttft_p99_true_ms:.1f})",
            f"{r.tpot_p50_ms:.3f} ({r.tpot_p50_true_ms:.3f})",
            f"{r.e2e_p50_ms:.1f} ({r.e2e_p50_true_ms:.1f})", f"{r.offered:.1%}", f"{r.cpu_us_per_event:.1f}",
            f"{r.cpu_us_per_event / ours.cpu_us_per_event:.1f}", f"{error / max(our_error, 0.1):.1f}",
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 150).print(table)


if __name__ == "__main__":
    sys.exit(main())
