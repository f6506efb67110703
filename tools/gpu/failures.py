"""Provokes failures of a real engine on a GPU, and keeps their logs: what the classifier is held against.

    python tools/gpu/failures.py --out results/failures [--case NAME ...] [--engine sim]

Each case has a log, and a line in failures.jsonl with what was expected and what the classifier said; a case that
is in there is not provoked again. `--engine sim` tries the procedure itself on the simulated engine.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.client.drive import drive
from bench.point import Load
from bench.traffic.prompts import prompts_for
from serving.config import ServingConfig
from serving.engines import engine
from serving.errors import EngineError, Failure, FailureKind, ServetuneError
from serving.install import environments
from serving.launch.launch import Server, launch

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = ".models/smollm2-135m-instruct"
NOTICED_S = 20.0
LOAD = Load("provoked", input_tokens=1024, output_tokens=128, concurrency=64, duration_s=12.0,
            request_timeout_s=20.0, silence_timeout_s=15.0)  # fmt: skip
HOG = """
import sys, torch
keep, block = [], 1 << 30
while block >= 1 << 20:
    try:
        keep.append(torch.empty(block, dtype=torch.uint8, device="cuda"))
    except torch.OutOfMemoryError:
        block //= 2
print("full", flush=True)
sys.stdin.read()
"""
"""Takes what is left of the GPU's memory until its standard input closes."""


@dataclass(frozen=True)
class Case:
    """settings  of the launch, beside the small model and eager mode

    expected  classes that are right;  hog: another process holds the memory: "before" or "after" the launch;
    kill      a process of the engine is killed under load
    fault     of the simulated engine, that stands for it
    """

    expected: frozenset[FailureKind]
    settings: Mapping[str, Any] = field(default_factory=dict)
    hog: str | None = None
    kill: bool = False
    fault: str | None = None

    @property
    def loaded(self) -> bool:
        return self.kill or self.hog == "after"


def _is(*kinds: FailureKind) -> frozenset[FailureKind]:
    return frozenset(kinds)


K = FailureKind
CASES: dict[str, Case] = {
    "bad-flag": Case(_is(K.BAD_FLAG), {"extra_args": {"no-such-flag": True}}, fault="bad_flag"),
    "quantization": Case(
        _is(K.UNSUPPORTED), {"extra_args": {"quantization": "modelopt_fp4"}}, fault="unsupported"
    ),
    "too-long": Case(_is(K.UNSUPPORTED), {"max_model_len": 100_000}, fault="unsupported"),
    "cache-too-small": Case(_is(K.OOM_LAUNCH), {"gpu_memory_utilization": 0.005}, fault="oom_at_launch"),
    "cache-too-large": Case(_is(K.OOM_LAUNCH), {"kv_cache_bytes": 300 * 2**30}, fault="oom_at_launch"),
    "memory-taken": Case(
        _is(K.OOM_LAUNCH), {"gpu_memory_utilization": 0.5}, hog="before", fault="oom_at_launch"
    ),
    "memory-taken-under-load": Case(
        _is(K.OOM_LOAD),
        {"kv_cache_bytes": 4 * 2**30, "max_num_seqs": 256},
        hog="after",
        fault="oom_under_load:4",
    ),
    "killed-under-load": Case(_is(K.KILLED, K.CRASH), {"gpu_memory_utilization": 0.3}, kill=True),
}
"""The cheap ones first; the one that takes all memory under load before the kill, which is sure to work."""


def provoke(case: Case, config: ServingConfig, folder: Path, hog: Callable[[], Any]) -> Failure | None:
    """The classified failure; None when the engine took no harm. `folder` gets the engine's log."""
    chosen = engine(config.engine)
    try:
        if case.hog == "before":
            with hog():
                return _launched(chosen, case, config, folder, hog)
        return _launched(chosen, case, config, folder, hog)
    except EngineError as error:
        return error.failure


def _launched(
    chosen: Any, case: Case, config: ServingConfig, folder: Path, hog: Callable[[], Any]
) -> Failure | None:
    with launch(chosen, config, folder, ready_timeout_s=150.0) as server:
        if not case.loaded:
            return None
        if case.hog == "after":
            with hog():
                return _under_load(server, config, folder, case.kill)
        return _under_load(server, config, folder, case.kill)


