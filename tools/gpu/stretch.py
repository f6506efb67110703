"""The load generator at full stretch, beside `vllm bench serve`: how many tokens a second each can honestly take in.

    python tools/gpu/stretch.py --out results/stretch [--engine sim] [--workers 1 8] [--streams 512 1024]

Two servers: one that costs nothing and sends one token a step to every stream, at known times (what comes in is the
client's limit alone), and the real engine with the small model (what both say about the same load). Writes stretch.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rivals import timed
from rivals.clients import CLIENTS, VLLM_FIGURES, Job

from bench.client.drive import Drive, drive
from bench.point import Load
from bench.proof import calibration
from bench.store import write_whole
from bench.traffic.prompts import Prompts, prompts, prompts_for
from serving.config import ServingConfig
from serving.engine import Endpoint
from serving.engines import engine
from serving.install import environments
from serving.install.environment import Environment
from serving.launch.launch import launch

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = ".models/smollm2-135m-instruct"
LOAD = Load(
    "stretch", input_tokens=128, output_tokens=128, concurrency=512, requests=2048, warmup_requests=64
)
NULL_TOKENS, ROUNDS = 150, 4
LIMIT_S = 120.0
PARTIAL = "partial.json"


def main() -> int:
    """0: both clients were measured on both servers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--engine", choices=("vllm", "sim"), default="vllm")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--streams", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--requests", type=int, default=LOAD.requests)
    asked = parser.parse_args()
    os.chdir(ROOT)
    asked.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"cores": os.cpu_count(), "null_server": [], "engine": [], "steps": []}
    for workers in asked.workers:
        for streams in asked.streams:
            step = calibration.measure(streams, workers)
            found["steps"].append({"workers": workers, "honest": step.honest, **asdict(step)})
            keep(asked.out, found)
    for streams in asked.streams:
        with calibration.null_server() as url:
            load = replace(LOAD, input_tokens=8, output_tokens=NULL_TOKENS, concurrency=streams, warmup_requests=0,
                           requests=ROUNDS * streams)  # fmt: skip
            null = Endpoint(url, "null", "null", "1")
            found["null_server"] += beside(null, prompts(None), SMALL, load, asked.workers, asked.out)
            keep(asked.out, found)
    config = config_of(asked.engine)
    load = replace(LOAD, requests=asked.requests, concurrency=min(asked.requests, LOAD.concurrency or 1))
    with launch(engine(config.engine), config, asked.out / "launch", ready_timeout_s=240.0) as server:
        found["engine"] = beside(server.endpoint, prompts_for(config), SMALL, load, asked.workers, asked.out)
    keep(asked.out, found)
    (asked.out / PARTIAL).unlink(missing_ok=True)
    print(table(found))
    return 0


def beside(
    server: Endpoint, words: Prompts, tokenizer: str, load: Load, workers: Sequence[int], out: Path
) -> list[dict[str, Any]]:
    """The same load on the same server by our client, with each number of load processes, and by vLLM's."""
    found = []
    for count in workers:
        driven = drive(
            server, load, seed=1, prompts=words, folder=out / "load", workers=count, salt=str(count)
        )
        found.append({"client": "servetune", "workers": count, "streams": load.concurrency, **ours(driven)})
    program = environments.find("vllm", None, "cuda")
    return [*found, theirs(program, server.url, server.served_model, tokenizer, load, out)]


def config_of(name: str) -> ServingConfig:
    """The small model as fast as the engine serves it: its defaults, CUDA graphs included."""
    if name == "sim":
        sim = {"gpu": "h200", "shape": "smollm2-135m"}
        return ServingConfig.model_validate({"engine": "sim", "model": "smollm2-135m", "sim": sim})
    return ServingConfig(engine="vllm", device="cuda", model=SMALL, max_model_len=2048)


def ours(driven: Drive) -> dict[str, Any]:
    """Output tokens a second over the whole load, as vLLM's client counts them, and what it cost."""
    done = [record for record in driven.records if record.ok]
    tokens = sum(record.output_tokens or 0 for record in done)
    last = max((record.closed_s or 0.0 for record in done), default=0.0)
    firsts = sorted(r.first_s - r.sent_s for r in done if r.first_s is not None and r.sent_s is not None)
    return {
        "completed": len(done), "output_tokens": tokens, "tokens_per_s": tokens / last if last else None,
        "ttft_p50_ms": 1e3 * firsts[len(firsts) // 2] if firsts else None, "cpu_s": driven.client.cpu_s,
        "cpu_us_per_token": 1e6 * driven.client.cpu_s / tokens if tokens else None,
    }  # fmt: skip


def theirs(
    program: Environment | None, url: str, model: str, tokenizer: str, load: Load, out: Path
) -> dict[str, Any]:
    """The same load by `vllm bench serve`; its own words where it fails."""
    if program is None or not program.installed:
        return {"client": "vllm bench serve", "error": "vllm is not installed"}
    result = out / VLLM_FIGURES
    result.unlink(missing_ok=True)
    streams, requests = load.concurrency or 1, load.requests or 1
    job = Job(url, model, streams, requests, load.output_tokens, Path(tokenizer).resolve(),
              input_tokens=load.input_tokens)  # fmt: skip
    arguments = CLIENTS["vllm bench serve"].arguments(job, out.resolve())
    spent = timed.run([str(program.program("vllm")), *arguments], out / "vllm-bench.log", LIMIT_S)
    if not result.is_file():
        return {"client": "vllm bench serve", "error": f"status {spent.status}", "streams": load.concurrency}
    said = json.loads(result.read_text())
    tokens = said.get("total_output_tokens") or 0
    return {
        "client": "vllm bench serve", "streams": load.concurrency, "completed": said.get("completed"),
        "output_tokens": tokens, "tokens_per_s": said.get("output_throughput"),
        "ttft_p50_ms": said.get("median_ttft_ms"), "cpu_s": spent.cpu_s,
        "cpu_us_per_token": 1e6 * spent.cpu_s / tokens if tokens else None, "took_s": spent.wall_s,
    }  # fmt: skip


def keep(out: Path, found: dict[str, Any]) -> None:
    """What is known so far, whole or not at all."""
    path = out / (PARTIAL if not found["engine"] else "stretch.json")
    write_whole(path, json.dumps(found, indent=1) + "\n")


def table(found: dict[str, Any]) -> str:
    """Both clients side by side, as Markdown."""
    lines = ["| server | client | streams | tokens/s | TTFT p50 ms | CPU us/token | |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for step in found["steps"]:
        lines.append(
            f"| null | servetune, {step['workers']} workers | {step['streams']} | {step['events_per_s']:,.0f} | "
            f"- | {step['cpu_us_per_event']:.1f} | {'honest' if step['honest'] else 'not honest'} |"
        )
    for server in ("null_server", "engine"):
        for row in found[server]:
            name = row["client"] + (f", {row['workers']} workers" if "workers" in row else "")
            cells = [row.get(n) for n in ("tokens_per_s", "ttft_p50_ms", "cpu_us_per_token")]
            shown: Sequence[str] = ["-" if cell is None else f"{cell:,.1f}" for cell in cells]
            lines.append(f"| {server.split('_')[0]} | {name} | {row.get('streams', '-')} | {' | '.join(shown)} | "
                         f"{row.get('error') or ('' if 'workers' in row else 'CPU with its start')} |")  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
