"""A Run ready to be measured: its records as arrays, its window, its telemetry."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

from bench.metrics.buffered import Buffered, buffered
from bench.metrics.columns import Events, Mask, Requests
from bench.metrics.statistics import Array
from bench.metrics.window import Window, find
from bench.records.model import Record, Run
from bench.scenario.model import Price
from bench.scenario.slo import Slo
from bench.telemetry.series import TelemetrySeries
from serving import devices
from serving.costmodel.hardware import Hardware
from serving.costmodel.shapes import Shape


@dataclass(frozen=True)
class View:
    """What metrics and checks are functions of.

    place: device and model of the run, for what is held against physics; None: not known
    """

    run: Run
    slos: tuple[Slo, ...] = ()
    price: Price | None = None
    place: tuple[Hardware, Shape] | None = None
    cache: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)

    @property
    def streams(self) -> bool:
        """Whether answers came as streams: without one there is no first token to time."""
        return self.run.point.load.stream

    @cached_property
    def devices(self) -> int | None:
        """Accelerators that are paid for: those its config takes, and more where more were seen in use (an
        engine that spreads by itself). Fewer may be seen: other machines are not. None: not known."""
        asked, seen = devices.count(self.run.point.config), len(self.telemetry.gpu("memory_bytes"))
        return max(asked or 0, seen) or None

    @cached_property
    def records(self) -> tuple[Record, ...]:
        return tuple(sorted(self.run.records, key=lambda r: r.planned_s))

    @cached_property
    def requests(self) -> Requests:
        return Requests.of(self.records)

    @cached_property
    def events(self) -> Events:
        return Events.of(self.records, self.requests)

    @cached_property
    def telemetry(self) -> TelemetrySeries:
        return TelemetrySeries.of(self.run.samples)

    @cached_property
    def window(self) -> Window:
        closed = self.run.point.load.arrivals == "closed"
        return find(self.requests, self.events, self.telemetry, self.run.load_end_s, closed=closed)

    @cached_property
    def inside(self) -> Mask:
        """Requests that belong to the window: due in it, wherever they end."""
        window, planned = self.window, self.requests.planned
        return (planned >= window.start_s) & (planned <= window.end_s)

    @cached_property
    def arrival(self) -> Buffered:
        """How the output of the window's requests came: as it was made, or through a buffer."""
        return buffered(self.requests, self.events, self.inside, streams=self.streams)

    @property
    def buffered(self) -> bool:
        """Whether the output came through a buffer, so that its pace is not the engine's."""
        return self.arrival.withheld

    def section(self, start_s: float, end_s: float) -> Self:
        """The same run seen through another window."""
        shared = {"records": self.records, "requests": self.requests, "events": self.events}
        part = replace(self, cache={})
        part.__dict__.update(shared, telemetry=self.telemetry, window=Window(start_s, end_s))
        return part
