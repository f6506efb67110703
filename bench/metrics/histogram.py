"""The server's own latency histograms held against the client's stamps, over all requests of the run.

A Prometheus histogram knows a quantile only up to its bucket: client and server agree when the client's
quantile lies in the server's bucket or no further from it than the bucket is wide, and 10 ms at the least.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from bench.metrics.statistics import Array, floor, percentile
from bench.metrics.view import View

SERVER_HISTOGRAMS: dict[str, tuple[str, ...]] = {
    "TTFT": ("vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds"),
    "E2E": ("vllm:e2e_request_latency_seconds", "sglang:e2e_request_latency_seconds"),
    "TPOT": ("vllm:request_time_per_output_token_seconds",),
}
"""Latency -> names of the histogram of it; the first that was sampled is used."""

QUANTILES = {"p50": 0.50, "p90": 0.90}
OUTSIDE_S = 0.010
"""What a busy API server may take outside its own stamps, to parse and to send: assumption."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One quantile seen from both sides, in seconds: the server's lies in (low_s, high_s]."""

    latency: str
    statistic: str
    client_s: float
    low_s: float
    high_s: float

    @property
    def server_s(self) -> float:
        """Middle of the server's bucket; its lower edge when it has no upper one."""
        return (self.low_s + self.high_s) / 2 if np.isfinite(self.high_s) else self.low_s

    @property
    def agrees(self) -> bool:
        width = max(self.high_s - self.low_s, OUTSIDE_S)
        return self.low_s - width <= self.client_s <= self.high_s + width


@dataclass(frozen=True)
class Histogram:
    """Counts of the run by bucket: `edges` are upper bounds in rising order, the last infinite."""

    edges: Array
    counts: Array
    total_s: float | None = None

    @property
    def count(self) -> float:
        return float(self.counts.sum())

    def bucket(self, q: float) -> tuple[float, float]:
        """Bounds of the bucket that holds the nearest-rank quantile q."""
        position = int(np.searchsorted(np.cumsum(self.counts), q * self.count - 1e-9))
        position = min(position, self.edges.size - 1)
        return float(self.edges[position - 1]) if position else 0.0, float(self.edges[position])


def histogram(view: View, name: str) -> Histogram | None:
    """Growth of a histogram from its first reading to its last; None when unread, reset or unmoved."""
    prefix = f"server:{name}_bucket|le="
    grown: dict[float, float] = {}
    for series, readings in view.telemetry.series.items():
        if series.startswith(prefix):
            increase = readings.increase(-np.inf, np.inf)
            if increase is None:
                return None
            grown[_edge(series[len(prefix) :])] = increase
    edges = sorted(grown)
    if not edges or grown[edges[-1]] <= 0:
        return None
    counts = np.diff([0.0, *(grown[edge] for edge in edges)])
    total = view.telemetry.series.get(f"server:{name}_sum")
    return Histogram(np.array(edges), counts, total.increase(-np.inf, np.inf) if total else None)


def _edge(text: str) -> float:
    return np.inf if re.fullmatch(r"\+?inf", text, re.IGNORECASE) else float(text)


def _client_s(view: View, latency: str) -> Array:
    """All requests the server has finished with, from the moment of sending: what a server can see."""
    r = view.requests
    if latency == "TTFT":
        values = r.first - r.sent if view.streams else np.empty(0)
    elif latency == "E2E":
        values = (r.last - r.sent)[r.ok]
    else:
        values = ((r.last - r.first) / np.maximum(r.tokens - 1, 1))[r.ok & (r.tokens >= 2)]
        values = values if view.streams else np.empty(0)
    return values[np.isfinite(values)]


def reconcile(view: View) -> list[Pair]:
    """Every quantile both sides know. Empty without histograms, or when they cover other requests."""
    pairs = []
    for latency, names in SERVER_HISTOGRAMS.items():
        found = next((h for name in names if (h := histogram(view, name)) is not None), None)
        ours = _client_s(view, latency)
        if found is None or not 0.9 * ours.size <= found.count <= 1.1 * ours.size:
            continue
        for statistic, q in QUANTILES.items():
            if ours.size >= floor(q):
                low, high = found.bucket(q)
                pairs.append(Pair(latency, statistic, percentile(ours, q), low, high))
    return pairs


def served(view: View) -> float | None:
    """Requests the server completed over the run, by its own count; None where it does not say."""
    found = [histogram(view, name) for name in SERVER_HISTOGRAMS["E2E"]]
    return next((h.count for h in found if h is not None), None)