def _under_load(server: Server, config: ServingConfig, folder: Path, kill: bool) -> Failure | None:
    struck: list[int] = []

    def alive() -> bool:
        if kill and not struck and server.endpoint.pid and time.monotonic() > at:
            struck.append(_kill_one(server.endpoint.pid))
        return server.alive()

    at = float("inf")

    def begin() -> None:
        nonlocal at
        at = time.monotonic() + 1.0

    driven = drive(server.endpoint, LOAD, seed=1, prompts=prompts_for(config), folder=folder / "load",
                   before_start=begin, alive=alive)  # fmt: skip
    until = time.monotonic() + NOTICED_S
    while server.alive() and time.monotonic() < until and not all(r.ok for r in driven.records):
        time.sleep(0.2)
    return server.why_dead() if not server.alive() else None


def _kill_one(pid: int) -> int:
    """Kills the largest process below the engine's first (the one that holds the model), or that one."""
    mother = psutil.Process(pid)
    victim = max(mother.children(recursive=True), key=lambda child: child.memory_info().rss, default=mother)
    victim.send_signal(signal.SIGKILL)
    return victim.pid


@contextmanager
def full_memory() -> Iterator[None]:
    """Another process holds all of the GPU's free memory. RuntimeError when it does not come up."""
    environment = environments.find("vllm", None, "cuda")
    assert environment is not None
    with subprocess.Popen(
        [str(environment.python), "-c", HOG], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as hog:
        assert hog.stdout is not None
        try:
            if hog.stdout.readline().strip() != b"full":
                raise RuntimeError("nothing took the GPU's memory: is torch there?")
            yield
        finally:
            hog.kill()


def config_of(case: Case, name: str) -> ServingConfig:
    """What the case launches; on the simulated engine with the fault that stands for it."""
    if name == "sim":
        return ServingConfig.model_validate(
            {
                "engine": "sim",
                "model": "smollm2-135m",
                "sim": {"gpu": "h200"} | ({"fault": case.fault} if case.fault else {}),
            }
        )
    common = {"engine": "vllm", "device": "cuda", "model": SMALL, "attempt": True,
              "enforce_eager": True, "max_model_len": 2048}  # fmt: skip
    return ServingConfig.model_validate({**common, **case.settings})


def cleaned(log: str) -> str:
    """Without the folders of this machine."""
    prefix = Path(sys.prefix)
    named = {ROOT: "/servetune", prefix: "/python", Path(sys.base_prefix): "/python", Path.home(): "/home"}
    if prefix.name == "own":
        named[prefix.parent] = "/site"
    for folder in sorted(named, key=lambda one: -len(str(one))):
        if len(folder.parts) > 1:
            log = log.replace(str(folder), named[folder])
    return log


def main() -> int:
    """0 when every failure was classified as one of those expected; 1 otherwise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--case", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--engine", choices=("vllm", "sim"), default="vllm")
    asked = parser.parse_args()
    os.chdir(ROOT)
    asked.out.mkdir(parents=True, exist_ok=True)
    lines = asked.out / "failures.jsonl"
    told = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    for name in asked.case:
        if any(line["case"] == name for line in told):
            continue
        told.append(attempt(name, CASES[name], asked.engine, asked.out))
        with lines.open("a") as journal:
            journal.write(json.dumps(told[-1]) + "\n")
        print(
            f"{name}: {told[-1]['kind'] or 'no failure'}: {told[-1]['detail']}", file=sys.stderr, flush=True
        )
    return 0 if all(line["right"] for line in told) else 1


def attempt(name: str, case: Case, engine_name: str, out: Path) -> dict[str, Any]:
    """One case: its line of failures.jsonl, its log beside it."""
    started = time.monotonic()
    scratch = out / name
    hog = full_memory if engine_name == "vllm" else nullcontext
    try:
        failure, broken = provoke(case, config_of(case, engine_name), scratch, hog), ""
    except (ServetuneError, OSError, RuntimeError) as error:  # the other cases are still worth having
        failure, broken = None, f"not provoked: {error}"
    for log in sorted(scratch.glob("engine.log")):
        (out / f"{name}.log").write_text(cleaned(log.read_text(errors="replace")))
    return {
        "case": name,
        "engine": engine_name,
        "expected": sorted(case.expected),
        "kind": failure.kind if failure else None,
        "right": failure is not None and failure.kind in case.expected,
        "detail": cleaned(failure.detail) if failure else broken or "the engine took no harm",
        "hint": failure.hint if failure else "",
        "exit_code": failure.exit_code if failure else None,
        "took_s": round(time.monotonic() - started, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
