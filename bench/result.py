"""Outcome: one stored point with its numbers, its verdict and its curves; what every report is made of.

Runs are read one after the other and let go, so that a thousand points with all their records never
stand in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from bench.checks import judge
from bench.metrics import METRICS, enough, latency
from bench.metrics.enough import telling
from bench.metrics.statistics import floor
from bench.metrics.view import View
from bench.plan.target import Target, place, recorded
from bench.point import Load
from bench.proof.calibration import Calibration
from bench.records import complaints
from bench.records.complaints import Failed
from bench.records.folder import RunFolder
from bench.records.model import Judgement, Run
from bench.scenario.model import Price, Scenario
from bench.scenario.price import price_for
from bench.scenario.slo import Slo

SloState = Literal["met", "missed", "unknown"]


@dataclass(frozen=True)
class PointResult:
    """`run` is the stored one without its records and samples; `metrics` is METRICS over all of it.

    `needed`: percentiles that are None for want of samples, and how many they need. `lacking`: those that
    cannot be held against a limit, and why: `640 of 662 requests`. `devices`: accelerators that served it,
    None where nobody knows. `failed`: its failed requests by kind; `heard`: what the client noted, such as
    a failing warm-up.
    """

    run: Run
    metrics: Mapping[str, float | None]
    needed: Mapping[str, int]
    judgement: Judgement
    price: Price | None
    slos: tuple[tuple[Slo, SloState], ...]
    curves: Curves
    devices: int | None = None
    failed: tuple[Failed, ...] = ()
    heard: tuple[str, ...] = ()
    lacking: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.run.point.key

    @property
    def currency(self) -> str | None:
        return self.price.currency if self.price else None

    @property
    def slo(self) -> SloState:
        """All SLOs at once: missed if one is, else unknown if one is."""
        states = {state for _, state in self.slos}
        return "missed" if "missed" in states else "unknown" if "unknown" in states else "met"

    def why_unknown(self, slo: Slo) -> str:
        """`undetermined: 640 of 662 requests`; empty for an SLO that is met or missed."""
        if slo_state(slo, self.metrics) != "unknown":
            return ""
        return f"undetermined: {self.lacking.get(slo.name, 'nothing was measured')}"


@dataclass(frozen=True)
class Curves:
    """Shapes of one point for drawing. Empty where there is nothing to draw.

    quantiles   `ttft`, `tpot` or `icl` -> their quantiles at `bench.result.SHARES`, milliseconds
    edges_s     edges of the even bins of the timeline, seconds from the start of the load
    tokens_per_s, in_flight   one value a bin;  window_s: start and end of the steady window
    """

    quantiles: Mapping[str, tuple[float, ...]]
    edges_s: tuple[float, ...] = ()
    tokens_per_s: tuple[float, ...] = ()
    in_flight: tuple[float, ...] = ()
    window_s: tuple[float, float] | None = None


SHARES = (*(i / 40 for i in range(40)), 0.99, 1.0)
BINS = 60


def outcomes(folder: RunFolder, scenario: Scenario) -> Iterator[PointResult]:
    """Every finished point in the order it was finished. BrokenRunError when one cannot be read."""
    keys = dict.fromkeys(event["key"] for event in folder.events() if event["event"] == "point")
    kept = folder.manifest.get("calibration")
    calibration = Calibration.from_json(kept) if kept else None
    where = recorded(folder.manifest, scenario.model)
    for key in keys:
        yield outcome(folder.run(key), scenario, calibration, where)


def outcome(
    run: Run, scenario: Scenario, calibration: Calibration | None = None, where: Target | None = None
) -> PointResult:
    """Metrics, verdict and curves of one run under its scenario's SLOs and price.

    calibration: the client's honest token rate on the machine that measured; points above it are invalid.
    where: that machine and the model, for what is held against physics; None: not known.
    """

    price, slos = price_for(scenario, run.point.config), scenario.slos
    device, shape = place(run.point.config, where or Target(run.point.config.device, None, None))
    known = (device, shape) if device and shape else None
    view = View(run, slos, price, known)
    metrics = {name: metric.of(view) for name, metric in METRICS.items()}
    return PointResult(
        run=replace(run, records=(), samples=()),
        metrics=metrics,
        needed=_needed(view),
        judgement=judge(
            run,
            slos=slos,
            declared_cache_share=declared_cache_share(run.point.load),
            calibration=calibration,
        ),
        price=price,
        slos=tuple((slo, slo_state(slo, metrics)) for slo in slos),
        curves=_curves(view),
        devices=view.devices,
        failed=complaints.of_run(run),
        heard=complaints.heard(run),
        lacking=enough.lacking(view),
    )


def _needed(view: View) -> dict[str, int]:
    """`bench.metrics.needed`, on a view that is already computed."""

    return {
        f"{series}_{name}_ms": floor(q)
        for series in latency.SERIES
        for name, q in latency.STATISTICS.items()
        if q is not None and 0 < latency.values(view, series).size < floor(q)
    }


def slo_state(slo: Slo, metrics: Mapping[str, float | None]) -> SloState:
    """Whether a limit is kept (`bench.metrics.enough.telling`); unknown: too few samples to tell."""

    value = telling(metrics, slo.name, slo.limit)
    return "unknown" if value is None else "met" if value <= slo.limit else "missed"


def declared_cache_share(load: Load) -> float:
    """Share of the prompts that the workload itself repeats; traces and further turns may repeat all."""
    if load.trace is not None or load.turns > 1:
        return 1.0
    return load.shared_prefix_tokens / load.input_tokens


def _curves(view: View) -> Curves:
    import numpy as np

    if not view.run.records:
        return Curves({})
    quantiles = {}
    for series in ("ttft", "tpot", "icl"):
        values = latency.values(view, series)
        if values.size >= 2:
            ranks = np.round(np.array(SHARES) * (values.size - 1)).astype(int)
            quantiles[series] = tuple(float(v) for v in values[ranks])
    ends = view.requests.end[np.isfinite(view.requests.end)]
    end_s = float(max(ends.max(initial=0.0), view.events.t.max(initial=0.0)))
    if end_s <= 0:
        return Curves(quantiles)
    edges = np.linspace(0.0, end_s, BINS + 1)
    weights = np.nan_to_num(view.events.tokens)
    tokens = np.histogram(view.events.t, edges, weights=weights)[0] / (edges[1] - edges[0])
    middles = (edges[1:] + edges[:-1]) / 2
    begun = np.sort(view.requests.sent[np.isfinite(view.requests.sent)])
    flight = np.searchsorted(begun, middles, "right") - np.searchsorted(np.sort(ends), middles, "right")
    window = None if view.window.whole else (view.window.start_s, view.window.end_s)
    return Curves(quantiles, tuple(edges.tolist()), tuple(tokens.tolist()), tuple(flight.tolist()), window)
