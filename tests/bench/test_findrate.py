"""The search for the capacity, on servers whose capacity is known, and on servers that lie."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench.findrate.capacity import RateProbe, as_json
from bench.findrate.drive import Driver, capacity_of, start_rate
from bench.findrate.find import find_rate
from bench.findrate.rates import RateStanding, bracket, capacity_estimate, contradiction, next_rate
from bench.point import Load
from bench.records.model import Judgement, Reason, RequestError, Run
from bench.records.study import finite
from bench.scenario.slo import parse
from servetune.report import rate_table
from serving.config import ServingConfig
from serving.engine import Endpoint
from serving.errors import Failure, FailureKind, UserError
from tests.support.synthetic import point, record

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import findrate_servers as servers
import findrate_simulation as simulation

P99 = parse("ttft:p99<=500ms")


@pytest.fixture(scope="module")
def searches() -> list[simulation.Outcome]:
    """Ten searches for a capacity of 40/s at which requests are slow by chance alone."""
    return [simulation.search(servers.model("independent"), seed) for seed in range(10)]


def test_the_interval_holds_the_capacity(searches: list[simulation.Outcome]) -> None:
    ends = [one.found.interval for one in searches]
    assert sum((low or 0) <= 40.0 <= (high or math.inf) for low, high in ends) >= 9
    narrow = [one.found.interval for one in searches if one.found.verdict == "ok"]
    assert len(narrow) >= 8, "1800 s are enough for most"
    assert all(low and high and high / low <= 1.0501 for low, high in narrow)
    assert all(one.found.rate_per_s == one.found.interval[0] for one in searches)


def test_wrong_decisions_are_rare(searches: list[simulation.Outcome]) -> None:
    assert sum(one.wrong_meets + one.wrong_breaks for one in searches) <= 2


def test_the_estimate_is_inside_and_near(searches: list[simulation.Outcome]) -> None:
    off = [abs((one.found.estimate_per_s or 0) / 40.0 - 1) for one in searches]
    assert float(np.median(off)) < 0.02


def test_hopeless_rates_cost_little_and_no_rate_is_tested_twice(searches: list[simulation.Outcome]) -> None:
    for one in searches:
        rates = [probe.rate_per_s for probe in one.found.probes]
        assert len(set(rates)) == len(rates)
        far = [probe for probe in one.found.probes if probe.rate_per_s > 45]
        assert all(probe.decision == "breaks" and probe.requests < 500 for probe in far)


def test_a_queue_near_its_capacity() -> None:
    chosen = servers.model("mmc-p90")
    one = simulation.search(chosen, 1, max_s=1200.0)
    low, high = one.found.interval
    assert low is not None
    assert high is not None
    assert low <= chosen.capacity <= high
    assert high / low < 1.6


def test_the_simulated_queue_is_erlangs() -> None:
    """The truth that everything here is held against, by the other way: a long simulation."""
    serve = servers.mmc(8, 0.2)
    rng = np.random.default_rng(0)
    rate = servers.mmc_capacity(8, 0.2, 0.05, 0.10)
    due = np.cumsum(rng.exponential(1 / rate, 150_000))
    waits = serve(due, rng, rate)[0] - due
    assert float((waits > 0.05).mean()) == pytest.approx(0.10, rel=0.1)


def on(serve: servers.Serve, **options: object) -> tuple[Callable[..., object], simulation.Clock]:
    clock = simulation.Clock()
    return simulation.simulated(serve, clock, 0), clock


def run_search(measure: Callable[[float, float, int], Run], clock: simulation.Clock, **options: object):  # type: ignore[no-untyped-def]
    given = {
        "slos": [P99], "start_rate_per_s": 30.0, "max_s": 900.0, "clock": clock, "trust": simulation.believe,
    }  # fmt: skip
    return find_rate(measure, **{**given, **options})  # type: ignore[arg-type]


STEEP = servers.independent(40.0, 0.01, 0.5, 60)


def test_the_search_starts_anywhere() -> None:
    for start in (4.0, 400.0):
        measure, clock = on(STEEP)
        found = run_search(measure, clock, start_rate_per_s=start, max_s=2400.0, resolution=0.1)
        assert found.interval[0] <= 40.0 <= found.interval[1]


def test_seeds_differ_and_what_was_measured_is_kept() -> None:
    measure, clock = on(STEEP)
    seen: list[tuple[float, int]] = []

    def noting(rate: float, duration_s: float, seed: int) -> Run:
        seen.append((rate, seed))
        return measure(rate, duration_s, seed)

    probes: list[RateProbe] = []
    found = run_search(noting, clock, watch=probes.append, seed=100)
    assert len({seed for _, seed in seen}) == len(seen) > 5
    assert min(seed for _, seed in seen) > 100
    assert len(probes) == len(seen) == sum(p.stretches for p in found.probes)
    again = [p.requests for p in probes if p.rate_per_s == found.rate_per_s]
    assert again == sorted(again), "requests of a rate only add up"
    assert len(again) > 1


def test_time_is_kept_and_an_open_interval_is_suspect() -> None:
    measure, clock = on(STEEP)
    found = run_search(measure, clock, max_s=40.0)
    assert found.verdict in ("suspect", "invalid")
    assert any("time is spent" in reason for reason in found.reasons)
    assert found.total_s < 60


def test_no_rate_meets_when_requests_alone_break() -> None:
    def slow(due: np.ndarray, rng: np.random.Generator, rate: float) -> tuple[np.ndarray, np.ndarray]:
        return due + 0.6, due + 0.7

    measure, clock = on(slow)
    found = run_search(measure, clock, start_rate_per_s=2.0, max_s=3600.0)
    assert found.rate_per_s == 0.0
    assert found.interval[0] == 0.0
    assert any("alone" in reason for reason in found.reasons)


def test_overload_is_left_early() -> None:
    """One server of 10/s offered 30/s: the first stretch shows that the queue only grows."""
    measure, clock = on(servers.mmc(1, 0.1))
    found = run_search(measure, clock, slos=[parse("ttft:p50<=200ms")], max_s=120.0)
    first = next(p for p in found.probes if p.rate_per_s == 30.0)
    assert first.decision == "breaks"
    assert first.overloaded
    assert first.requests <= 150


def test_the_client_is_the_limit() -> None:
    measure, clock = on(servers.independent(400.0, 0.01, 0.5, 60))

    def bound(run: Run) -> Judgement:
        if (run.point.load.rate_per_s or 0) < 60:
            return Judgement("ok")
        return Judgement("invalid", (Reason("client_cpu", "invalid", "a core is full", "add --workers"),))

    found = run_search(measure, clock, trust=bound, max_s=2000.0)
    low, high = found.interval
    assert high is None, "a late client is no evidence against the server"
    assert low is not None
    assert low < 60
    assert found.verdict == "suspect"
    assert any("the client is the limit" in reason and "--workers" in reason for reason in found.reasons)


def test_an_invalid_measurement_is_no_evidence() -> None:
    measure, clock = on(STEEP)
    reason = Reason("foreign_requests", "invalid", "others use it", "wait")
    found = run_search(measure, clock, trust=lambda run: Judgement("invalid", (reason,)))
    assert found.verdict == "invalid"
    assert found.probes == ()
    assert any("others use it" in text for text in found.reasons)


def test_an_overloaded_server_is_evidence_though_its_latencies_are_no_measurement() -> None:
    measure, clock = on(STEEP)
    reason = Reason("not_steady", "invalid", "the queue grows", "lower the rate")
    found = run_search(measure, clock, trust=lambda run: Judgement("invalid", (reason,)))
    assert found.interval[1] is not None


def test_a_dead_server_ends_the_search() -> None:
    measure, clock = on(STEEP)

    def dead(rate: float, duration_s: float, seed: int) -> Run:
        run = measure(rate, duration_s, seed)
        nothing = {"first_s": None, "first_answer_s": None, "last_s": None, "event_s": ()}
        lost = tuple(replace(r, error=RequestError.CONNECT, **nothing) for r in run.records)
        return replace(run, records=lost)

    found = run_search(dead, clock)
    assert found.verdict == "invalid"
    assert "answered no request" in found.reasons[0]

    def crashed(rate: float, duration_s: float, seed: int) -> Run:
        return replace(
            measure(rate, duration_s, seed), failure=Failure(FailureKind.CRASH, "segmentation fault")
        )

    found = run_search(crashed, clock, trust=None)
    assert found.verdict == "invalid"
    assert "segmentation fault" in found.reasons[0]


def test_a_server_that_slows_down_is_found_out() -> None:
    """Its capacity halves in the course of the search: what was shown at first is not true at the end."""
    clock = simulation.Clock()
    before = simulation.simulated(STEEP, clock, 0)
    after = simulation.simulated(servers.independent(20.0, 0.01, 0.5, 60), clock, 0)
    shown: list[RateProbe] = []

    def fading(rate: float, duration_s: float, seed: int) -> Run:
        done = {p.decision for p in shown}
        near = [p for p in shown if p.decision == "breaks" and p.rate_per_s < 43]
        return (after if near and "meets" in done else before)(rate, duration_s, seed)

    found = run_search(fading, clock, watch=shown.append, max_s=3000.0)
    assert found.verdict == "suspect"
    assert any("not reproducible" in r or "not monotone" in r or "wide" in r for r in found.reasons)


@pytest.mark.parametrize("slos", [[], [parse("error_rate<=0%")]])
def test_what_no_test_can_show_is_refused(slos: list) -> None:  # type: ignore[type-arg]
    with pytest.raises(UserError):
        run_search(lambda rate, duration_s, seed: pytest.fail("measured"), simulation.Clock(), slos=slos)


def test_json_and_table(searches: list[simulation.Outcome]) -> None:
    found = next(one.found for one in searches if one.found.verdict == "ok")
    data = json.loads(json.dumps(finite(as_json(found))))
    assert data["interval"][0] == data["rate_per_s"]
    assert data["slos"] == ["ttft:p99<=500ms"]
    assert {"rate_per_s", "decision", "requests", "over_limit", "seconds"} <= set(data["probes"][0])
    assert data["verdict"] == "ok"
    console = Console(record=True, width=110, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    rate_table.show_rates(found, console)
    text = console.export_text()
    assert "capacity 3" in text or "capacity 4" in text
    assert "ttft:p99<=500ms" in text
    assert "meets" in text
    assert "breaks" in text
    assert "requests over the limit" in rate_table.line(found.probes[0])


# --- which rate comes next ----------------------------------------------------------------------------


def standing(rate: float, decision: str, lean: float = 0.0, visits: int = 1) -> RateStanding:
    lean = lean or {"meets": -1.0, "breaks": 1.0}.get(decision, 0.1)
    return RateStanding(rate, decision, lean, 100.0, visits)  # type: ignore[arg-type]


def test_rates_out_of_order_are_reported_and_both_are_in_the_bracket() -> None:
    known = [standing(5, "meets"), standing(8, "breaks"), standing(10, "meets"), standing(12, "breaks")]
    assert contradiction(known) == (8, 10)
    assert bracket(known) == (5, 12)
    assert contradiction(known[:2]) is None


def test_a_narrow_bracket_ends_the_search() -> None:
    assert next_rate([standing(10, "meets"), standing(10.4, "breaks")], 0.05, math.inf, 10) is None
    wide = next_rate([standing(10, "meets"), standing(20, "breaks")], 0.05, math.inf, 10)
    assert wide is not None
    assert 10 < wide < 20


def test_proof_is_asked_of_the_two_rates_next_to_the_capacity_only() -> None:
    seem = [standing(5, "undecided", -2), standing(10, "undecided", -1), standing(10.4, "undecided", 1)]
    assert next_rate(seem, 0.05, math.inf, 10) == 10
    assert next_rate([*seem[:1], standing(10, "meets"), seem[2]], 0.05, math.inf, 10) == 10.4


def test_a_rate_that_cannot_be_decided_is_replaced_by_its_neighbours() -> None:
    known = [standing(5, "meets"), standing(10, "undecided", visits=2), standing(20, "breaks")]
    below = next_rate(known, 0.05, math.inf, 10)
    assert below is not None
    assert 5 < below < 10 or 10 < below < 20
    done = [standing(9.77, "meets"), standing(10, "undecided", visits=2), standing(10.23, "breaks")]
    assert next_rate(done, 0.05, math.inf, 10) is None


def test_no_rate_at_the_ceiling_is_asked_for() -> None:
    known = [standing(10, "meets")]
    asked = next_rate(known, 0.05, 12.0, 10)
    assert asked is not None
    assert 10 < asked < 12.0
    assert next_rate([standing(11.9, "meets")], 0.05, 12.0, 10) is None


def test_the_estimate_is_monotone_and_between_the_sides() -> None:
    known = [standing(5, "meets", -3), standing(10, "undecided", 0.5), standing(11, "undecided", -0.5),
             standing(20, "breaks", 3)]  # fmt: skip
    found = capacity_estimate(known)
    assert found is not None
    assert 5 < found <= 20
    assert capacity_estimate(known[:1]) is None


rates = st.lists(
    st.tuples(st.floats(1, 100), st.sampled_from(["meets", "breaks", "undecided"]), st.floats(-3, 3),
              st.integers(1, 3)),
    min_size=1, max_size=10, unique_by=lambda row: row[0],
)  # fmt: skip


@given(rates)
def test_next_rate_is_always_usable(rows: list[tuple[float, str, float, int]]) -> None:
    known = [RateStanding(rate, decision, lean, 50.0, visits) for rate, decision, lean, visits in rows]  # type: ignore[arg-type]
    asked = next_rate(known, 0.05, math.inf, 10.0)
    if asked is not None:
        assert math.isfinite(asked)
        assert asked > 0
        assert all(s.decision == "undecided" for s in known if s.rate_per_s == asked)
        low, high = bracket(known)
        assert (low or 0) < asked < (high or math.inf)


# --- on a real socket ---------------------------------------------------------------------------------


def test_start_rate_is_below_the_throughput_of_the_largest_loop_that_meets() -> None:
    """8 servers of 0.1 s: up to 8 users wait for nobody, 16 wait twice as long as they are served."""

    def closed(users: int, seed: int) -> Run:
        waits_s = 0.0 if users <= 8 else 0.6
        due = [0.1 * turn for turn in range(4) for _ in range(users)]
        records = [record(i, at, ttft_s=waits_s, step_s=0.1, tokens=2) for i, at in enumerate(due)]
        return Run(point(arrivals="closed", concurrency=users), tuple(records), load_end_s=0.3)

    assert start_rate(closed, [P99]) == pytest.approx(0.8 * 80, rel=0.05)
    with pytest.raises(UserError, match="answered none"):
        start_rate(lambda users, seed: replace(closed(users, seed), records=()), [P99])


@pytest.mark.slow
def test_a_search_over_http(tmp_path: Path) -> None:
    """The simulated engine with 4 slots of 0.4 s, over its HTTP surface: it cannot do more than 10/s."""
    from bench.traffic.prompts import prompts
    from tests.support.sim_process import MODEL, started

    with started(tmp_path, max_num_seqs=4, sim={"time_scale": 2.0}) as running:
        server = Endpoint(running.url, MODEL, "sim", "simulated", simulated=True)
        config = ServingConfig(engine="endpoint", model=MODEL, url=running.url)
        base = Load("load", 64, 40, "poisson", rate_per_s=1.0)
        told: list[RateProbe] = []
        found = capacity_of(
            server, config, base, prompts(None), [parse("ttft:p50<=300ms")], folder=tmp_path / "scratch",
            salt="test", max_s=60.0, start_rate_per_s=40.0, watch=told.append,
        )  # fmt: skip
    assert told
    assert told[0].rate_per_s == 40.0
    if not any("client" in reason for reason in found.reasons):
        assert max(p.rate_per_s for p in found.probes if p.standing.seems == "meets") < 14, found
        assert found.interval[1] is not None
    assert found.interval[0] is None or found.interval[0] < 12
    with pytest.raises(UserError, match="open"):
        Driver(
            server, config, replace(base, arrivals="closed"), prompts(None), [P99], folder=tmp_path, salt=""
        )
