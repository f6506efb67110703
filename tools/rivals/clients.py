"""CLIENTS: load tools with one command line each, asked for the same load, and what each reports of it.

Only documented options are used, at their defaults where the load does not say otherwise. A figure is taken as the
tool itself prints it; one that it does not report is None.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
VLLM_FIGURES = "vllm-bench.json"


@dataclass(frozen=True)
class Job:
    """A closed loop of `streams` users on a completions or chat endpoint, `output_tokens` a request."""

    url: str
    model: str
    streams: int
    requests: int
    output_tokens: int
    tokenizer: Path
    chat: bool = False
    input_tokens: int = 8

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.chat else "/v1/completions"


@dataclass(frozen=True)
class Told:
    """What a tool reports: counts of requests, tokens of all completed ones, milliseconds."""

    completed: int
    failed: int
    output_tokens: float | None = None
    ttft_p50_ms: float | None = None
    ttft_p99_ms: float | None = None
    tpot_p50_ms: float | None = None
    e2e_p50_ms: float | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class Client:
    """program: its path, or a pattern under the repository; arguments and read: of one job in a folder."""

    program: str
    arguments: Callable[[Job, Path], list[str]]
    read: Callable[[Job, Path], Told]

    def found(self) -> Path | None:
        return next(iter(sorted(ROOT.glob(self.program))), None)


def _servetune(job: Job, out: Path) -> list[str]:
    return [
        "load", "--url", job.url, "--model", job.model, "--endpoint", "chat" if job.chat else "completions",
        "--input-tokens", str(job.input_tokens), "--output-tokens", str(job.output_tokens),
        "--concurrency", str(job.streams), "--requests", str(job.requests), "--warmup", "0",
        "--json", str(out / "servetune.json"),
    ]  # fmt: skip


def _read_servetune(_: Job, out: Path) -> Told:
    said = json.loads((out / "servetune.json").read_text())
    counts = said["requests"]
    tokens = said["metrics"]["output_tokens_mean"]
    return Told(
        completed=counts["completed"],
        failed=counts["failed"],
        output_tokens=None if tokens is None else tokens * counts["completed"],
        ttft_p50_ms=said["ttft_ms"]["p50"],
        ttft_p99_ms=said["ttft_ms"]["p99"],
        tpot_p50_ms=said["tpot_ms"]["p50"],
        e2e_p50_ms=said["e2e_ms"]["p50"],
        verdict=said["verdict"],
    )


def _vllm(job: Job, out: Path) -> list[str]:
    return [
        "bench", "serve", "--backend", "openai-chat" if job.chat else "openai", "--base-url", job.url,
        "--endpoint", job.path, "--model", job.model, "--tokenizer", str(job.tokenizer),
        "--dataset-name", "random", "--random-input-len", str(job.input_tokens),
        "--random-output-len", str(job.output_tokens), "--num-prompts", str(job.requests),
        "--max-concurrency", str(job.streams), "--ignore-eos", "--temperature", "0", "--disable-tqdm",
        "--percentile-metrics", "ttft,tpot,e2el", "--metric-percentiles", "50,99",
        "--save-result", "--result-dir", str(out), "--result-filename", VLLM_FIGURES,
    ]  # fmt: skip


def _read_vllm(_: Job, out: Path) -> Told:
    said = json.loads((out / VLLM_FIGURES).read_text())
    done = said["completed"]

    def ms(name: str) -> float | None:
        return said.get(name) if done else None

    return Told(
        completed=done,
        failed=said["failed"],
        output_tokens=said["total_output_tokens"],
        ttft_p50_ms=ms("median_ttft_ms"),
        ttft_p99_ms=ms("p99_ttft_ms"),
        tpot_p50_ms=ms("median_tpot_ms"),
        e2e_p50_ms=ms("median_e2el_ms"),
    )


def _guidellm(job: Job, out: Path) -> list[str]:
    backend = f"kind=openai_http,target={job.url},model={job.model},request_format={job.path}"
    data = f"kind=synthetic_text,prompt_tokens={job.input_tokens},output_tokens={job.output_tokens}"
    return [
        "run", "--backend", backend, "--profile", f"kind=concurrent,streams={job.streams}",
        "--constraint", f"kind=max_requests,count={job.requests}", "--data", data,
        "--tokenizer", f"kind=hf_auto,model={job.tokenizer}",
        "--output", f"kind=json,path={out / 'guidellm.json'}", "--disable-console",
    ]  # fmt: skip


def _read_guidellm(_: Job, out: Path) -> Told:
    said = json.loads((out / "guidellm.json").read_text())["benchmarks"][0]["metrics"]

    def of(name: str, *places: str) -> float | None:
        found: Any = said[name]["successful"]
        for place in places:
            found = None if found is None else found.get(place)
        return None if found is None or not said[name]["successful"]["count"] else float(found)

    latency_s = of("request_latency", "median")
    return Told(
        completed=said["request_totals"]["successful"],
        failed=said["request_totals"]["errored"],
        output_tokens=of("output_token_count", "total_sum"),
        ttft_p50_ms=of("time_to_first_token_ms", "median"),
        ttft_p99_ms=of("time_to_first_token_ms", "percentiles", "p99"),
        # Its time_per_output_token_ms is E2E / tokens; the inter-token latency of a request is what others call TPOT.
        tpot_p50_ms=of("inter_token_latency_ms", "median"),
        e2e_p50_ms=None if latency_s is None else 1e3 * latency_s,
    )


def _aiperf(job: Job, out: Path) -> list[str]:
    return [
        "profile", "--model", job.model, "--url", job.url, "--streaming",
        "--endpoint-type", "chat" if job.chat else "completions", "--concurrency", str(job.streams),
        "--request-count", str(job.requests), "--isl", str(job.input_tokens), "--osl", str(job.output_tokens),
        "--tokenizer", str(job.tokenizer), "--use-legacy-max-tokens", "--use-server-token-count",
        "--extra-inputs", "ignore_eos:true", "--artifact-dir", str(out / "aiperf"), "--ui", "none",
    ]  # fmt: skip


def _read_aiperf(_: Job, out: Path) -> Told:
    lines = (out / "aiperf" / "profile_export.jsonl").read_text().splitlines()
    failed = sum(json.loads(line).get("error") is not None for line in lines)
    if failed == len(lines):
        return Told(0, failed)
    said = json.loads((out / "aiperf" / "profile_export_aiperf.json").read_text())

    def of(name: str, part: str) -> float | None:
        return said.get(name, {}).get(part)

    return Told(
        completed=round(of("request_count", "avg") or 0),
        failed=failed,
        output_tokens=of("total_output_tokens", "avg"),
        ttft_p50_ms=of("time_to_first_token", "p50"),
        ttft_p99_ms=of("time_to_first_token", "p99"),
        # (E2E - TTFT) / (tokens - 1) of each request, which others call TPOT.
        tpot_p50_ms=of("inter_token_latency", "p50"),
        e2e_p50_ms=of("request_latency", "p50"),
    )


CLIENTS = {
    "servetune": Client(".venv/bin/servetune", _servetune, _read_servetune),
    "vllm bench serve": Client(".engines/vllm-*/bin/vllm", _vllm, _read_vllm),
    "guidellm": Client(".engines/rivals/guidellm-*/bin/guidellm", _guidellm, _read_guidellm),
    "aiperf": Client(".engines/rivals/aiperf-*/bin/aiperf", _aiperf, _read_aiperf),
}


def version(program: Path) -> str:
    """From the name of its folder; ours is this tree."""
    name = program.parent.parent.name
    return name.rpartition("-")[2] if "-" in name else "this tree"
