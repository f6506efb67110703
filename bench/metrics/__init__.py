"""METRICS: every number servetune reports, as a function of a Run. Nothing derived is ever stored.

Definitions follow METHODOLOGY.md, which names each metric here (a test holds the two together).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from bench.metrics import latency, resources, throughput, utilization
from bench.metrics.columns import Mask
from bench.metrics.statistics import floor
from bench.metrics.view import View
from bench.records.model import RequestError, Run
from bench.scenario.model import Price
from bench.scenario.slo import Slo

Better = Literal["lower", "higher"] | None


@dataclass(frozen=True, slots=True)
class Metric:
    """One number: its unit, which way is better, what it means, who defined it, how it is computed."""

    unit: str
    better: Better
    doc: str
    source: str
    of: Callable[[View], float | None]


_LATENCY_DOC: dict[str, tuple[str, str]] = {
    "ttft": (
        "first event with non-empty output of any kind, from the planned departure",
        "NVIDIA NIM benchmarking docs; origin: MLPerf LoadGen, wrk2",
    ),
    "ttft_sent": ("TTFT from the first byte handed to the socket", "vLLM bench serve"),
    "ttfo": ("first output that is not reasoning, from the planned departure", "AIPerf metrics reference"),
    "ttfo_sent": ("TTFO from the first byte handed to the socket", "AIPerf metrics reference"),
    "e2e": ("last event with output, from the planned departure", "vLLM; origin: MLPerf LoadGen, wrk2"),
    "e2e_sent": ("E2E from the first byte handed to the socket", "vLLM bench serve"),
    "tpot": (
        "(last output - first output) / (output tokens - 1), one value a request of two or more tokens",
        "MLPerf loadgen/logging.cc; vLLM",
    ),
    "tpot_event": (
        "(last output - first output) / (output tokens - tokens of the first event), where those are known",
        "AIPerf 0.13 inter-token latency",
    ),
    "icl": ("gap between consecutive output events, pooled over all events", "AIPerf inter-chunk latency"),
    "itl": (
        "gap / tokens of the event, one value a token; only where tokens of every event are known",
        "vLLM PR #46652; genai-perf",
    ),
    "schedule_lag": ("sent - planned, failed requests included", "inference-perf schedule delay"),
}


def _plain(series: str, name: str, view: View) -> float | None:
    return latency.statistic(latency.values(view, series), name)


def _adjusted(series: str, name: str, view: View) -> float | None:
    return latency.adjusted(view, series, name)


def _latencies() -> dict[str, Metric]:
    out = {}
    for series, (doc, source) in _LATENCY_DOC.items():
        for name in latency.STATISTICS:
            of = partial(_plain, series, name)
            out[f"{series}_{name}_ms"] = Metric("ms", "lower", doc, source, of)
    for series in latency.ADJUSTED:
        for name, q in latency.STATISTICS.items():
            if q is not None:
                doc = f"percentile of {series.upper()} with each failed or censored request as infinite"
                of = partial(_adjusted, series, name)
                out[f"{series}_{name}_adjusted_ms"] = Metric("ms", "lower", doc, "AIPerf #688", of)
    return out


def _share(of: Callable[[View], Mask], view: View) -> float | None:
    due = int(view.inside.sum())
    return int((of(view) & view.inside).sum()) / due if due else None


def _errors(kind: RequestError, view: View) -> float | None:
    return _share(lambda v: np.array([r.error is kind for r in v.records], dtype=bool), view)


def _tokens_per_event(view: View) -> float | None:
    done = latency.complete(view) & (view.requests.events > 0)
    if not done.any() or np.isnan(view.requests.tokens[done]).any():
        return None
    return float(view.requests.tokens[done].sum() / view.requests.events[done].sum())


def _mean(column: str, view: View) -> float | None:
    values = getattr(view.requests, column)[latency.complete(view)]
    return float(values.mean()) if values.size and np.isfinite(values).all() else None


def _cpu_us_per_event(view: View) -> float | None:
    client = view.run.client
    return client.cpu_s * 1e6 / client.events if client and client.events else None


_OWN = "servetune"
_ML_ENERGY = "ML.ENERGY benchmark; Zeus"

METRICS: dict[str, Metric] = {
    "output_token_throughput_per_s": Metric(
        "tokens/s", "higher", "output tokens that arrived in the steady window / its length",
        "SGLang PR #30918; ML.ENERGY", throughput.output_tokens_per_s),
    "request_throughput_per_s": Metric(
        "requests/s", "higher", "requests completed in the steady window / its length",
        "SGLang PR #30918", throughput.requests_per_s),
    "input_token_throughput_per_s": Metric(
        "tokens/s", "higher", "prompt tokens of requests first answered in the window / its length",
        _OWN, throughput.input_tokens_per_s),
    "total_token_throughput_per_s": Metric(
        "tokens/s", "higher", "input plus output token throughput", "vLLM bench serve",
        throughput.total_tokens_per_s),
    "output_token_throughput_total_run_per_s": Metric(
        "tokens/s", "higher", "all output tokens / first planned departure to last output, ramp and drain in",
        "vLLM bench serve", throughput.output_tokens_per_s_total),
    "request_throughput_total_run_per_s": Metric(
        "requests/s", "higher", "all completed requests / first planned departure to last output",
        "vLLM bench serve", throughput.requests_per_s_total),
    "goodput_per_s": Metric(
        "requests/s", "higher", "requests due in the window that completed within every SLO / its length",
        "DistServe (OSDI 2024)", throughput.goodput_per_s),
    "good_share": Metric(
        "share", "higher", "good requests / all due in the window, failed and censored ones included",
        "AIPerf good-request fraction", throughput.good_share),
    **_latencies(),
    "error_rate": Metric(
        "share", "lower", "requests due in the window that failed (censored ones apart) / all due in it",
        _OWN, partial(_share, lambda v: v.requests.failed)),
    **{
        f"error_rate_{kind.value}": Metric(
            "share", "lower", f"of it: {kind.value.replace('_', ' ')}", _OWN, partial(_errors, kind))
        for kind in RequestError if kind is not RequestError.CENSORED
    },
    "censored_share": Metric(
        "share", "lower", "requests due in the window still running when the load stopped / all due in it",
        _OWN, partial(_share, lambda v: v.requests.censored)),
    "requests": Metric(
        "requests", None, "requests due in the steady window", _OWN,
        lambda v: float(v.inside.sum()) if v.records else None),
    "window_s": Metric(
        "s", None, "length of the steady window", _OWN, lambda v: v.window.length_s if v.records else None),
    "offered_rate_per_s": Metric(
        "requests/s", None, "requests due in the window / its length", "inference-perf",
        throughput.offered_per_s),
    "dispatched_share": Metric(
        "share", "higher", "of the requests due in the window, those that had left by its last planned one",
        "inference-perf; perf_analyzer", throughput.dispatched_share),
    "concurrency_mean": Metric(
        "requests", None, "requests in flight, averaged over the time of the window", _OWN,
        throughput.concurrency_mean),
    "littles_law_ratio": Metric(
        "ratio", None, "requests in flight / (rate of leaving x mean time in the system); 1 when steady",
        "Little (1961)", throughput.littles_law_ratio),
    "output_tokens_mean": Metric(
        "tokens", None, "output tokens of a completed request", "MLPerf inference rules",
        partial(_mean, "tokens")),
    "input_tokens_mean": Metric(
        "tokens", None, "prompt tokens of a completed request, by the server's usage", _OWN,
        partial(_mean, "input_tokens")),
    "input_tokens_asked_mean": Metric(
        "tokens", None, "prompt tokens that a completed request was to have", _OWN,
        partial(_mean, "asked_input")),
    "reasoning_tokens_mean": Metric(
        "tokens", None, "of the output tokens, those that the usage calls reasoning, shown or hidden", _OWN,
        partial(_mean, "reasoning_tokens")),
    "tokens_per_event": Metric(
        "tokens", None, "output tokens / output events of completed requests", "AIPerf", _tokens_per_event),
    "cache_hit_share": Metric(
        "share", None, "prompt tokens found in the prefix cache / prompt tokens looked up, over the window",
        "vLLM /metrics", resources.cache_hit_share),
    "memory_peak_bytes": Metric(
        "bytes", "lower", "peak memory of the engine's processes over the run: GPU memory by NVML, else RSS",
        "NVML; psutil", resources.memory_peak_bytes),
    "device_memory_peak_bytes": Metric(
        "bytes", "lower", "peak memory in use on the watched GPUs, by whomever", "NVML",
        resources.device_memory_peak_bytes),
    "kv_cache_peak_share": Metric(
        "share", None, "peak use of the engine's KV cache", "vLLM /metrics", resources.kv_peak_share),
    "queue_peak": Metric(
        "requests", "lower", "peak number of requests waiting inside the engine", "vLLM /metrics",
        resources.queue_peak),
    "preemptions": Metric(
        "events", "lower", "requests pushed out of the batch for want of KV cache", "vLLM /metrics",
        resources.preemptions),
    "energy_j_per_output_token": Metric(
        "J/token", "lower", "energy of the engine's GPUs in the window / output tokens in it, idle included",
        _ML_ENERGY, resources.energy_j_per_output_token),
    "power_mean_w": Metric(
        "W", "lower", "that energy / the time it took", _ML_ENERGY, resources.power_mean_w),
    "decode_bandwidth_share": Metric(
        "share", "higher", "bytes of one decode step at the mean concurrency / (TPOT p50 x memory bandwidth)",
        "Databricks LLM inference: MBU", utilization.decode_bandwidth_share),
    "prefill_compute_share": Metric(
        "share", "higher", "operations of a prompt / (TTFT p50 from sending x matrix rate), waiting included",
        "PaLM appendix B: MFU", utilization.prefill_compute_share),
    "decode_floor_share": Metric(
        "share", None, "time that decoding needs at the memory's bandwidth / window", _OWN,
        utilization.decode_floor_share),
    "prefill_floor_share": Metric(
        "share", None, "time that the prompts need at the matrix rate / window", _OWN,
        utilization.prefill_floor_share),
    "cost_per_million_output_tokens": Metric(
        "currency", "lower", "price of an hour / output tokens of an hour at this rate x 1e6, used fully",
        _OWN, throughput.cost_output),
    "cost_per_million_total_tokens": Metric(
        "currency", "lower", "the same over input plus output tokens", _OWN, throughput.cost_total),
    "cost_per_million_good_tokens": Metric(
        "currency", "lower", "the same over output tokens of good requests only", _OWN, throughput.cost_good),
    "ready_s": Metric(
        "s", "lower", "start of the engine's process to its first real token", _OWN, lambda v: v.run.ready_s),
    "client_cpu_share": Metric(
        "share", "lower", "CPU time / wall time of the busiest load process (1: a whole core)", _OWN,
        lambda v: v.run.client.cpu_share if v.run.client else None),
    "client_cpu_us_per_event": Metric(
        "us", "lower", "CPU time of the load processes / output events received", _OWN, _cpu_us_per_event),
}  # fmt: skip
"""Name (with its unit at the end where it has one) -> definition. `currency`: that of the price given."""


def compute(run: Run, *, slos: Sequence[Slo] = (), price: Price | None = None) -> dict[str, float | None]:
    """Every metric of a run; None where it cannot be known. Adjusted percentiles may be infinite.

    A failed point without records has no numbers: all None but what was measured before it failed.
    """
    view = View(run, tuple(slos), price)
    return {name: metric.of(view) for name, metric in METRICS.items()}


def needed(run: Run) -> dict[str, int]:
    """For each latency percentile that is None for want of samples: how many it needs."""
    view = View(run)
    counts = {series: latency.values(view, series).size for series in latency.SERIES}
    return {
        f"{series}_{name}_ms": floor(q)
        for series, count in counts.items()
        for name, q in latency.STATISTICS.items()
        if q is not None and 0 < count < floor(q)
    }


def percentiles(run: Run) -> dict[str, dict[str, float | None]]:
    """`{ttft_ms: {p50, p90, p95, p99, mean}, tpot_ms, e2e_ms, icl_ms, schedule_lag_ms}`."""
    view = View(run)
    out = {}
    for series in ("ttft", "tpot", "e2e", "icl", "schedule_lag"):
        values = latency.values(view, series)
        out[f"{series}_ms"] = {name: latency.statistic(values, name) for name in latency.STATISTICS}
    return out
