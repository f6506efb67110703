"""How sure one run is of its own numbers: intervals and errors that take dependence in time into account.

They cover what varies within a run. What varies between launches of the same server only repeats with a
restart can show (`bench.compare.comparison`).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from bench.metrics import METRICS
from bench.metrics.latency import SERIES, STATISTICS
from bench.metrics.ratio import block_interval, relative_error
from bench.metrics.statistics import Array, Interval, effective_size, floor, order_interval, percentile
from bench.metrics.view import View
from bench.records.model import Run

SECTIONS = 16
"""Parts of a window from which the error of a rate is estimated."""
RATES = ("output_token_throughput_per_s", "request_throughput_per_s", "total_token_throughput_per_s")


def intervals(run: Run) -> dict[str, Interval]:
    """95% intervals by metric name, of latency percentiles, means and throughputs that can be printed.

    Percentiles: order statistics at the effective sample size. Means: time-block bootstrap. Rates: the
    spread over sections of the window (sectioning; Asmussen and Glynn 2007, III.5).
    """
    view, out = View(run), {}
    for series in SERIES:
        ordered = SERIES[series](view)
        worth = effective_size(ordered)
        for name, q in STATISTICS.items():
            if q is None:
                found = block_interval(ordered, _mean)
            elif ordered.size >= floor(q):
                found = order_interval(ordered, q, effective=worth)
            else:
                found = None
            if found is not None:
                out[f"{series}_{name}_ms"] = found
    for name in RATES:
        value, error = METRICS[name].of(view), error_within(view, name)
        if value is not None and error is not None:
            half = _t(SECTIONS - 1) * error
            out[name] = Interval(value * np.exp(-half), value * np.exp(half))
    return out


def error_within(view: View, metric: str) -> float | None:
    """Relative standard error of a metric from one run alone; None when it cannot be told.

    Latency percentiles and means: block bootstrap. Everything else: the spread over sections.
    """
    series, _, name = metric.removesuffix("_ms").rpartition("_")
    if series in SERIES and name in STATISTICS:
        q = STATISTICS[name]
        return relative_error(SERIES[series](view), lambda x: _mean(x) if q is None else percentile(x, q))
    if view.window.whole:
        return None
    edges = np.linspace(view.window.start_s, view.window.end_s, SECTIONS + 1)
    parts = [METRICS[metric].of(view.section(start, end)) for start, end in pairwise(edges)]
    known = np.array([part for part in parts if part is not None and np.isfinite(part)])
    if known.size < SECTIONS // 2 or known.mean() == 0:
        return None
    return float(known.std(ddof=1) / abs(known.mean()) / np.sqrt(known.size))


def _mean(values: Array) -> float:
    return float(values.mean())


def _t(degrees: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, degrees))
