"""EngineEvaluator: launches engines. One server a trial; every load runs on it, the short ones first."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bench.accuracy.verdict import certifying, screening
from bench.evaluation import store
from bench.measure import measure, never
from bench.plan import evaluations
from bench.plan.estimate import ready_s
from bench.plan.expand import loads_of
from bench.plan.feasibility import fits
from bench.plan.planning import Launch, Plan
from bench.plan.target import Target
from bench.point import Load, Point, seed_of
from bench.records.folder import RunFolder
from bench.records.model import Run
from bench.scenario.price import price_for
from search import unasked
from search.configs import config_of
from search.evaluator import Certificate, Promote
from search.feasible import Feasible
from search.finals import certify, expected, stress
from search.longer import Longer, for_goal, short
from search.objective import Goal, accuracy_violation, judged, measured
from search.result import Fidelity, Settings, TrialResult, key_of
from search.space import Space
from search.timed import Timed
from serving import devices
from serving.config import ServingConfig
from serving.errors import UserError

if TYPE_CHECKING:
    from bench.scenario.model import Scenario


@dataclass
class EngineEvaluator:
    """Launches for one scenario into one folder."""

    scenario: Scenario
    folder: RunFolder
    target: Target
    goal: Goal
    timed: Timed
    first_launch: int = 1
    feasible: Feasible = field(init=False)
    confirmed: Counter[str] = field(default_factory=Counter, init=False)
    """By `key_of`: rounds that are over. A round's draws are common to all who are measured in it."""

    def __post_init__(self) -> None:
        self.feasible = Feasible(self.target)
        self.baseline = self.config(Space.of(self.scenario).default())

    def config(self, settings: Settings) -> ServingConfig:
        """What would be launched."""
        return config_of(self.scenario, self.target, settings)

    def recall(self, history: Sequence[TrialResult]) -> None:
        """Learns again from every launch that the folder and the study's log hold, after a resume."""
        by_launch: dict[str, list[Run]] = {}
        for run in self.folder.runs():
            by_launch.setdefault(run.launch, []).append(run)
        for runs in by_launch.values():
            self.feasible.learn(runs[0].point.config, runs, None)
        self.confirmed = Counter(key_of(one.config) for one in history if one.fidelity == "confirm")
        for one in history:
            rate = self._tokens_per_s(one)
            if rate is not None and one.fidelity != "screen":
                self.feasible.reach(self.config(one.config), self.loads(), rate)

    def learn(self, outcome: TrialResult) -> None:
        """From a look that another machine took, once its points are in the folder."""
        runs = [self.folder.run(key) for key in outcome.points]
        if runs:
            self.feasible.learn(self.config(outcome.config), runs, self._tokens_per_s(outcome))

    def loads(self) -> list[Load]:
        return [load for work in self.scenario.workloads for load in loads_of(work)]

    def refusal(self, settings: Settings, incumbent: TrialResult | None) -> TrialResult | None:
        """The outcome of a configuration that is of no use to launch; None: launch it."""
        config = self.config(settings)
        unable = unasked.refusal(self.scenario, config.engine)
        if unable is not None:
            return TrialResult(settings, "screen", None, failure="refused", detail=unable)
        needed = (
            None if incumbent is None or incumbent.value is None else self._needed(config, incumbent.value)
        )
        found = self.feasible.refusal(config, self.loads(), needed)
        return found and TrialResult(settings, "screen", None, failure=found[0], detail=found[1])

    def confirm(self, settings: Settings) -> TrialResult:
        """The full load on a launch of its own, under the draws of its round, held-out items included."""
        self.confirmed[key_of(settings)] += 1
        repeat, config = self.confirmed[key_of(settings)], self.config(settings)
        points = [
            Point(config, load, seed_of(load, self.scenario.seed, repeat), repeat) for load in self.loads()
        ]
        return self._measure(settings, config, "confirm", points)

    def evaluate(self, settings: Settings, promote: Promote) -> list[TrialResult]:
        """The short load and, where `promote` says so of it, the full one, on the same server.

        Points that the folder holds already are not measured again.
        """
        config, seed = self.config(settings), self.scenario.seed
        full = [Point(config, load, seed) for load in self.loads()]
        if self.scenario.search.screen_share >= 1:
            return [self._measure(settings, config, "full", full)]
        short = [Point(config, self._short(load), seed) for load in self.loads()]
        screened: list[TrialResult] = []
        promoted: list[bool] = []

        def should_stop() -> bool:
            if not screened and all(p.key in self.timed.done for p in short):
                screened.append(self._judge(settings, config, "screen", short, None))
                promoted.append(promote(screened[0]))
            return promoted == [False]

        found = self._measure(settings, config, "full", [*short, *full], full, should_stop)
        if not screened:
            return [found]
        if not promoted[0]:
            return [replace(screened[0], seconds=found.seconds)]
        return [screened[0], found]

    def _short(self, load: Load) -> Load:
        return short(load, self.scenario.search.screen_share, for_goal(self.goal))

    def stress(self, settings: Settings, like: TrialResult) -> dict[str, TrialResult]:
        """Every condition of `search.finals.stress` on one launch; the seconds stand with the first."""
        config, asked = self.config(settings), self._conditions(settings, like)
        if not asked:
            return {}
        seconds = self._launch(config, [p for points in asked.values() for p in points], "stress")
        found = {}
        for name, points in asked.items():
            found[name] = self._judge(settings, config, "stress", points, seconds)
            seconds = {}
        if stress.SOAK in found:
            found[stress.SOAK] = self._soaked(found[stress.SOAK])
        return found

    def certificate_s(self, full: TrialResult) -> float:
        """Device seconds that a finalist's held-out items are expected to take."""
        launch = Launch("finals", self.config(full.config), tuple(self._measured(full)))
        screening, held_out = (self.plan(launch, kind).evaluations for kind in ("full", "confirm"))
        return expected.certificate_s(full, screening, held_out)

    def stress_s(self, full: TrialResult) -> float:
        """Device seconds that one launch on other loads is expected to take."""
        asked = self._conditions(full.config, full)
        return expected.stress_s(full, asked, len(self.loads()), self.scenario.search.screen_share)

    def _conditions(self, settings: Settings, like: TrialResult) -> dict[str, tuple[Point, ...]]:
        return expected.conditions(self.scenario, self.target, self.config(settings), self._measured(like))

    def _measured(self, outcome: TrialResult) -> list[Point]:
        return [self.folder.run(key).point for key in outcome.points]

    def _soaked(self, outcome: TrialResult) -> TrialResult:
        """Growth, drift and errors over the soak, as promises beside the others."""
        from bench.soak import judged as soaked

        runs = [self.folder.run(key) for key in outcome.points]
        claims = [claim for run in runs for claim in soaked(run.records, run.samples)]
        missed = {claim.name: float(claim.verdict == "FAIL") for claim in claims}
        unsettled = ", ".join(
            dict.fromkeys(claim.name for claim in claims if claim.verdict == "INCONCLUSIVE")
        )
        detail = outcome.detail or (unsettled and f"not settled: {unsettled}")
        return replace(outcome, violations={**outcome.violations, **missed}, detail=detail)

    def _measure(
        self,
        settings: Settings,
        config: ServingConfig,
        fidelity: Fidelity,
        points: Sequence[Point],
        judge: Sequence[Point] = (),
        should_stop: Callable[[], bool] = never,
    ) -> TrialResult:
        """One launch and its result. `judge`: the points that tell it, where those are not all."""
        more = {point.key: 0 for point in judge or points} if fidelity in ("full", "confirm") else {}
        try:
            seconds = self._launch(config, points, fidelity, more, should_stop)
        except unasked.Unplanned as error:
            return TrialResult(settings, fidelity, None, failure="refused", detail=str(error))
        outcome = self._judge(settings, config, fidelity, judge or points, seconds)
        runs = list(self.timed.done.values())
        if runs:
            self.feasible.learn(config, runs, self._tokens_per_s(outcome))
        return outcome

    def _launch(
        self,
        config: ServingConfig,
        points: Sequence[Point],
        fidelity: Fidelity,
        more: dict[str, int] | None = None,
        should_stop: Callable[[], bool] = never,
    ) -> dict[str, float]:
        """Seconds by phase of one server and its points. `more`: those whose load is made longer where a
        promise needs it -> how often it was."""
        longer = Longer(self.scenario, self.goal, more or {})
        held = self.folder.done()
        # A look that was interrupted between a point and its longer one goes on with that.
        last = [longer.last(point, held, self.folder.run) for point in points]
        points = [*points, *(one for one in last if one not in points)]
        number = sum(event["event"] == "launch" for event in self.folder.events()) + self.first_launch
        launch = Launch(f"{number:04d}-{config.key}", config, tuple(points))
        plan = replace(self.plan(launch, fidelity), more=longer)
        self.timed.begin({p.key for p in points} & self.folder.done(), self.folder)
        began = time.monotonic()
        measure(plan, self.folder, self.timed, should_stop)
        return self.timed.seconds(time.monotonic() - began)

    def _judge(
        self, settings: Settings, config: ServingConfig, fidelity: Fidelity, points: Sequence[Point],
        seconds: Mapping[str, float] | None,
    ) -> TrialResult:  # fmt: skip
        done = self.folder.done()
        if fidelity in ("full", "confirm"):
            longer = Longer(self.scenario, self.goal, {point.key: 0 for point in points})
            last = [longer.last(point, done, self.folder.run) for point in points]
            points = [new if new.key in done else old for old, new in zip(points, last, strict=True)]
        keys = [p.key for p in points if p.key in done]
        if not keys:
            return TrialResult(settings, fidelity, None, seconds=seconds or {}, failure="not_measured")
        floor: float | str | None = None
        if fidelity in ("full", "confirm"):
            floor = accuracy_violation(self.folder, self.scenario, config.key, self.baseline.key)
        found = measured(self.folder, self.scenario, keys)
        return judged(self.scenario, self.goal, settings, fidelity, found, seconds or {}, floor)

    def plan(self, launch: Launch, fidelity: Fidelity) -> Plan:
        memory = {launch.config.key: fits(launch.config, self.target)}
        estimated = ready_s(launch.config, self.target)
        bare = Plan(self.scenario, self.target.device, (launch,), (), memory, estimated)
        if self.scenario.accuracy is None or fidelity in ("screen", "stress"):
            return bare
        rules = (screening if fidelity == "full" else certifying)(self.scenario.accuracy)
        scenario = self.scenario.model_copy(update={"accuracy": rules})
        try:
            asked, refused = evaluations.evaluations(scenario, [launch], self.baseline, self.target)
        except UserError as error:
            raise unasked.Unplanned(error.message) from error
        if fidelity == "confirm":
            asked = certify.asked(asked, shares=store.shares(self.folder, launch.config.key))
        return replace(
            bare,
            scenario=scenario,
            baseline=self.baseline.key,
            evaluations=tuple(asked),
            not_asked=tuple(refused),
        )

    def certificates(self, finalists: Sequence[Settings]) -> dict[str, Certificate]:
        """By `key_of`: what the held-out answers say of each; empty where the scenario has no floor."""
        if self.scenario.accuracy is None:
            return {}
        keys = {self.config(settings).key: key_of(settings) for settings in finalists}
        found = certify.certificates(
            self.folder, self.scenario, [key for key in keys if key != self.baseline.key], self.baseline.key
        )
        return {keys[key]: one for key, one in found.items()}

    def answers_like(self, one: Settings, other: Settings) -> bool:
        """Whether the two differ only in settings that cannot change an output."""
        return certify.alike(self.config(one).settings) == certify.alike(self.config(other).settings)

    def _needed(self, config: ServingConfig, value: float) -> float | None:
        """Output tokens per second that this config must make to be as good as `value`; None: not told."""
        price = price_for(self.scenario, config)
        if (
            self.goal.metric.startswith("cost_per_million")
            and "total" not in self.goal.metric
            and price
            and value > 0
        ):
            hour = price.per_hour_of(devices.count(config))
            return None if hour is None else hour / 3600 * 1e6 / value
        sizes = {load.output_tokens for load in self.loads()}
        if self.goal.metric == "goodput_per_s" and len(sizes) == 1:
            return value * sizes.pop()
        return value if self.goal.metric == "output_token_throughput_per_s" else None

    def _tokens_per_s(self, outcome: TrialResult) -> float | None:
        if outcome.value is None:
            return None
        return self._needed(self.config(outcome.config), outcome.value)
