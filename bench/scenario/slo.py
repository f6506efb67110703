"""Service level objectives, written `ttft:p99<=500ms` or `error_rate<=1%`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from serving.units import SECONDS, seconds

LatencyName = Literal["ttft", "ttfo", "tpot", "e2e", "icl"]
LATENCIES: tuple[LatencyName, ...] = ("ttft", "ttfo", "tpot", "e2e", "icl")
STATISTICS = ("p50", "p90", "p95", "p99", "mean")
_SLO = re.compile(r"\s*([a-z0-9_]+)(?::([a-z0-9]+))?\s*<=\s*(\S+)\s*")


@dataclass(frozen=True, slots=True)
class Slo:
    """One upper limit. `metric` is a latency with a `statistic`, or `error_rate` without one.

    `limit` is in milliseconds for latencies and a share (0 to 1) for `error_rate`.
    """

    metric: str
    statistic: str | None
    limit: float

    def __str__(self) -> str:
        if self.statistic is None:
            return f"{self.metric}<={self.limit * 100:g}%"
        return f"{self.metric}:{self.statistic}<={self.limit:g}ms"

    @property
    def name(self) -> str:
        """The metric this limits, as `bench.metrics` names it: `ttft_p99_ms`, `error_rate`."""
        return self.metric if self.statistic is None else f"{self.metric}_{self.statistic}_ms"


def parse(text: str) -> Slo:
    """An Slo from its text. ValueError says what is allowed, with an example."""
    match = _SLO.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"an SLO like ttft:p99<=500ms or error_rate<=1%, not {text!r}")
    metric, statistic, limit = match[1], match[2], match[3]
    if metric == "error_rate":
        if statistic is not None or not re.fullmatch(r"[0-9.]+%?", limit):
            raise ValueError(f"error_rate<=1% (a share, no percentile), not {text!r}")
        share = float(limit.rstrip("%")) / (100 if limit.endswith("%") else 1)
        if not 0 <= share <= 1:
            raise ValueError(f"an error rate from 0% to 100%, not {text!r}")
        return Slo(metric, None, share)
    if metric not in LATENCIES:
        raise ValueError(f"a metric of {', '.join(LATENCIES)}, error_rate, not {metric!r}")
    if statistic not in STATISTICS:
        raise ValueError(f"a statistic of {', '.join(STATISTICS)} after {metric}:, not {statistic!r}")
    if not re.search(f"({'|'.join(SECONDS)})$", limit):
        raise ValueError(f"a limit with its unit ({', '.join(SECONDS)}), not {limit!r}")
    return Slo(metric, statistic, seconds(limit) * 1000)
