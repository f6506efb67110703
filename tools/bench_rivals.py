"""`make bench-rivals`: what load tools report of a server that knows the truth, each by its own command line.

Two parts. Streams: 10 ms a token, many users; the tool's TTFT, TPOT and E2E beside what the server truly did. Cases: what
a server may do to a client (`bench/testservers/cases.py`), and what each tool makes of it. The server has one core, each tool the
others. Needs the tools of `make rivals`; one that is not installed is said to be missing. Writes every run as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rivals import timed
from rivals.clients import CLIENTS, Job, version
from rivals.reading import STREAMS, Run, Truth, tables, wrong
from stamps import percentiles_ms

from bench.proof.conformance import EXPECTED, scripted_server, truth

ROOT = Path(__file__).resolve().parent.parent
TOKENIZER = ROOT / ".models" / "smollm2-135m-instruct"
LEAST_REQUESTS = 700
"""More than the 662 that a p99 needs."""
CASES = (
    "plain", "role_first", "several_tokens", "speculative", "reasoning", "late_usage", "drip", "hangs_up",
    "no_tokens", "error_in_stream", "no_end", "unframed_cut", "reset", "broken",
)  # fmt: skip
CASE_REQUESTS, CASE_TOKENS = 12, 32
LIMIT_S = 180.0


def main() -> int:
    """0 when our own figures are right everywhere, else 1; 2 when there is no second core."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--streams", type=int, nargs="*", default=[32, 128, 512])
    parser.add_argument("--cases", nargs="*", choices=CASES, default=CASES)
    parser.add_argument("--tokens", type=int, default=200, help="of a request, with --streams")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "rivals.json")
    asked = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("error: client and server need a core each; this machine lends one", file=sys.stderr)
        return 2
    os.sched_setaffinity(0, set(cores[:-1]))
    runs: list[Run] = []
    for run in _runs(asked, cores[-1]):
        runs.append(run)
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        data = {"client_cores": len(cores) - 1, "runs": [asdict(r) for r in runs]}
        asked.out.write_text(json.dumps(data, indent=1) + "\n")
    print(tables(runs, len(cores) - 1))
    ours = [(run, wrong(run)) for run in runs if run.client == "servetune"]
    for run, found in ours:
        for what in found:
            print(f"ours is wrong: {run.model}, {run.streams} streams: {what}", file=sys.stderr)
    return 1 if any(found for _, found in ours) else 0


def _runs(asked: argparse.Namespace, server_core: int) -> Iterator[Run]:
    jobs = [
        (STREAMS, streams, -(-LEAST_REQUESTS // streams) * streams, asked.tokens) for streams in asked.streams
    ] + [(case, 1, CASE_REQUESTS, CASE_TOKENS) for case in asked.cases]
    for model, streams, requests, tokens in jobs:
        chat = ("endpoint", "chat") in (EXPECTED[model].load if model in EXPECTED else ())
        for name in asked.clients:
            program = CLIENTS[name].found()
            if program is None:
                print(f"{name} is not installed here: left out (make rivals)", file=sys.stderr)
                continue
            print(f"{name}: {model}, {streams} streams", file=sys.stderr)
            with scripted_server(server_core) as url:
                job = Job(url, model, streams, requests, tokens, TOKENIZER, chat)
                yield _run(name, program, job)


def _run(name: str, program: Path, job: Job) -> Run:
    client = CLIENTS[name]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        log = out / "log"
        spent = timed.run([str(program), *client.arguments(job, out)], log, LIMIT_S)
        lines = log.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        try:
            told = client.read(job, out)
        except (OSError, KeyError, IndexError, ValueError, TypeError) as error:
            told, last = None, f"no figures ({type(error).__name__}: {error}); its last line: {last}"
    return Run(name, version(program), job.model, job.streams, job.requests, job.output_tokens,
               _truth(job), told, spent.status, spent.wall_s, spent.cpu_s, last)  # fmt: skip


def _truth(job: Job) -> Truth:
    """Of the last requests: some tools send one before the load to see whether the server is there."""
    served = sorted(truth(job.url).values())[-job.requests :]
    whole = np.array([(begun, sent[0], sent[-1]) for begun, sent in served if sent])
    if not len(whole):
        return Truth(len(served), None, None, None, None, None)
    span = whole[:, 2].max() - whole[:, 0].min()
    busy = float((whole[:, 2] - whole[:, 0]).sum() / (job.streams * span))
    return Truth(requests=len(served), busy=busy, **percentiles_ms(whole, job.output_tokens))


if __name__ == "__main__":
    sys.exit(main())
