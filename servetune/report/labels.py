"""How reports say things: numbers with units, names of metrics and configurations. Text only, no markup."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bench.result import PointResult
from servetune.report.ranking import COST, Candidate
from serving.config import ROLES, ServingConfig, fields_where

_SCALES: dict[str, tuple[str, float]] = {"bytes": ("GiB", 2.0**-30), "share": ("%", 100.0)}
_NAMES = {
    "output_token_throughput_per_s": "output tokens/s",
    "request_throughput_per_s": "requests/s",
    "goodput_per_s": "goodput",
    COST: "cost per million good output tokens",
    "cost_per_million_output_tokens": "cost per million output tokens",
    "cost_per_million_total_tokens": "cost per million tokens, in and out",
    "memory_peak_bytes": "peak memory",
    "energy_j_per_output_token": "energy per output token",
    "ready_s": "time to ready",
}
_UPPER = ("ttft", "ttfo", "tpot", "itl", "icl", "e2e", "kv", "cpu")
_UNIT_ENDINGS = ("_ms", "_s", "_bytes", "_w", "_per_s", "_per")


def title(metric: str) -> str:
    """A metric as a reader says it: `ttft_p99_ms` is `TTFT p99`."""
    if metric in _NAMES:
        return _NAMES[metric]
    name = metric
    for ending in _UNIT_ENDINGS:
        name = name.removesuffix(ending)
    return " ".join(w.upper() if w in _UPPER else w for w in name.split("_"))


def short(metric: str) -> str:
    """The same for the head of a narrow column."""
    brief = {
        COST: "cost per M good tokens",
        "kv_cache_peak_share": "KV cache peak",
        "decode_bandwidth_share": "memory bandwidth in decode",
        "prefill_compute_share": "matrix rate in prefill",
    }
    return brief.get(metric, title(metric))


def unit(of: str, currency: str | None = None) -> str:
    """The unit a number is shown in: bytes as GiB, shares as %, money in its currency."""
    if of == "currency":
        return currency or "currency"
    return _SCALES.get(of, (of, 1.0))[0]


def shown(value: float, of: str) -> float:
    """A value of METRICS in the unit it is shown in."""
    return value * _SCALES.get(of, (of, 1.0))[1]


def number(value: float | None) -> str:
    """Three significant digits, no more than was measured; thousands apart."""
    if value is None:
        return "–"
    if math.isinf(value):
        return "∞"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:#.3g}" if value else "0"


def figure(outcome: PointResult, metric: str, of: str) -> str:
    """One number of a point, or why there is none: `n<662`, or a dash."""
    value = outcome.metrics[metric]
    if value is None and metric in outcome.needed:
        return f"n<{outcome.needed[metric]}"
    return number(None if value is None else shown(value, of))


def candidate_figure(candidate: Candidate, metric: str, of: str) -> str:
    """The median over the repeats, or why there is none."""
    value = candidate.value(metric)
    if value is None:
        return figure(candidate.outcomes[0], metric, of)
    return number(shown(value, of))


def relation(gain: float, better: str) -> str:
    """`costs 38% less than`, `has 1.61× the throughput of`; `gain` above 1 is better."""
    if better == "higher":
        return f"has {number(gain)}× the throughput of"
    change = 1 / gain - 1
    return f"costs {abs(change):.0%} {'less' if change <= 0 else 'more'} than"


BARE = fields_where(lambda role: role.label == "value")
"""Engine and quantization: shown first, and without their names."""


def config_text(config: ServingConfig, names: Sequence[str]) -> str:
    """`vllm w8a8 max_num_seqs=8`: engine and quantization bare, the rest of `names` by name where set."""
    rest = ((n, config.shown(n)) for n in names if n not in BARE)
    named = (f"{n}={value_text(value)}" for n, value in rest if value is not None)
    return " ".join([config.engine, config.quantization, *named])


def value_text(value: object) -> str:
    """A setting's value: on, off, or as it is."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return " ".join(f"{k}={value_text(v)}" for k, v in value.items())
    return str(value)


HIDDEN = fields_where(lambda role: role.tables == "never")
"""They follow from the quantization and say nothing of their own."""


def varying(configs: Sequence[ServingConfig]) -> list[str]:
    """Settings that differ among the configs of one engine, in the order of ServingConfig's fields;
    before them engine, version and device where they differ at all."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for config in configs:
        groups.setdefault(config.engine, []).append(config.model_dump(mode="json"))
    everything = [d for dumps in groups.values() for d in dumps]

    def differs(name: str) -> bool:
        if ROLES[name].kind == "engine":
            return any(d[name] != everything[0][name] for d in everything)
        return any(d[name] != dumps[0][name] for dumps in groups.values() for d in dumps)

    return [name for name in ServingConfig.model_fields if name not in HIDDEN and differs(name)]
