"""A run with the histograms a server would have shown of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.records.model import Run, Sample
from tests.support.synthetic import open_loop

VLLM_TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

VLLM_E2E_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0)


def exposed(name: str, values, edges=VLLM_TTFT_S, before: float = 100.0) -> list[Sample]:
    """A histogram read before and after the run; `before`: what it had counted earlier, in every bucket."""
    out = []
    for edge in (*edges, float("inf")):
        series = f"server:{name}_bucket|le={edge if np.isfinite(edge) else '+Inf'}"
        count = float(sum(v <= edge for v in values))
        out += [Sample(-0.5, series, before), Sample(99.0, series, before + count)]
    return out


def measured(shift_s: float = 0.0, extra: int = 0) -> Run:
    run = open_loop(ttft_s=lambda rng, n: 0.05 + rng.exponential(0.05, n))
    ttft = [r.first_s - r.sent_s - shift_s for r in run.records]
    e2e = [r.last_s - r.sent_s - shift_s for r in run.records] + [1.0] * extra
    samples = exposed("vllm:time_to_first_token_seconds", ttft)
    samples += exposed("vllm:e2e_request_latency_seconds", e2e, VLLM_E2E_S)
    return replace(run, samples=tuple(samples))
