"""Does NVML, which servetune reads, say what nvidia-smi says? Both are asked in turn, idle and under a load.

    python tools/gpu/nvml_truth.py --out results/nvml [--engine sim]

Writes rounds.jsonl (every answer of both) and comparison.json: per field the medians, the largest difference and
whether it is within TOLERANCE; memory per process; the energy counter against nvidia-smi's power over time.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.client.drive import drive
from bench.point import Load
from bench.telemetry.nvml import Nvml, UnavailableError, session
from bench.traffic.prompts import prompts_for
from serving.config import ServingConfig
from serving.engines import engine
from serving.errors import EngineError
from serving.launch.launch import launch

ROOT = Path(__file__).resolve().parent.parent.parent
IDLE_ROUNDS = 8
LOAD = Load(
    "watched", input_tokens=256, output_tokens=128, concurrency=128, duration_s=15.0, warmup_requests=64
)
MIB = 2**20


@dataclass(frozen=True)
class Field:
    """A field of nvidia-smi, the reading of `bench.telemetry.nvml` it is held against, and how far apart they may be.

    scale     of nvidia-smi's unit to ours;  slack  in our unit, beside the range of the readings around it
    """

    smi: str
    nvml: str
    scale: float
    slack: float


FIELDS = (
    Field("memory.used", "memory_total_used_bytes", MIB, 64 * MIB),
    Field("power.draw.instant", "power_w", 1.0, 15.0),
    Field("utilization.gpu", "utilization_share", 0.01, 0.10),
    Field("clocks.sm", "sm_clock_mhz", 1.0, 30.0),
    Field("temperature.gpu", "temperature_c", 1.0, 1.0),
    Field("clocks_event_reasons.active", "throttle_reasons", 1.0, 0.0),
)
BESIDE = ("memory.reserved", "power.draw.average", "enforced.power.limit", "clocks.max.sm")
"""Also kept, for what explains a difference."""
PROCESS_SLACK_BYTES = 4 * MIB
ENERGY_SHARE = 0.05

Ask = Callable[[Sequence[str]], str]


def main() -> int:
    """0: they agree, or the differences are written down; 1: nothing could be compared."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--engine", choices=("vllm", "sim"), default="vllm")
    asked = parser.parse_args()
    out: Path = asked.out
    os.chdir(ROOT)
    out.mkdir(parents=True, exist_ok=True)
    config = config_of(asked.engine)
    try:
        with (
            session() as nvml,
            launch(engine(config.engine), config, out / "launch", ready_timeout_s=150.0) as server,
        ):
            fields = known(ask)
            rounds = [look(nvml, ask, fields) for _ in range(IDLE_ROUNDS)]
            ended = threading.Event()
            under: list[dict[str, Any]] = []
            watching = threading.Thread(target=watch, args=(nvml, ask, fields, ended, under))
            prompts = prompts_for(config)
            try:
                drive(server.endpoint, LOAD, seed=1, prompts=prompts, folder=out / "load", alive=server.alive,
                      before_start=watching.start)  # fmt: skip
            finally:
                ended.set()
                if watching.ident is not None:
                    watching.join()
    except (EngineError, UnavailableError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with (out / "rounds.jsonl").open("w") as lines:
        lines.writelines(json.dumps(one) + "\n" for one in [*rounds, *under])
    found = {"idle": compare(rounds), "load": compare(under), "energy": energy(under)}
    (out / "comparison.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    return 0


def config_of(name: str) -> ServingConfig:
    """The small model on the GPU; the simulated engine to try the procedure itself."""
    if name == "sim":
        return ServingConfig.model_validate(
            {"engine": "sim", "model": "smollm2-135m", "sim": {"gpu": "h200"}}
        )
    return ServingConfig(engine="vllm", device="cuda", model=".models/smollm2-135m-instruct", max_model_len=2048,
                         gpu_memory_utilization=0.5, enforce_eager=True)  # fmt: skip


def ask(arguments: Sequence[str]) -> str:
    """What nvidia-smi prints; OSError with its words when it refuses."""
    command = ["nvidia-smi", *arguments, "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise OSError(done.stdout.strip() or done.stderr.strip() or f"nvidia-smi: status {done.returncode}")
    return done.stdout


def known(smi: Ask) -> list[str]:
    """The fields this nvidia-smi has: one unknown name makes it refuse all of them."""
    found = []
    for name in (*(field.smi for field in FIELDS), *BESIDE):
        try:
            smi([f"--query-gpu={name}", "--id=0"])
        except OSError:
            continue
        found.append(name)
    return found


def look(nvml: Nvml, smi: Ask, fields: Sequence[str]) -> dict[str, Any]:
    """One round: NVML, nvidia-smi, NVML again. Stamps on CLOCK_MONOTONIC, values in nvidia-smi's units there."""
    handle = nvml.handle(0)
    before = {"at_s": time.monotonic(), **nvml.read(0, handle)}
    answer = smi([f"--query-gpu={','.join(fields)}", "--id=0"])
    after = {"at_s": time.monotonic(), **nvml.read(0, handle)}
    processes = {str(pid): size for pid, size in (nvml.processes(0, handle) or {}).items()}
    listed = smi(["--query-compute-apps=pid,used_memory", "--id=0"])
    row = next(csv.reader(io.StringIO(answer), skipinitialspace=True))
    return {
        "nvml": [before, after],
        "smi": {name: number(text) for name, text in zip(fields, row, strict=True)},
        "processes": {"nvml": processes, "smi": sizes(listed)},
    }


def watch(
    nvml: Nvml, smi: Ask, fields: Sequence[str], ended: threading.Event, into: list[dict[str, Any]]
) -> None:
    """Rounds until the load has ended."""
    while not ended.is_set():
        into.append(look(nvml, smi, fields))


def number(text: str) -> float | None:
    """A value as nvidia-smi prints it; None for `[N/A]` and its like."""
    try:
        return float(int(text, 16)) if text.startswith("0x") else float(text)
    except ValueError:
        return None


def sizes(listed: str) -> dict[str, float | None]:
    """pid -> bytes of `--query-compute-apps=pid,used_memory`."""
    rows = csv.reader(io.StringIO(listed), skipinitialspace=True)
    found = {row[0]: number(row[1]) for row in rows if len(row) == 2}
    return {pid: None if size is None else size * MIB for pid, size in found.items()}


def compare(rounds: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per field: `agrees` when nvidia-smi lies between the NVML readings around it, give or take the slack."""
    found: dict[str, dict[str, Any]] = {}
    for field in FIELDS:
        gaps, ours, theirs = [], [], []
        for one in rounds:
            around = [reading[field.nvml] for reading in one["nvml"] if field.nvml in reading]
            said = one["smi"].get(field.smi)
            if not around or said is None:
                continue
            value = said * field.scale
            gaps.append(max(0.0, min(around) - value, value - max(around)))
            ours.append(statistics.fmean(around))
            theirs.append(value)
        if gaps:
            found[field.nvml] = {
                "rounds": len(gaps), "nvml_median": statistics.median(ours), "smi_median": statistics.median(theirs),
                "worst_gap": max(gaps), "median_gap": statistics.median(gaps), "slack": field.slack,
                "agrees": statistics.median(gaps) <= field.slack,
            }  # fmt: skip
    found["memory_bytes_per_process"] = processes_of(rounds)
    return found


def processes_of(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Memory of every process that both list, and those that only one does."""
    gaps, only = [], set()
    for one in rounds:
        ours, theirs = one["processes"]["nvml"], one["processes"]["smi"]
        only |= ours.keys() ^ theirs.keys()
        gaps += [abs(ours[p] - theirs[p]) for p in ours.keys() & theirs.keys() if ours[p] and theirs[p]]
    worst = max(gaps, default=None)
    agrees = worst is not None and worst <= PROCESS_SLACK_BYTES and not only
    return {"compared": len(gaps), "worst_gap": worst, "listed_by_one": len(only),
            "slack": PROCESS_SLACK_BYTES, "agrees": agrees}  # fmt: skip


def energy(rounds: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The counter's rise over the rounds, beside nvidia-smi's power integrated over the same time, joules."""
    power = [
        (statistics.fmean(reading["at_s"] for reading in one["nvml"]), one["smi"].get("power.draw.instant"))
        for one in rounds
    ]
    seen = [(at, watts) for at, watts in power if watts is not None]
    counted = [
        (statistics.fmean(r["at_s"] for r in one["nvml"]), statistics.fmean(r["energy_j"] for r in one["nvml"]))
        for one in rounds if all("energy_j" in r for r in one["nvml"])
    ]  # fmt: skip
    if len(seen) < 3 or len(counted) < 3 or seen[-1][0] <= seen[0][0]:
        return None
    joules = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(seen))
    # The two spans differ by a round at most; compared as mean power, that does not matter.
    integral_w = joules / (seen[-1][0] - seen[0][0])
    counter_w = (counted[-1][1] - counted[0][1]) / (counted[-1][0] - counted[0][0])
    return {
        "seconds": seen[-1][0] - seen[0][0], "counter_w": counter_w, "smi_power_w": integral_w,
        "ratio": counter_w / integral_w if integral_w else None,
        "agrees": abs(counter_w - integral_w) <= ENERGY_SHARE * integral_w,
    }  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    lines = ["| | field | NVML | nvidia-smi | worst gap | agrees |", "|---|---|---|---|---|---|"]
    for when in ("idle", "load"):
        for name, row in found[when].items():
            cells = (row.get("nvml_median"), row.get("smi_median"), row["worst_gap"])
            shown = " | ".join("-" if cell is None else f"{cell:,.6g}" for cell in cells)
            lines.append(f"| {when} | {name} | {shown} | {'yes' if row['agrees'] else 'NO'} |")
    if found["energy"]:
        e = found["energy"]
        lines.append(f"| load | energy as mean power, W | {e['counter_w']:.1f} | {e['smi_power_w']:.1f} | "
                     f"{abs(e['counter_w'] - e['smi_power_w']):.1f} | {'yes' if e['agrees'] else 'NO'} |")  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
