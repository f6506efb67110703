"""Samples by series: readings inside a window, differences of counters, peaks. None: not measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bench.records.model import Sample

SampleArray = NDArray[np.float64]

SERVER_SERIES: dict[str, tuple[str, ...]] = {
    "running": ("vllm:num_requests_running", "sglang:num_running_reqs", "sim:num_requests_running"),
    "waiting": ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "sim:num_requests_waiting"),
    "kv_use": (
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "sglang:token_usage",
        "sim:kv_cache_usage_perc",
    ),
    "cache_queries": ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
    "cache_hits": ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
    "preemptions": ("vllm:num_preemptions_total", "sim:num_preemptions_total"),
}
"""What a server calls it: the first name that was sampled is used. vLLM: vllm/v1/metrics/loggers.py."""


@dataclass(frozen=True)
class Series:
    """One series in time order."""

    t: SampleArray
    value: SampleArray

    def between(self, start_s: float, end_s: float) -> Self:
        inside = (self.t >= start_s) & (self.t <= end_s)
        return type(self)(self.t[inside], self.value[inside])

    def increase(self, start_s: float, end_s: float) -> float | None:
        """Growth of a counter over the shortest stretch of readings that covers the interval.

        None with fewer than two readings, or when it went back (the server or driver restarted).
        """
        if self.t.size < 2:
            return None
        first = max(0, int(np.searchsorted(self.t, start_s, side="right")) - 1)
        last = min(self.t.size - 1, int(np.searchsorted(self.t, end_s, side="left")))
        if last <= first or (np.diff(self.value[first : last + 1]) < 0).any():
            return None
        return float(self.value[last] - self.value[first])


@dataclass(frozen=True)
class TelemetrySeries:
    """All series of a run by name."""

    series: dict[str, Series]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Self:
        grouped: dict[str, list[Sample]] = {}
        for sample in samples:
            grouped.setdefault(sample.name, []).append(sample)
        out = {}
        for name, found in grouped.items():
            t = np.array([s.t_s for s in found])
            order = np.argsort(t, kind="stable")
            out[name] = Series(t[order], np.array([s.value for s in found])[order])
        return cls(out)

    @cached_property
    def gpus(self) -> tuple[int, ...]:
        """Indices of the GPUs that were watched."""
        found = {int(m[1]) for name in self.series if (m := re.match(r"gpu(\d+)_", name))}
        return tuple(sorted(found))

    def gpu(self, name: str) -> dict[int, Series]:
        """One series of every watched GPU that has it."""
        found = {i: self.series.get(f"gpu{i}_{name}") for i in self.gpus}
        return {i: s for i, s in found.items() if s is not None}

    def server(self, what: str) -> Series | None:
        """A series of the server by its meaning, see SERVER_SERIES."""
        names = (f"server:{name}" for name in SERVER_SERIES[what])
        return next((self.series[name] for name in names if name in self.series), None)
