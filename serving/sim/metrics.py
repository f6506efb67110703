"""/metrics of the simulated server: Prometheus text under vLLM's names, from one set of counters."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass, field

TTFT_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
                20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)  # fmt: skip
ITL_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
               40.0, 80.0)  # fmt: skip
LATENCY_BUCKETS = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0,
                   240.0, 480.0, 960.0, 1920.0, 7680.0)  # fmt: skip


class SimHistogram:
    """Counts by upper bound, cumulative when written."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class Metrics:
    """Everything the server counts. Times are wall seconds of this (time-scaled) server."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    finished: dict[str, int] = field(default_factory=lambda: {"stop": 0, "length": 0, "abort": 0, "error": 0})
    ttft: SimHistogram = field(default_factory=lambda: SimHistogram(TTFT_BUCKETS))
    itl: SimHistogram = field(default_factory=lambda: SimHistogram(ITL_BUCKETS))
    tpot: SimHistogram = field(default_factory=lambda: SimHistogram(ITL_BUCKETS))
    e2e: SimHistogram = field(default_factory=lambda: SimHistogram(LATENCY_BUCKETS))
    queue: SimHistogram = field(default_factory=lambda: SimHistogram(LATENCY_BUCKETS))
    prefill: SimHistogram = field(default_factory=lambda: SimHistogram(LATENCY_BUCKETS))
    decode: SimHistogram = field(default_factory=lambda: SimHistogram(LATENCY_BUCKETS))
    behind_s: float = 0.0
    behind_max_s: float = 0.0
    steps: int = 0


HISTOGRAMS = {
    "vllm:time_to_first_token_seconds": "ttft",
    "vllm:inter_token_latency_seconds": "itl",
    "vllm:request_time_per_output_token_seconds": "tpot",
    "vllm:e2e_request_latency_seconds": "e2e",
    "vllm:request_queue_time_seconds": "queue",
    "vllm:request_prefill_time_seconds": "prefill",
    "vllm:request_decode_time_seconds": "decode",
}


@dataclass(frozen=True, slots=True)
class Gauges:
    """What the scheduler says at the moment of the scrape."""

    running: int
    waiting: int
    kv_usage: float
    prefix_queries: int
    prefix_hits: int
    preemptions: int


def render(
    metrics: Metrics, gauges: Gauges, model: str, info: dict[str, str], only: Collection[str] = ()
) -> str:
    """The page; with `only`, just the series of those names (`name[]=` of the Prometheus client)."""
    model = model.replace("\\", "\\\\").replace('"', '\\"')
    label = f'{{engine="0",model_name="{model}"}}'
    lines: list[str] = []

    def wanted(*names: str) -> bool:
        return not only or any(name in only for name in names)

    def scalar(name: str, kind: str, value: float) -> None:
        if wanted(name):
            lines.extend((f"# HELP {name} Simulated.", f"# TYPE {name} {kind}", f"{name}{label} {value}"))

    scalar("vllm:num_requests_running", "gauge", gauges.running)
    scalar("vllm:num_requests_waiting", "gauge", gauges.waiting)
    scalar("vllm:kv_cache_usage_perc", "gauge", gauges.kv_usage)
    scalar("vllm:prefix_cache_queries_total", "counter", gauges.prefix_queries)
    scalar("vllm:prefix_cache_hits_total", "counter", gauges.prefix_hits)
    scalar("vllm:num_preemptions_total", "counter", gauges.preemptions)
    scalar("vllm:prompt_tokens_total", "counter", metrics.prompt_tokens)
    scalar("vllm:generation_tokens_total", "counter", metrics.generation_tokens)
    scalar("sim:steps_total", "counter", metrics.steps)
    scalar("sim:behind_schedule_seconds", "gauge", metrics.behind_s)
    scalar("sim:behind_schedule_max_seconds", "gauge", metrics.behind_max_s)
    if wanted("vllm:request_success_total"):
        lines.append("# TYPE vllm:request_success_total counter")
        for reason, count in metrics.finished.items():
            labels = f'{{engine="0",finished_reason="{reason}",model_name="{model}"}}'
            lines.append(f"vllm:request_success_total{labels} {count}")
    for name, attribute in HISTOGRAMS.items():
        if wanted(name, f"{name}_bucket", f"{name}_sum", f"{name}_count"):
            lines.extend(_histogram(name, getattr(metrics, attribute), model))
    if wanted("vllm:cache_config_info"):
        labels = ",".join(f'{key}="{value}"' for key, value in sorted(info.items()))
        lines.extend(("# TYPE vllm:cache_config_info gauge", f"vllm:cache_config_info{{{labels}}} 1.0"))
    return "\n".join(lines) + "\n"


def _histogram(name: str, histogram: SimHistogram, model: str) -> list[str]:
    labels = f'engine="0",model_name="{model}"'
    lines = [f"# TYPE {name} histogram"]
    count = 0
    for bound, number in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        count += number
        lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {count}')
    lines.append(f"{name}_sum{{{labels}}} {histogram.total}")
    lines.append(f"{name}_count{{{labels}}} {count}")
    return lines
