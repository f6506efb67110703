"""A server's own metrics: GET /metrics in the Prometheus text format, flattened into samples.

Series keep the server's names: `server:vllm:num_requests_running`. Labels other than `le` are added up
(engines of one server, finish reasons); gauges that are shares are averaged instead. A histogram becomes
`server:NAME_bucket|le=0.1`, `_sum` and `_count`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SHARES = ("_perc", "_percent", "_ratio", "_usage", "_rate", "_utilization", "_fraction")
"""Endings of gauges whose sum over labels would mean nothing."""

_OWN_BUSINESS = ("python_", "process_", "http_", "promhttp_", "go_")
_NO_READING = ("_created", "_info")


class NotExpositionError(Exception):
    """The answer is not in the Prometheus text format; the text says where."""


@dataclass(frozen=True)
class Exposition:
    """`values` by series name without the `server:` prefix; `scalars` names the gauges and counters."""

    values: Mapping[str, float]
    scalars: tuple[str, ...] = ()


def flatten(text: str) -> Exposition:
    """Everything in `text` worth keeping. NotExpositionError when it is something else."""
    from prometheus_client.parser import text_string_to_metric_families

    totals: dict[str, float] = {}
    counts: dict[str, int] = {}
    scalars: dict[str, None] = {}
    shares: set[str] = set()
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                name = sample.name
                if name.startswith(_OWN_BUSINESS) or name.endswith(_NO_READING):
                    continue
                if "quantile" in sample.labels or not math.isfinite(sample.value):
                    continue
                if "le" in sample.labels and not _edge(sample.labels["le"]):
                    raise NotExpositionError(
                        f"{name}: le={sample.labels['le'][:40]!r} is no edge of a bucket"
                    )
                series = f"{name}|le={sample.labels['le']}" if "le" in sample.labels else name
                totals[series] = totals.get(series, 0.0) + sample.value
                counts[series] = counts.get(series, 0) + 1
                if family.type in ("gauge", "counter", "unknown"):
                    scalars[name] = None
                    if family.type != "counter" and name.endswith(SHARES):
                        shares.add(name)
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise NotExpositionError(f"not in the Prometheus text format: {error}") from error
    values = {name: total / counts[name] if name in shares else total for name, total in totals.items()}
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    return Exposition(finite, tuple(scalars))


def _edge(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False


def only(text: str, names: Iterable[str]) -> str:
    """The lines of `text` whose metric is in `names`: a cheap cut before the parser sees it."""
    wanted = frozenset(names)
    return "".join(
        line + "\n"
        for line in text.split("\n")
        if line and line[0] != "#" and line.split("{", 1)[0].split(" ", 1)[0] in wanted
    )
