"""Requests above a limit, from a histogram that may have no bound there.

vLLM takes bounds of one's own from 0.32 on; an earlier server has its own bounds only, and `le="<limit>"` is
then no series at all: an alert on it never fires. What is counted instead is said in the files.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from servetune.deploy.exporters.deployment import Deployment, ExportedSlo
from servetune.deploy.exporters.vllm import FAMILIES, buckets
from servetune.deploy.quoting import bound

JUST_ABOVE = 1.01


@dataclass(frozen=True)
class Count:
    """Bounds in seconds at which requests above `limit_s` are counted; the limit itself where it is one.

    `high_s` None: only at `low_s`. `low_s` None: the limit is below the first bound.
    """

    limit_s: float
    low_s: float | None
    high_s: float | None

    @property
    def note(self) -> str:
        """For a reader of the file; empty where the limit is a bound. Numbers only, no text of a spec."""
        if self.low_s == self.limit_s:
            return ""
        why = f"; vLLM has no bucket at {self.limit_s:g} s: counted above "
        if self.high_s is None:
            return f"{why}the next lower one, {self.low_s:g} s"
        every = f"above {self.low_s:g} s" if self.low_s is not None else "all"
        return f"{why}{self.high_s:g} s, and {every} while the mean is above the limit"


def bounds(deployment: Deployment, slo: ExportedSlo) -> tuple[float, ...]:
    """Upper bounds of the histogram that the deployed server has, without +Inf."""
    family, default = FAMILIES[slo.metric]
    return tuple(buckets(deployment).get(family, default))


def count(deployment: Deployment, slo: ExportedSlo, limit_s: float) -> Count:
    """At which bounds to count. The next lower one sees every request above the limit, and stays quiet as
    long as what was measured is below it too. Where it is not, the histogram cannot tell a good request from
    a slow one in that bucket, and the mean decides: above the limit when all are, below it when none is."""
    known = bounds(deployment, slo)
    at = bisect_left(known, limit_s)
    if at < len(known) and known[at] == limit_s:
        return Count(limit_s, limit_s, None)
    low, high = known[at - 1] if at else None, known[at] if at < len(known) else None
    healthy = slo.high_s if slo.high_s is not None else slo.measured_s
    quiet_at_low = low is not None and healthy is not None and healthy <= low
    return Count(limit_s, low, None if quiet_at_low else high)


def slow_share(counted: Count, series: str, own: str, window: str, function: str = "rate") -> str:
    """PromQL: share of the requests above the limit. `own` is a selector without its closing brace.

    Without a sum, which every vLLM exports, the lower bound counts alone.
    """

    def total(what: str, more: str = "") -> str:
        return f"sum({function}({series}_{what}{own}{more}}}[{window}]))"

    def above(at_s: float | None) -> str:
        fast = total("bucket", f',le="{bound(at_s)}"') if at_s is not None else f"0 * {total('count')}"
        return f"(1 - {fast} / {total('count')})"

    if counted.high_s is None:
        return above(counted.low_s)
    mean = f"{total('sum')} / {total('count')}"
    return f"(({above(counted.low_s)} unless {mean} <= {counted.limit_s:.6g}) or {above(counted.high_s)})"


def observed(
    deployment: Deployment, slo: ExportedSlo, labels: str, value_s: float, rate: float, n: int
) -> list[tuple[str, str]]:
    """Input series for promtool: `rate` requests a minute that each take `value_s`, in all buckets the server
    has, for `n` minutes. `labels` is a selector without its closing brace."""
    flows = [
        (f'_bucket{labels},le="{bound(b)}"}}', rate if value_s <= b else 0.0) for b in bounds(deployment, slo)
    ]
    flows += [(f'_bucket{labels},le="+Inf"}}', rate), (f"_count{labels}}}", rate)]
    flows.append((f"_sum{labels}}}", rate * value_s))
    return [(slo.series + name, f"0+{flow:.6g}x{n}") for name, flow in flows]
