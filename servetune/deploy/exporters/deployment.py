"""Deployment: what exporters need of a spec, with the numbers they all compute done once.

Exporters are functions of this alone, so one spec gives the same bytes on any machine at any time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from servetune.deploy.quoting import dns_label
from serving import devices

GIB = 2**30
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
PRESTOP_S = 15
"""Pause before a pod stops: endpoints and gateways must have dropped it first (KServe's value)."""
STARTUP_MARGIN = 2.0
"""Startup budget over the slowest measured cold start: nodes pull images and read weights more slowly."""
DRAIN_MARGIN = 1.5
CHAT_ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/models")
METRIC_NAMES = {
    "ttft": "vllm:time_to_first_token_seconds",
    "itl": "vllm:inter_token_latency_seconds",
    "tpot": "vllm:request_time_per_output_token_seconds",
    "e2e": "vllm:e2e_request_latency_seconds",
}
Latency = Literal["ttft", "itl", "tpot", "e2e"]


@dataclass(frozen=True)
class ExportedSlo:
    """One promise: the percentile (0 to 100) of a latency at or below `limit_s`, and what was measured.

    `high_s` is the upper end of the measured interval; None where the run has none.
    """

    metric: Latency
    percentile: float
    limit_s: float
    measured_s: float | None = None
    high_s: float | None = None

    @property
    def name(self) -> str:
        """Metric and percentile as one word: ttft_p99, e2e_p99_9."""
        return f"{self.metric}_p{self.percentile:g}".replace(".", "_")

    @property
    def series(self) -> str:
        return METRIC_NAMES[self.metric]

    @property
    def budget(self) -> float:
        """Share of requests that may be above the limit."""
        return 1 - self.percentile / 100

    @property
    def regression_s(self) -> float | None:
        """Above this the deployment is slower than what was measured: beyond the interval twice over, and
        by a fifth at least, for a scrape interpolates within a bucket."""
        if self.measured_s is None or self.measured_s <= 0:
            return None
        high = self.high_s if self.high_s is not None else self.measured_s
        return max(self.measured_s + 2 * (high - self.measured_s), 1.2 * self.measured_s)


@dataclass(frozen=True)
class Secret:
    """A secret by reference: the environment variable that takes it, the object and key that hold it."""

    env: str
    name: str
    key: str


@dataclass(frozen=True)
class Deployment:
    """A spec as its exporters see it. Sizes in bytes, times in seconds, rates per second and replica."""

    title: str
    spec_id: str
    refusals: tuple[str, ...]
    engine: str
    version: str
    image: str | None
    model: str
    revision: str | None
    files: tuple[tuple[str, str], ...]
    served_model: str
    flags: Mapping[str, object]
    device: Literal["cpu", "cuda"]
    weights_bytes: int
    cold_start_s: float
    slos: tuple[ExportedSlo, ...]
    safe_rate: float | None
    tokenizer: str | None = None
    plugins: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0
    gpu_product: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    replicas: int = 1
    concurrency: float | None = None
    queue_at_knee: float | None = None
    kv_peak: float | None = None
    cache_labels: Mapping[str, str] = field(default_factory=dict)
    input_tokens: float | None = None
    output_tokens: float | None = None
    worst_request_s: float = 60.0
    warmup_s: float = 60.0
    secrets: tuple[Secret, ...] = ()
    scores: tuple[tuple[str, float, float, float], ...] = ()
    """Task, mean score, and its 95 % interval."""
    routes: tuple[str, ...] = CHAT_ROUTES

    def __post_init__(self) -> None:
        """A replica gets the GPUs that its flags take, whatever smaller number its spec gives."""
        if self.device == "cuda" and (sizes := devices.parallel(self.flags)) is not None:
            object.__setattr__(self, "gpus", max(self.gpus, sizes.devices))

    @property
    def tensor_parallel(self) -> int:
        return (devices.parallel(self.flags) or devices.ONE).tensor

    @property
    def name(self) -> str:
        """Name of every object: a DNS label of at most 40 characters."""
        return dns_label(self.title)

    @property
    def labels(self) -> dict[str, str]:
        return {"app.kubernetes.io/name": self.name, "app.kubernetes.io/part-of": "servetune"}

    @property
    def is_hub_model(self) -> bool:
        """`owner/name`, downloaded by its commit; otherwise a folder that has to be put there."""
        return HUB_ID.fullmatch(self.model) is not None

    @property
    def memory_bytes(self) -> int:
        """Host memory of one replica: weights pass through it, caches and shared memory stay in it."""
        kv = self.flags.get("kv-cache-memory-bytes")
        cache = kv if isinstance(kv, int) and self.device == "cpu" else 0
        return int(1.5 * self.weights_bytes) + cache + self.shm_bytes + 4 * GIB

    @property
    def shm_bytes(self) -> int:
        """Shared memory: messages between the worker processes."""
        workers = (devices.parallel(self.flags) or devices.ONE).devices
        return GIB if workers <= 1 else 4 * GIB * workers

    @property
    def cpus(self) -> int:
        return 4 if self.device == "cpu" else 4 * max(1, self.gpus)

    @property
    def startup_budget_s(self) -> int:
        return max(60, math.ceil(STARTUP_MARGIN * self.cold_start_s))

    @property
    def drain_s(self) -> int:
        """Time a stopping server gets for the requests it has: the longest allowed one, and half again."""
        return max(30, math.ceil(DRAIN_MARGIN * self.worst_request_s))

    @property
    def grace_s(self) -> int:
        """From the signal to the kill; beyond the server's own drain time, or it would be cut short."""
        return PRESTOP_S + self.drain_s + 15

    @property
    def max_replicas(self) -> int:
        return max(2, 2 * self.replicas)
