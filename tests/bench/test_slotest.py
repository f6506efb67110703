"""The sequential test of one rate: how often it errs, what it counts, what it cannot be fooled by."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.findrate.overlimit import stretch
from bench.findrate.slotest import (
    Outcomes,
    allowed_share,
    correlation_time,
    decide,
    fewest_requests,
    weigh,
)
from bench.metrics.columns import Array
from bench.records.model import Record, RequestError
from bench.scenario.slo import Slo, parse
from serving.errors import UserError
from tests.support.synthetic import failed, open_loop

P99 = parse("ttft:p99<=500ms")
P90 = parse("ttft:p90<=500ms")
MEAN = parse("ttft:mean<=500ms")


def outcomes(over: Array) -> Outcomes:
    return Outcomes(np.where(over > 0, 900.0, 100.0), over, np.ones(over.size))


def decided(over: Array, slo: Slo, every: int, alpha: float = 0.05) -> str:
    """Looks again and again as requests come in, and stops at the first decision."""
    for n in range(every, over.size + 1, every):
        found = decide([weigh(slo, [outcomes(over[:n])])], alpha, alpha)
        if found != "undecided":
            return found
    return "undecided"


def share_of(decision: str, p: float, slo: Slo, seeds: int = 80, n: int = 2400) -> float:
    rng = np.random.default_rng(7)
    runs = [(rng.random(n) < p).astype(float) for _ in range(seeds)]
    return sum(decided(over, slo, 200) == decision for over in runs) / seeds


def test_a_rate_at_its_limit_is_rarely_decided_however_often_one_looks() -> None:
    # 80 tries at alpha 0.05: 11 or more have a chance below 1 in 500 if the promise holds.
    assert share_of("meets", 0.01, P99) <= 10 / 80
    assert share_of("breaks", 0.01, P99) <= 10 / 80


def test_a_rate_off_its_limit_is_decided_rightly() -> None:
    assert share_of("meets", 0.003, P99) >= 0.9
    assert share_of("breaks", 0.03, P99) >= 0.95
    assert share_of("breaks", 0.003, P99) == 0
    assert share_of("meets", 0.03, P99) == 0


def test_a_hopeless_rate_is_left_at_once() -> None:
    rng = np.random.default_rng(3)
    over = (rng.random(60) < 0.5).astype(float)
    assert decide([weigh(P99, [outcomes(over)])], 0.05, 0.05) == "breaks"


def test_correlated_requests_do_not_fool_it() -> None:
    """Bursts of 60 slow requests, 1% in all: as independent requests they would decide most searches."""
    rng = np.random.default_rng(11)
    wrong = naive = 0
    for _ in range(60):
        over = np.zeros(6000)
        for begin in np.flatnonzero(rng.random(6000) < 0.01 / 60):
            over[begin : begin + 60] = 1
        wrong += decided(over, P99, 500) == "breaks"
        naive += decided(rng.permutation(over), P99, 500) == "breaks"
    assert wrong <= 6
    assert naive > 15, "as if they were independent"


def test_calm_requests_in_a_slow_queue_do_not_show_that_it_meets() -> None:
    """None over the limit, but the server was through its ups and downs a few times only."""
    calm = outcomes(np.zeros(800))
    slow = np.repeat(np.arange(4.0), 200)
    assert decide([weigh(P99, [calm])], 0.05, 0.05) == "meets"
    assert decide([weigh(P99, [calm], [slow])], 0.05, 0.05) == "undecided"
    assert decide([weigh(P99, [calm])], 0.05, 0.05, seen=4) == "undecided"


def test_the_fewest_requests_are_those_it_takes() -> None:
    n = fewest_requests(P99, 0.05)
    assert decide([weigh(P99, [outcomes(np.zeros(n))])], 0.05, 0.05) == "meets"
    assert decide([weigh(P99, [outcomes(np.zeros(n - 10))])], 0.05, 0.05) == "undecided"
    assert 300 <= n <= 400
    assert fewest_requests(parse("error_rate<=0.1%"), 0.05) > 9 * n


def test_every_slo_must_be_met_and_one_broken_is_enough() -> None:
    good, bad = (
        weigh(P99, [outcomes(np.zeros(800))]),
        weigh(P90, [outcomes(np.ones(800) * (np.arange(800) % 2))]),
    )
    assert decide([good], 0.05, 0.05) == "meets"
    assert decide([good, bad], 0.05, 0.05) == "breaks"
    unsure = weigh(P90, [outcomes((np.arange(800) % 10 == 0).astype(float))])
    assert decide([good, unsure], 0.05, 0.05) == "undecided"


def test_a_mean_is_held_against_its_limit() -> None:
    rng = np.random.default_rng(5)

    def of(mean: float) -> str:
        values = rng.gamma(4, mean / 4, 600)
        part = Outcomes(values, (values > 500).astype(float), np.ones(600))
        return decide([weigh(MEAN, [part])], 0.05, 0.05)

    assert of(400) == "meets"
    assert of(600) == "breaks"
    assert weigh(MEAN, []).effective == 0


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_correlation_time_is_that_of_an_autoregression(phi: float) -> None:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(30):
        noise = rng.normal(size=4000)
        values = np.empty(4000)
        values[0] = noise[0]
        for i in range(1, 4000):
            values[i] = phi * values[i - 1] + noise[i]
        found.append(correlation_time([values[:1500], values[1500:]], centre=True))
    # One standard error is added on purpose.
    assert (1 + phi) / (1 - phi) <= np.mean(found) * 1.02 <= 1.5 * (1 + phi) / (1 - phi)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=300), st.sampled_from([P99, P90]))
def test_evidence_is_finite_and_never_for_both(over: list[bool], slo: Slo) -> None:
    found = weigh(slo, [outcomes(np.array(over, dtype=float))])
    assert all(math.isfinite(v) for v in (found.log_meets, found.log_breaks, found.lean, found.effective))
    assert 0 < found.effective <= len(over)
    assert not (found.log_meets > 3 and found.log_breaks > 3)
    assert found.over == sum(over)


def test_lost_requests_are_over_the_limit() -> None:
    def break_some(records: list[Record]) -> list[Record]:
        return [failed(r) if r.index % 50 == 0 else r for r in records]

    clean = stretch(open_loop(800, 50.0), [P99])
    broken = stretch(open_loop(800, 50.0, change=break_some), [P99, parse("error_rate<=1%")])
    assert clean.outcomes[0].over.sum() == 0
    lost = broken.outcomes[0].over.sum()
    assert 12 <= lost <= 16
    assert broken.outcomes[1].over.sum() == lost


def test_a_request_cut_off_counts_by_what_is_known_of_it() -> None:
    def cut(records: list[Record]) -> list[Record]:
        seen = [replace(r, error=RequestError.CENSORED) for r in records[-40:-20]]
        waiting = [replace(failed(r, RequestError.CENSORED), first_s=None, last_s=None, event_s=())
                   for r in records[-20:]]  # fmt: skip
        return [*records[:-40], *seen, *waiting]

    found = stretch(open_loop(800, 50.0, change=cut), [P99, parse("e2e:p99<=1s"), parse("error_rate<=1%")])
    assert found.outcomes[0].over.sum() == 20, "the first token had come for the others"
    assert found.outcomes[1].over.sum() >= 20
    assert found.outcomes[2].over.sum() == 0, "cut off by us is no error of the server"


def test_latency_counts_from_the_planned_departure() -> None:
    def late(records: list[Record]) -> list[Record]:
        return [replace(r, planned_s=r.planned_s - 1.0) for r in records]

    assert stretch(open_loop(800, 50.0), [P99]).outcomes[0].over.sum() == 0
    found = stretch(open_loop(800, 50.0, change=late), [P99]).outcomes[0]
    assert found.over.sum() == found.value.size


def test_gaps_are_pooled_and_requests_keep_their_weight() -> None:
    found = stretch(open_loop(800, 50.0), [parse("icl:p99<=15ms"), parse("icl:mean<=15ms")])
    assert found.outcomes[0].weight[0] == 19
    assert found.outcomes[0].over.sum() == 0
    assert weigh(parse("icl:mean<=15ms"), [found.outcomes[1]]).estimate == pytest.approx(10, rel=0.01)
    tight = stretch(open_loop(800, 50.0), [parse("icl:p99<=5ms")]).outcomes[0]
    assert tight.over.sum() == tight.weight.sum()


def test_a_growing_queue_is_seen_and_a_steady_one_is_not() -> None:
    def queue(rng: np.random.Generator, n: int) -> Array:
        return np.linspace(0.01, 6.0, n)

    assert stretch(open_loop(800, 50.0, ttft_s=queue), [P99]).overloaded
    assert not stretch(open_loop(800, 50.0, ttft_s=queue), [parse("ttft:p99<=30s")]).overloaded
    assert not stretch(open_loop(800, 50.0, ttft_s=2.0), [P99]).overloaded, (
        "over the limit, but no queue grows"
    )


def test_what_cannot_be_told_is_said() -> None:
    with pytest.raises(UserError, match="streaming"):
        stretch(open_loop(100, 50.0, stream=False), [P99])

    def single(records: list[Record]) -> list[Record]:
        return [replace(r, output_tokens=1, counted_output_tokens=1) for r in records]

    with pytest.raises(UserError, match="no such latency"):
        stretch(open_loop(100, 50.0, change=single), [parse("tpot:p99<=50ms")])


def test_allowed_share() -> None:
    assert allowed_share(P99) == pytest.approx(0.01)
    assert allowed_share(parse("error_rate<=2%")) == pytest.approx(0.02)
    assert allowed_share(MEAN) is None
