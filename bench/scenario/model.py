"""Scenario: what one YAML file says to run (`bench.scenario.scenariofile.load` reads and checks it).

Grid axes are fields of ServingConfig; workload axes are input_tokens, output_tokens, concurrency and
rate_per_s. Every axis may be a single value or a list.
"""

from __future__ import annotations

import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from bench.accuracy.settings import Accuracy, Seconds
from bench.point import Arrivals
from bench.scenario.slo import Slo
from bench.scenario.slo import parse as parse_slo
from serving.config import PositiveInt


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


Ints = Annotated[tuple[PositiveInt, ...], BeforeValidator(lambda v: tuple(_as_list(v))), Field(min_length=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Floats = Annotated[
    tuple[PositiveFloat, ...],
    BeforeValidator(lambda v: tuple(_as_list(v))),
    Field(min_length=1),
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Model(_Part):
    """The weights. `path` is a folder of safetensors or a hub id (then with `revision`)."""

    name: str
    path: str
    revision: str | None = None
    tokenizer: Annotated[str | None, Field(description="folder or hub id; none: words instead of tokens")] = (
        None
    )
    checkpoints: Annotated[
        dict[str, str], Field(description="quantization -> folder of a checkpoint already quantized so")
    ] = {}
    shape: Annotated[
        str | None, Field(description="name in serving.costmodel.shapes, when no config.json is at hand")
    ] = None
    note: str = ""


class Price(_Part):
    """What an hour of the device costs; each figure with its source and date."""

    per_hour: Annotated[float, Field(ge=0)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    source: Annotated[str, Field(min_length=1)]
    date: datetime.date
    per: Literal["gpu", "machine"] = "machine"

    def per_hour_of(self, devices: int | None) -> float | None:
        """What a server of so many devices costs an hour; None where their number is needed and not known."""
        if self.per == "machine":
            return self.per_hour
        return None if devices is None else self.per_hour * devices


class Range(_Part):
    """Every number from `low` to `high`; `log`: by factors. `default`: the engine's own."""

    low: float
    high: float
    log: bool = False
    step: PositiveFloat | None = None
    default: float | None = None

    @model_validator(mode="after")
    def _a_range(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low below high; found {self.low:g} and {self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log goes with low above 0 and without step")
        return self


class EngineGrid(_Part):
    """One engine with fixed `settings` and the `grid` of settings to vary; `space`: more, for a search."""

    engine: str
    version: str | None = None
    optional: Annotated[bool, Field(description="go on without it when it is not installed")] = False
    settings: dict[str, Any] = {}
    grid: dict[str, Annotated[list[Any], BeforeValidator(_as_list)]] = {}
    space: dict[str, Range | list[Any]] = {}
    price: Price | None = None


class GridRule(_Part):
    """Drops every combination that matches all of `drop`: key -> value, list, or comparison.

    A comparison is a text such as "> 8" or "< concurrency" (another key of the combination).
    """

    drop: Annotated[dict[str, Any], Field(min_length=1)]
    because: Annotated[str, Field(min_length=1)]


class Workload(_Part):
    """What the client sends: sizes in tokens and the load shape (see `bench.point.Load`)."""

    name: str
    input_tokens: Ints = (128,)
    output_tokens: Ints = (64,)
    concurrency: Ints | None = None
    rate_per_s: Floats | None = None
    arrivals: Arrivals | None = None
    cv: PositiveFloat | None = None
    ramp_to_per_s: PositiveFloat | None = None
    burst_size: PositiveInt | None = None
    trace: str | None = None
    requests: PositiveInt | None = None
    duration_s: Seconds | None = None
    warmup_requests: Annotated[int, Field(ge=0)] = 2
    shared_prefix_tokens: Annotated[int, Field(ge=0)] = 0
    turns: PositiveInt = 1
    endpoint: Literal["completions", "chat"] = "completions"
    stream: bool = True
    temperature: Annotated[float, Field(ge=0)] = 0.0
    request_timeout_s: Seconds = 120.0
    silence_timeout_s: Seconds = 60.0

    @property
    def process(self) -> Arrivals:
        """The arrival process: as given, or what the other keys imply."""
        if self.arrivals:
            return self.arrivals
        return "trace" if self.trace else "closed" if self.concurrency else "poisson"

    @model_validator(mode="after")
    def _one_load_shape(self) -> Workload:
        given = [k for k in ("concurrency", "rate_per_s", "trace") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of concurrency, rate_per_s, trace; found {given or 'none'}")
        if (self.process == "closed") != (given == ["concurrency"]):
            raise ValueError(f"arrivals {self.process} does not go with {given[0]}")
        if self.requests is None and self.duration_s is None and self.trace is None:
            raise ValueError("requests or duration_s, so that the load ends")
        for process, key in (("gamma", "cv"), ("ramp", "ramp_to_per_s"), ("burst", "burst_size")):
            if (self.process == process) != (getattr(self, key) is not None):
                raise ValueError(f"{key} goes with arrivals {process} and is needed there")
        if self.shared_prefix_tokens >= min(self.input_tokens):
            raise ValueError("shared_prefix_tokens below the smallest input_tokens")
        return self


class Repeats(_Part):
    """How often each point is measured. With `restart`, each repeat has launches of its own."""

    count: PositiveInt = 1
    restart: bool = False


class Telemetry(_Part):
    interval_s: Seconds = 0.5
    server_metrics: bool = True


class Limits(_Part):
    """How long to wait before a silence is a failure."""

    ready_s: Seconds = 600.0
    stop_s: Seconds = 30.0


Goals = Annotated[
    tuple[Annotated[str, Field(pattern="^(minimize|maximize) [a-z0-9_]+$")], ...],
    BeforeValidator(lambda v: tuple(_as_list(v))),
    Field(min_length=1),
]


class Search(_Part):
    """What `servetune search` is to find, and what it may spend.

    goal       `minimize usd_per_million_good_tokens`, `maximize goodput_per_s`; several: a Pareto front
    limits     metric -> the most it may be, beside the SLOs: {memory_peak_bytes: 8e9}
    budget_s, trials, budget_usd   whichever is reached first ends it
    screen_share   of the load that a first, short look gets; 1: no short looks
    finalists  how many are measured again;  worthwhile  the least gain, as a share, worth looking for
    rounds     how often they are, at most; time and money are kept back for three, or for as many as named
    robust     try the winner on other loads, lengths and prompts;  holdout  and on these workloads
    soak_s     and for this long on its own load
    """

    goal: Goals = ("minimize usd_per_million_good_tokens",)
    limits: dict[str, float] = {}
    sampler: str = "surrogate"
    budget_s: Seconds | None = None
    budget_usd: PositiveFloat | None = None
    trials: PositiveInt | None = None
    screen_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    finalists: PositiveInt = 4
    worthwhile: Annotated[float, Field(ge=0, lt=1)] = 0.01
    rounds: Annotated[int, Field(ge=3)] = 6
    robust: bool = True
    holdout: tuple[Workload, ...] = ()
    soak_s: Seconds | None = None


class Scenario(_Part):
    """The whole file. `sha256` is of its bytes with secrets masked, `file` where it was read."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$")]
    question: Annotated[str, Field(min_length=1, description="what this run is to answer")]
    model: Model
    device: Literal["auto", "cpu", "cuda"] = "auto"
    engines: Annotated[tuple[EngineGrid, ...], Field(min_length=1)]
    rules: tuple[GridRule, ...] = ()
    workloads: Annotated[tuple[Workload, ...], Field(min_length=1)]
    repeats: Annotated[Repeats, BeforeValidator(lambda v: {"count": v} if isinstance(v, int) else v)] = (
        Repeats()
    )
    slos: tuple[Annotated[Slo, BeforeValidator(parse_slo)], ...] = ()
    price: Price | None = None
    accuracy: Accuracy | None = None
    search: Search = Search()
    telemetry: Telemetry = Telemetry()
    limits: Limits = Limits()
    seed: Annotated[int, Field(ge=0)] = 0
    file: Annotated[Path, Field(exclude=True)] = Path()
    sha256: str = ""

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """Names that vary anywhere in this scenario, in order of appearance."""
        seen: dict[str, None] = {}
        if len(self.engines) > 1:
            seen["engine"] = None
        for part in self.engines:
            seen.update(dict.fromkeys(k for k, v in part.grid.items() if len(v) > 1))
        if len(self.workloads) > 1:
            seen["workload"] = None
        for work in self.workloads:
            for key in ("input_tokens", "output_tokens", "concurrency", "rate_per_s"):
                if len(getattr(work, key) or ()) > 1:
                    seen[key] = None
        return tuple(seen)
