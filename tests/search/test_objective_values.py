"""What the points of one launch come to, by hand: the load that counts, means, misses, the variance of a rate."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.scenario.slo import parse
from search.objective import Goal, constraints, job_of, judged
from search.result import TrialResult
from serving.errors import Failure
from tests.support.synthetic import point

RATE = "output_token_throughput_per_s"
COST = "cost_per_million_good_tokens"
MOST = Goal(((RATE, False),))
LEAST = Goal(((COST, True), (RATE, False)))
SETTINGS = {"engine": "one"}


def scenario(*slos: str, accuracy: object = None, **limits: float) -> Any:
    return SimpleNamespace(
        slos=[parse(slo) for slo in slos], search=SimpleNamespace(limits=limits), accuracy=accuracy
    )


def measured(key: str, value: float | None, *, load: dict[str, Any] | None = None, verdict: str = "ok",
             failure: Failure | None = None, simulated: bool = False, rates: tuple[float, ...] = (),
             window: tuple[float, float] | None = (0.0, 100.0), **metrics: float | None) -> Any:  # fmt: skip
    """A point of one key; `rates`: tokens per second of bins of ten seconds."""
    run = SimpleNamespace(failure=failure, simulated=simulated, point=point(**(load or {})))
    reasons = [
        SimpleNamespace(verdict="suspect", text="so so"),
        SimpleNamespace(verdict=verdict, text="why not"),
    ]
    curves = SimpleNamespace(
        window_s=window, edges_s=[10.0 * n for n in range(len(rates) + 1)], tokens_per_s=list(rates)
    )
    return SimpleNamespace(
        key=key, run=run, judgement=SimpleNamespace(verdict=verdict, reasons=reasons), curves=curves,
        metrics={RATE: value, COST: None, **metrics},
    )  # fmt: skip


def result(
    *points: Any, goal: Goal = MOST, fidelity: str = "full", slos: tuple[str, ...] = (), **more: Any
) -> TrialResult:
    return judged(scenario(*slos), goal, SETTINGS, fidelity, points, {"measure": 5.0}, **more)  # type: ignore[arg-type]


# --- the goal -------------------------------------------------------------------------------------


def test_a_gain_is_a_share_of_what_it_is_over() -> None:
    assert MOST.gain(120, 100) == pytest.approx(0.2)
    assert MOST.gain(80, 100) == pytest.approx(-0.2)
    assert LEAST.gain(80, 100) == pytest.approx(0.2)
    assert LEAST.gain(80, -100) == pytest.approx(-1.8)
    assert LEAST.gain(80, 0) == 0
    assert (MOST.loss(3), LEAST.loss(3)) == (-3, 3)
    assert (LEAST.metric, LEAST.minimize, MOST.minimize) == (COST, True, False)


def test_every_promise_has_a_name() -> None:
    limits = {"error_rate": 0.01}
    assert constraints(scenario("ttft:p50<=200ms", **limits)) == (
        "runs",
        "ttft:p50<=200ms",
        "error_rate<=0.01",
    )
    assert constraints(scenario(accuracy=object())) == ("runs", "accuracy")


# --- promises -------------------------------------------------------------------------------------


# --- one launch -----------------------------------------------------------------------------------


def test_of_loads_that_push_differently_the_best_that_keeps_every_promise_counts() -> None:
    found = result(
        measured("a", 100.0, load={"concurrency": 1}, ttft_p50_ms=50.0),
        measured("b", 150.0, load={"concurrency": 2}, ttft_p50_ms=150.0),
        measured("c", 400.0, load={"concurrency": 4}, ttft_p50_ms=500.0),
        slos=("ttft:p50<=200ms",),
    )
    assert found.value == 150.0
    assert found.points == ("b", "a", "c")
    assert found.violations == {"ttft:p50<=200ms": pytest.approx(-0.25)}
    assert found.feasible
    assert found.values == {RATE: 150.0}
    assert found.seconds == {"measure": 5.0}


def test_an_invalid_load_and_one_without_a_value_come_last() -> None:
    found = result(
        measured("a", 900.0, load={"concurrency": 1}, verdict="invalid"),
        measured("b", None, load={"concurrency": 2}),
        measured("c", 10.0, load={"concurrency": 4}),
    )
    assert (found.value, found.points) == (10.0, ("c", "a", "b"))


def test_sizes_are_averaged_and_the_worst_miss_counts() -> None:
    found = result(
        measured("a", 100.0, load={"input_tokens": 100}, ttft_p50_ms=100.0),
        measured("b", 300.0, load={"input_tokens": 900}, ttft_p50_ms=300.0),
        slos=("ttft:p50<=200ms",),
    )
    assert found.value == 200.0
    assert found.violations == {"ttft:p50<=200ms": pytest.approx(0.5)}
    assert found.points == ("a", "b")
    assert not found.feasible


def test_what_is_the_same_job() -> None:
    base = point(concurrency=1).load
    assert job_of(base) == job_of(point(concurrency=64).load) == ("test", 128, 20)
    for other in ({"input_tokens": 1}, {"output_tokens": 1}, {"workload": "x"}):
        assert job_of(point(**other).load) != job_of(base)


def test_a_suspect_point_counts_and_simulated_is_said() -> None:
    found = result(measured("a", 1.0, verdict="suspect", simulated=True))
    assert (found.value, found.simulated) == (1.0, True)
    assert not result(measured("a", 1.0)).simulated


def test_every_goal_has_its_value_and_the_first_is_judged_by() -> None:
    found = result(measured("a", 50.0, **{COST: 2.0}), goal=LEAST)
    assert (found.value, found.values) == (2.0, {COST: 2.0, RATE: 50.0})


# --- variance -------------------------------------------------------------------------------------

RATES = (90.5, 110.0, 95.0, 105.0, 80.0, 119.5)


def test_the_variance_of_a_rate_is_that_of_six_batches() -> None:
    """Six bins of mean 100: sum of squares 1,020.5, over 5 x 6 x 100^2, times the value squared."""
    found = result(measured("a", 200.0, rates=RATES))
    assert found.variance == pytest.approx(1020.5 / 5 / 6 / 100**2 * 200**2)


def test_batches_are_of_equal_size_and_only_of_the_window() -> None:
    """Twelve bins inside: two a batch; one before, one after and a thirteenth left over do not count."""
    inside = [rate + shift for rate in RATES for shift in (-30.0, 30.0)]
    found = result(measured("a", 200.0, rates=(999.0, *inside, 777.0, 999.0), window=(10.0, 140.0)))
    assert found.variance == pytest.approx(1020.5 / 5 / 6 / 100**2 * 200**2)


@pytest.mark.parametrize(
    "more",
    [
        {"rates": RATES[:5]},
        {"rates": RATES, "window": None},
        {"rates": (0.0,) * 6},
        {"rates": RATES, "window": (0.0, 59.0)},
    ],
)
def test_a_variance_that_cannot_be_told(more: dict[str, Any]) -> None:
    assert result(measured("a", 200.0, **more)).variance is None


def test_a_latency_has_no_batches_and_a_cost_has_those_of_its_rate() -> None:
    latency = Goal((("ttft_p50_ms", True),))
    assert result(measured("a", 1.0, rates=RATES, ttft_p50_ms=5.0), goal=latency).variance is None
    cost = result(measured("a", 1.0, rates=RATES, **{COST: 3.0}), goal=LEAST)
    assert cost.variance == pytest.approx(1020.5 / 5 / 6 / 100**2 * 9)


def test_the_variance_of_a_mean_of_two_jobs() -> None:
    one = measured("a", 200.0, rates=RATES, load={"input_tokens": 100})
    other = measured("b", 100.0, rates=RATES, load={"input_tokens": 900})
    relative = 1020.5 / 5 / 6 / 100**2
    assert result(one, other).variance == pytest.approx((relative * 200**2 + relative * 100**2) / 4)
    assert result(one, measured("b", 100.0, load={"input_tokens": 900})).variance is None


# --- the floor in the screening -------------------------------------------------------------------
