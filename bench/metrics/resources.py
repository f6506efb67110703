"""What the work cost the machine: memory, cache, queue, energy. None where it was not measured, never 0."""

from __future__ import annotations

import numpy as np

from bench.metrics.throughput import output_tokens_between
from bench.metrics.view import View
from bench.telemetry.series import Series

LEAST_UPDATE_PERIODS = 20
"""An energy window spans at least this many steps of the counter (Zeus #181; ML.ENERGY)."""
USUAL_UPDATE_S = 0.1
"""Update period of NVML's energy counter when it was not measured: about 10 Hz (Zeus)."""


def memory_peak_bytes(view: View) -> float | None:
    """GPUs: the sum of each card's peak of our processes. Without a GPU: resident memory of the tree.

    Over the whole run: what must fit is the highest moment, wherever it was.
    """
    gpus = view.telemetry.gpu("memory_bytes")
    if view.telemetry.gpus:
        if set(gpus) != set(view.telemetry.gpus):
            return None
        return float(sum(s.value.max() for s in gpus.values()))
    return _peak(view.telemetry.series.get("rss_bytes"))


def device_memory_peak_bytes(view: View) -> float | None:
    cards = view.telemetry.gpu("memory_total_used_bytes")
    return float(sum(s.value.max() for s in cards.values())) if cards else None


def kv_peak_share(view: View) -> float | None:
    return _peak(view.telemetry.server("kv_use"))


def queue_peak(view: View) -> float | None:
    return _peak(view.telemetry.server("waiting"))


def preemptions(view: View) -> float | None:
    series = view.telemetry.server("preemptions")
    return series.increase(-np.inf, np.inf) if series else None


def cache_hit_share(view: View) -> float | None:
    """By the server's counters over the window; else by the cached tokens its usage reports."""
    w = view.window
    hits, queries = view.telemetry.server("cache_hits"), view.telemetry.server("cache_queries")
    if hits is not None and queries is not None:
        found, asked = hits.increase(w.start_s, w.end_s), queries.increase(w.start_s, w.end_s)
        return found / asked if found is not None and asked else None
    r = view.requests
    told = view.inside & np.isfinite(r.cached_tokens) & (r.input_tokens > 0)
    if not told.any():
        return None
    return float(r.cached_tokens[told].sum() / r.input_tokens[told].sum())


def energy_j_per_output_token(view: View) -> float | None:
    """Energy of all watched GPUs over the readings inside the window / output tokens between the same."""
    stretch = _energy(view)
    if stretch is None:
        return None
    joules, start_s, end_s = stretch
    tokens = output_tokens_between(view, start_s, end_s)
    return joules / tokens if tokens else None


def power_mean_w(view: View) -> float | None:
    stretch = _energy(view)
    return None if stretch is None else stretch[0] / (stretch[2] - stretch[1])


def _energy(view: View) -> tuple[float, float, float] | None:
    """Joules, from when, to when: the same stretch for every card, inside the window."""
    w, cards = view.window, view.telemetry.gpu("energy_j")
    if not cards or set(cards) != set(view.telemetry.gpus):
        return None
    inside = {i: s.between(w.start_s, w.end_s) for i, s in cards.items()}
    if any(s.t.size < 2 or (np.diff(s.value) < 0).any() for s in inside.values()):
        return None
    shortest = min(float(s.t[-1] - s.t[0]) for s in inside.values())
    told = view.telemetry.gpu("energy_update_period_s")
    period = max([float(s.value.max()) for s in told.values()] or [USUAL_UPDATE_S])
    if shortest < LEAST_UPDATE_PERIODS * period:
        return None
    joules = sum(float((s.value[-1] - s.value[0]) / (s.t[-1] - s.t[0])) for s in inside.values()) * shortest
    start = min(float(s.t[0]) for s in inside.values())
    return joules, start, start + shortest


def _peak(series: Series | None) -> float | None:
    return None if series is None else float(series.value.max())
