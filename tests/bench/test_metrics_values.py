"""Every metric on a handful of requests and a window of our choice, so that each number can be counted out."""

from __future__ import annotations

import datetime
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.metrics import METRICS, latency, resources, throughput, utilization
from bench.metrics.columns import Events, Requests
from bench.metrics.histogram import Histogram, Pair, reconcile
from bench.metrics.view import View
from bench.metrics.window import Window
from bench.records.model import Record, RequestError, Run, Sample
from bench.scenario.model import Price
from bench.scenario.slo import parse
from serving.costmodel.hardware import HARDWARE
from serving.costmodel.shapes import SHAPES
from tests.support.synthetic import failed, point, record

A_PRICE = Price(per_hour=3.6, currency="USD", source="test", date=datetime.date(2026, 1, 1), per="gpu")


def made(
    index: int, planned: float, events: tuple[float, ...], *, sent: float | None = None, **more: Any
) -> Record:
    """A request with output events at these seconds, one token each."""
    given: dict[str, Any] = {
        "index": index, "planned_s": planned, "sent_s": planned if sent is None else sent,
        "first_s": events[0] if events else None, "first_answer_s": events[0] if events else None,
        "last_s": events[-1] if events else None, "closed_s": None, "event_s": events,
        "output_tokens": len(events), "counted_output_tokens": len(events), "asked_output_tokens": len(events),
        "input_tokens": 100, "asked_input_tokens": 90,
    }  # fmt: skip
    return replace(record(index, planned), **{**given, **more})


def censored(index: int, planned: float, events: tuple[float, ...]) -> Record:
    return made(
        index,
        planned,
        events,
        error=RequestError.CENSORED,
        last_s=None,
        output_tokens=None,
        counted_output_tokens=None,
    )


def view(*records: Record, start: float = 2.0, end: float = 10.0, samples: tuple[Sample, ...] = (),
         slos: tuple[str, ...] = (), load: dict[str, Any] | None = None, gpus: int = 1, **more: Any) -> View:  # fmt: skip
    asked = point(**{"arrivals": "poisson", "rate_per_s": 1.0, **(load or {})})
    run = Run(
        point=replace(asked, config=asked.config.model_copy(update={"tensor_parallel_size": gpus})),
        records=records,
        samples=samples,
    )
    base = View(run, tuple(parse(slo) for slo in slos), **more)
    base.__dict__["window"] = Window(start, end)
    return base


FOUR = (
    made(0, 1.0, (1.5, 2.0, 3.0)),
    made(1, 2.0, (4.0, 5.0, 6.0, 10.0), sent=2.5),
    made(2, 10.0, (11.0, 12.0)),
    failed(made(3, 5.0, (5.5, 6.5))),
)
"""Due in the window of 2 to 10 s: all but the first; completed: 0, 1, 2."""


def value(name: str, seen: View) -> float | None:
    return METRICS[name].of(seen)


# --- columns --------------------------------------------------------------------------------------


def test_when_a_request_has_left_the_system() -> None:
    bare = made(0, 1.0, ())
    rows = [
        made(0, 1.0, (2.0, 3.0), closed_s=3.5),
        replace(bare, closed_s=4.0),
        replace(bare, error=RequestError.RESET, closed_s=None, last_s=2.5),
        replace(bare, error=RequestError.RESET, closed_s=None, last_s=None, header_s=1.75),
        replace(bare, error=RequestError.RESET, closed_s=3.0, last_s=2.5),
        replace(bare, error=RequestError.RESET, closed_s=None, last_s=None, header_s=None, sent_s=1.25),
        replace(bare, error=RequestError.CENSORED),
    ]
    assert list(Requests.of(rows).end) == [3.0, 4.0, 2.5, 1.75, 3.0, 1.25, math.inf]
    unsent = replace(bare, error=RequestError.CENSORED, sent_s=None)
    assert np.isnan(Requests.of([unsent]).end[0])


def test_tokens_are_spread_evenly_over_events_unless_each_says_its_own() -> None:
    rows = [
        made(0, 1.0, (2.0, 3.0), output_tokens=6),
        made(1, 1.5, (2.0, 3.0, 4.0), output_tokens=6, event_tokens=(1, 2, 3)),
        made(2, 2.0, (3.0,), output_tokens=None, counted_output_tokens=5),
        failed(made(3, 2.5, (3.0, 4.0))),
        censored(4, 3.0, (5.0, 6.0)),
    ]
    requests = Requests.of(rows)
    events = Events.of(rows, requests)
    per_event = (6 + 6 + 5) / (2 + 3 + 1)
    assert list(events.tokens) == pytest.approx([3, 3, 1, 2, 3, 5, 0, per_event, per_event])
    assert list(events.exact) == [False] * 2 + [True] * 3 + [False] * 4
    assert list(events.owner) == [0, 0, 1, 1, 1, 2, 3, 4, 4]
    assert list(requests.failed) == [False, False, False, True, False]
    assert requests.first_tokens[1] == 1
    assert np.isnan(requests.first_tokens[0])


# --- throughput -----------------------------------------------------------------------------------


def test_rates_count_what_happened_in_the_window_ends_included() -> None:
    seen = view(*FOUR)
    assert value("request_throughput_per_s", seen) == 2 / 8, "0 ended at 3 s, 1 at 10 s"
    assert value("output_token_throughput_per_s", seen) == 6 / 8, "2.0, 3.0, 4.0, 5.0, 6.0, 10.0"
    assert value("input_token_throughput_per_s", seen) == 100 / 8, "only 1 was first answered in it"
    assert value("total_token_throughput_per_s", seen) == 106 / 8
    assert value("request_throughput_total_run_per_s", seen) == 3 / 11, "1 s to 12 s"
    assert value("output_token_throughput_total_run_per_s", seen) == 9 / 11
    assert value("offered_rate_per_s", seen) == 3 / 8
    assert throughput.run_length_s(seen) == 11


def test_goodput_counts_requests_due_in_the_window_that_met_every_latency_limit() -> None:
    assert value("goodput_per_s", view(*FOUR)) == 2 / 8
    assert value("good_share", view(*FOUR)) == 2 / 3
    assert value("good_share", view(*FOUR, slos=("ttft:p50<=1s",))) == 1 / 3
    assert value("good_share", view(*FOUR, slos=("ttft:p50<=2s", "e2e:p50<=2s"))) == 1 / 3
    assert value("good_share", view(*FOUR, slos=("ttft:p50<=999ms",))) == 0
    assert value("good_share", view(*FOUR, slos=("error_rate<=1%",))) == 2 / 3
    cheap = view(*FOUR, slos=("ttft:p50<=1s",), price=A_PRICE)
    assert value("cost_per_million_good_tokens", cheap) == pytest.approx(3.6 / 3600 / (2 / 8) * 1e6)


def test_a_prompt_whose_size_was_not_told_counts_as_asked() -> None:
    blind = replace(FOUR[1], input_tokens=None)
    assert value("input_token_throughput_per_s", view(FOUR[0], blind)) == 90 / 8
    assert value("input_token_throughput_per_s", view(FOUR[0])) is None
    mute = replace(FOUR[0], first_s=None)
    assert value("input_token_throughput_per_s", view(mute)) == 100 / 8, (
        "without a first token its end counts"
    )


def test_output_that_is_not_known_of_one_is_no_throughput() -> None:
    blind = replace(FOUR[2], output_tokens=None, counted_output_tokens=None)
    for name in (
        "output_token_throughput_per_s",
        "output_token_throughput_total_run_per_s",
        "total_token_throughput_per_s",
    ):
        assert value(name, view(*FOUR[:2], blind)) is None
    assert value("output_token_throughput_per_s", view(failed(FOUR[0]))) is None


def test_a_window_of_no_length_has_no_rates() -> None:
    for name in (
        "request_throughput_per_s",
        "offered_rate_per_s",
        "goodput_per_s",
        "concurrency_mean",
        "output_token_throughput_per_s",
    ):
        assert value(name, view(*FOUR, start=2.0, end=2.0)) is None
    nothing = view()
    assert throughput.run_length_s(nothing) == 0.0
    assert value("requests", nothing) is None
    assert value("good_share", nothing) is None


def test_requests_in_flight_are_averaged_over_the_window() -> None:
    """0: 2 to 3 s; 1: 2.5 to 10; 3 was cut at 5.5; a censored one stays to the end."""
    assert value("concurrency_mean", view(*FOUR)) == pytest.approx((1 + 7.5 + 0.5) / 8)
    assert value("concurrency_mean", view(*FOUR, censored(4, 9.0, ()))) == pytest.approx(
        (1 + 7.5 + 0.5 + 1) / 8
    )


def test_littles_law_by_hand() -> None:
    """Left in the window: 0 after 2 s, 1 after 7.5 s, 3 after 0.5 s."""
    assert value("littles_law_ratio", view(*FOUR)) == pytest.approx(9 / (2 + 7.5 + 0.5))
    assert value("littles_law_ratio", view(FOUR[2])) is None


def test_what_had_left_in_time() -> None:
    """Four due from 3 to 6 s: 3/4 s, the mean gap, and 10 ms are allowed after 6 s."""
    late = [made(i, 3.0 + i, (20.0,), sent=sent) for i, sent in enumerate((3.0, 6.0, 6.759, 6.761))]
    assert value("dispatched_share", view(*late)) == 3 / 4
    assert value("dispatched_share", view(FOUR[0])) is None


def test_a_price_by_the_gpu_and_by_the_machine() -> None:
    seen = view(*FOUR, price=A_PRICE, gpus=4)
    assert throughput.price_per_hour(seen) == pytest.approx(14.4)
    machine = view(*FOUR, price=A_PRICE.model_copy(update={"per": "machine"}), gpus=4)
    assert throughput.price_per_hour(machine) == pytest.approx(3.6)
    assert value("cost_per_million_output_tokens", machine) == pytest.approx(3.6 / 3600 / (6 / 8) * 1e6)
    assert value("cost_per_million_total_tokens", machine) == pytest.approx(3.6 / 3600 / (106 / 8) * 1e6)
    assert value("cost_per_million_output_tokens", view(*FOUR)) is None
    assert value("cost_per_million_output_tokens", view(made(0, 0.5, (1.0,)), price=A_PRICE)) is None


def test_shares_of_what_was_due() -> None:
    seen = view(*FOUR, censored(4, 9.0, ()))
    assert value("error_rate", seen) == 1 / 4
    assert value("error_rate_reset", seen) == 1 / 4
    assert value("censored_share", seen) == 1 / 4
    assert value("requests", seen) == 4
    assert value("error_rate", view(FOUR[0])) is None
    assert value("tokens_per_event", seen) == 1.0
    assert value("output_tokens_mean", seen) == 3.0
    assert value("tokens_per_event", view(made(0, 3.0, (4.0, 5.0), output_tokens=6))) == 3.0
    assert (
        value(
            "output_tokens_mean",
            view(*FOUR, made(9, 4.0, (5.0,), output_tokens=None, counted_output_tokens=None)),
        )
        is None
    )


# --- latency --------------------------------------------------------------------------------------


def ms(series: str, seen: View) -> list[float]:
    return [float(v) for v in latency.values(seen, series)]


def test_latencies_of_requests_due_in_the_window() -> None:
    seen = view(*FOUR)
    assert ms("ttft", seen) == pytest.approx([1000, 2000])
    assert ms("ttft_sent", seen) == pytest.approx([1000, 1500])
    assert ms("e2e", seen) == pytest.approx([2000, 8000])
    assert ms("tpot", seen) == pytest.approx([1000, 2000])
    assert ms("icl", seen) == pytest.approx([1000, 1000, 1000, 4000])
    assert ms("schedule_lag", seen) == pytest.approx([0, 0, 500])
    assert latency.lost(seen) == 1


def test_two_tokens_make_a_time_per_token_and_one_makes_none() -> None:
    assert ms("tpot", view(made(0, 3.0, (4.0, 5.0)))) == [1000]
    assert ms("tpot", view(made(0, 3.0, (4.0,)))) == []
    assert ms("tpot", view(made(0, 3.0, (4.0, 6.0), output_tokens=5))) == [500]


def test_tokens_of_the_first_event_are_left_out_where_they_are_known() -> None:
    told = made(0, 3.0, (4.0, 5.0, 6.0), output_tokens=8, event_tokens=(4, 2, 2))
    assert ms("tpot_event", view(told)) == [500]
    assert ms("itl", view(told)) == [500, 500, 500, 500]
    one = made(0, 3.0, (4.0, 5.0), output_tokens=3, event_tokens=(2, 1))
    assert ms("tpot_event", view(one)) == [1000]
    none = made(0, 3.0, (4.0, 5.0), output_tokens=2, event_tokens=(2, 0))
    assert ms("tpot_event", view(none)) == []
    assert ms("itl", view(none)) == [], "an event without a token has no gap a token"
    assert ms("itl", view(told, made(1, 4.0, (5.0, 6.0)))) == [], "of some it is not known"


def test_what_is_not_streamed_has_its_end_only() -> None:
    seen = view(*FOUR, load={"stream": False})
    assert (ms("ttft", seen), ms("tpot", seen), ms("icl", seen)) == ([], [], [])
    assert ms("e2e", seen) == pytest.approx([2000, 8000])


def test_statistics_of_a_sample() -> None:
    eleven = np.arange(1.0, 12.0)
    assert latency.statistic(eleven, "p50") == 6.0
    assert latency.statistic(eleven[:10], "p50") is None
    assert latency.statistic(eleven, "mean") == 6.0
    assert latency.statistic(eleven[:0], "mean") is None


def test_lost_requests_are_infinite_in_the_adjusted_percentile() -> None:
    """Eleven known and ten lost: the 11th of 21 is the largest known; with eleven lost there is none."""
    known = [made(i, 3.0, (3.0 + (i + 1) / 10,)) for i in range(11)]
    lost = [failed(made(50 + i, 4.0, (5.0, 6.0))) for i in range(12)]
    assert latency.adjusted(view(*known, *lost[:10]), "ttft", "p50") == pytest.approx(1100)
    assert latency.adjusted(view(*known, *lost), "ttft", "p50") == math.inf
    assert latency.adjusted(view(*lost), "ttft", "p50") is None


def test_inter_chunk_latency_of_a_request_is_its_own_statistic() -> None:
    seen = view(*FOUR, made(9, 6.0, (7.0,)))
    order = [r.index for r in seen.records]
    p50, mean = (latency.request_statistic(seen, "icl", name) for name in ("p50", "mean"))
    assert p50[order.index(1)] == pytest.approx(1000)
    assert mean[order.index(1)] == pytest.approx(2000)
    assert mean[order.index(2)] == pytest.approx(1000)
    assert np.isnan(mean[[order.index(i) for i in (0, 3, 9)]]).all()


# --- resources ------------------------------------------------------------------------------------


def series(name: str, *values: tuple[float, float]) -> tuple[Sample, ...]:
    return tuple(Sample(t, name, v) for t, v in values)


def test_energy_by_hand() -> None:
    """The counter's readings inside the window: 2 to 8 s, 600 J; tokens of 0 at 2 and 3 s, of 1 at 4, 5, 6 s."""
    joules = series("gpu0_energy_j", (1.0, 0.0), (2.0, 50.0), (5.0, 300.0), (8.0, 650.0), (11.0, 900.0))
    seen = view(*FOUR, samples=joules)
    assert value("power_mean_w", seen) == pytest.approx(100)
    assert value("energy_j_per_output_token", seen) == pytest.approx(600 / 5)


@pytest.mark.parametrize(("period_s", "told"), [(0.3, True), (0.301, False)])
def test_an_energy_window_spans_twenty_updates_of_the_counter(period_s: float, told: bool) -> None:
    """Readings over 6 s."""
    joules = series("gpu0_energy_j", (2.0, 50.0), (5.0, 300.0), (8.0, 650.0))
    period = series("gpu0_energy_update_period_s", (2.0, period_s))
    assert (value("power_mean_w", view(*FOUR, samples=(*joules, *period))) is not None) == told


def test_two_cards_share_the_shortest_stretch() -> None:
    """Over 6 s 100 W, over 4 s 50 W: 150 W over four seconds from the first reading."""
    samples = series("gpu0_energy_j", (2.0, 0.0), (8.0, 600.0)) + series(
        "gpu1_energy_j", (3.0, 0.0), (7.0, 200.0)
    )
    assert resources._energy(view(*FOUR, samples=samples)) == pytest.approx((600.0, 2.0, 6.0))
    backwards = series("gpu0_energy_j", (2.0, 600.0), (8.0, 0.0))
    assert value("power_mean_w", view(*FOUR, samples=backwards)) is None
    assert value("power_mean_w", view(*FOUR, samples=series("gpu0_energy_j", (2.0, 6.0)))) is None
    usual = series("gpu0_energy_j", (2.0, 0.0), (4.0, 10.0))
    assert value("power_mean_w", view(*FOUR, samples=usual)) == pytest.approx(5), "20 updates of 0.1 s"
    assert (
        value("power_mean_w", view(*FOUR, samples=series("gpu0_energy_j", (2.0, 0.0), (3.9, 10.0)))) is None
    )


def test_peaks_and_counters() -> None:
    samples = (
        *series("gpu0_memory_bytes", (0.0, 5.0), (50.0, 7.0)), *series("gpu1_memory_bytes", (0.0, 4.0)),
        *series("gpu0_memory_total_used_bytes", (0.0, 9.0)), *series("rss_bytes", (0.0, 99.0)),
        *series("server:vllm:kv_cache_usage_perc", (1.0, 0.25), (3.0, 0.75)),
        *series("server:vllm:num_requests_waiting", (1.0, 3.0)),
    )  # fmt: skip
    seen = view(*FOUR, samples=samples)
    assert value("memory_peak_bytes", seen) == 11
    assert value("device_memory_peak_bytes", seen) == 9
    assert value("kv_cache_peak_share", seen) == 0.75
    assert value("queue_peak", seen) == 3
    assert value("memory_peak_bytes", view(*FOUR, samples=series("rss_bytes", (0.0, 99.0)))) == 99
    assert value("preemptions", seen) is None


def test_cache_hits_by_counters_and_by_usage() -> None:
    hits = series("server:vllm:prefix_cache_hits_total", (0.0, 0.0), (2.0, 10.0), (10.0, 40.0), (12.0, 99.0))
    asked = series(
        "server:vllm:prefix_cache_queries_total", (0.0, 0.0), (2.0, 50.0), (10.0, 150.0), (12.0, 999.0)
    )
    assert value("cache_hit_share", view(*FOUR, samples=(*hits, *asked))) == pytest.approx(0.3)
    told = [
        replace(FOUR[1], cached_input_tokens=30),
        replace(FOUR[2], cached_input_tokens=0),
        replace(FOUR[0], cached_input_tokens=100),
    ]
    assert value("cache_hit_share", view(*told)) == pytest.approx(30 / 200)
    assert value("cache_hit_share", view(*FOUR)) is None


# --- against the limit ----------------------------------------------------------------------------


def on_h200(**load: Any) -> View:
    records = tuple(record(i, 0.1 * i, ttft_s=0.1, step_s=0.01) for i in range(100))
    return view(*records, start=0.0, end=10.0, load=load, place=(HARDWARE["h200"], SHAPES["llama-3.1-8b"]))


@pytest.mark.parametrize("cached", [{"turns": 2}, {"shared_prefix_tokens": 8}])
def test_prompts_that_may_be_cached_need_no_computing(cached: dict[str, int]) -> None:
    plain, found = utilization.limits(on_h200()), utilization.limits(on_h200(**cached))
    assert plain is not None
    assert found is not None
    assert plain.prompt_s > 0 == found.prompt_s
    assert found.context_tokens == plain.context_tokens == 128 + 10
    assert value("prefill_compute_share", on_h200(**cached)) is None
    assert value("prefill_floor_share", on_h200(**cached)) is None


def test_a_step_reads_the_weights_once_and_every_cache() -> None:
    found = utilization.DeviceLimits(weights_s=0.004, kv_token_s=1e-7, prompt_s=0.0, context_tokens=1000)
    assert found.step_s(10) == pytest.approx(0.005)


def test_shares_follow_their_definitions() -> None:
    seen = on_h200()
    found, flight = utilization.limits(seen), throughput.concurrency_mean(seen)
    assert found is not None
    assert flight is not None
    assert 2 < flight < 4
    assert value("decode_bandwidth_share", seen) == pytest.approx(found.step_s(flight) / 0.01)
    assert value("prefill_compute_share", seen) == pytest.approx(found.prompt_s / 0.1)
    tokens, requests = throughput.output_tokens_per_s(seen), throughput.requests_per_s(seen)
    assert tokens is not None
    assert requests is not None
    assert value("decode_floor_share", seen) == pytest.approx(tokens / flight * found.step_s(flight))
    assert value("prefill_floor_share", seen) == pytest.approx(requests * found.prompt_s)


def test_no_more_decode_together_than_the_engine_takes_and_one_at_the_least() -> None:
    seen = on_h200()
    config = seen.run.point.config.model_copy(update={"max_num_seqs": 2})
    few = replace(seen, run=replace(seen.run, point=replace(seen.run.point, config=config)))
    few.__dict__["window"] = seen.window
    assert utilization._batch(few) == 2
    rare = view(record(0, 1.0), start=0.0, end=10.0, place=seen.place)
    assert utilization._batch(rare) == 1.0


@pytest.mark.parametrize(
    ("decode", "prefill", "said"),
    [
        (0.5, 0.1, "memory bandwidth in decode binds (50% of the time)"),
        (0.49, 0.1, "neither limit binds: 41% of the time is neither memory nor matrix work"),
        (0.2, 0.5, "matrix rate in prefill binds (50% of the time)"),
        (0.2, None, "neither limit binds: 80% of the time is neither memory nor matrix work"),
    ],
)
def test_a_limit_binds_from_half_of_the_time_on(decode: float, prefill: float | None, said: str) -> None:
    assert utilization.binds({"decode_floor_share": decode, "prefill_floor_share": prefill}) == said


# --- histograms -----------------------------------------------------------------------------------


def test_a_bucket_is_the_one_of_the_nearest_rank() -> None:
    found = Histogram(np.array([1.0, 2.0, math.inf]), np.array([5.0, 4.0, 1.0]))
    assert found.count == 10
    assert [found.bucket(q) for q in (0.1, 0.5, 0.51, 0.9, 0.91, 1.0)] == [
        (0.0, 1.0), (0.0, 1.0), (1.0, 2.0), (1.0, 2.0), (2.0, math.inf), (2.0, math.inf),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("client_s", "agrees"), [(0.049, False), (0.051, True), (0.35, True), (0.351, False)]
)
def test_a_quantile_may_lie_one_bucket_beside(client_s: float, agrees: bool) -> None:
    """The server's bucket is 0.15 to 0.25 s."""
    pair = Pair("TTFT", "p50", client_s, 0.15, 0.25)
    assert pair.agrees == agrees
    assert pair.server_s == pytest.approx(0.2)
    assert Pair("TTFT", "p50", client_s, 0.15, math.inf).server_s == 0.15


@pytest.mark.parametrize(("count", "compared"), [(89, False), (90, True), (110, True), (111, False)])
def test_a_histogram_of_other_requests_is_not_compared(count: int, compared: bool) -> None:
    records = [record(i, 0.1 * i, ttft_s=0.1) for i in range(100)]
    name = "server:vllm:time_to_first_token_seconds_bucket|le="
    grown = [(edge, float(count)) for edge in ("0.2", "+Inf")]
    samples = [s for edge, top in grown for s in series(f"{name}{edge}", (-1.0, 7.0), (99.0, 7.0 + top))]
    found = reconcile(view(*records, start=0.0, end=10.0, samples=tuple(samples)))
    assert [pair.statistic for pair in found] == (["p50", "p90"] if compared else [])
    assert all(pair.latency == "TTFT" and (pair.low_s, pair.high_s) == (0.0, 0.2) for pair in found)


def test_time_per_token_is_compared_over_answers_of_two_tokens_and_more() -> None:
    """Eleven answers of three tokens in 0.4 s are 0.2 s a token; of one token there is none, and failed ones have none."""
    three = [made(i, float(i), (i + 0.1, i + 0.2, i + 0.5)) for i in range(11)]
    others = [made(50, 3.0, (4.0,)), failed(made(51, 3.0, (4.0, 5.0, 6.0, 7.0)))]
    name = "server:vllm:request_time_per_output_token_seconds_bucket|le="
    samples = [s for edge in ("0.25", "+Inf") for s in series(f"{name}{edge}", (-1.0, 0.0), (99.0, 11.0))]
    (pair,) = reconcile(view(*three, *others, samples=tuple(samples)))
    assert (pair.latency, pair.statistic, pair.low_s, pair.high_s) == ("TPOT", "p50", 0.0, 0.25)
    assert pair.client_s == pytest.approx(0.2)
    assert reconcile(view(*three, samples=tuple(samples), load={"stream": False})) == []
    two = [made(i, float(i), (i + 0.1, i + 0.4)) for i in range(11)]
    (pair,) = reconcile(view(*two, samples=tuple(samples)))
    assert pair.client_s == pytest.approx(0.3)


def test_littles_law_of_a_moment() -> None:
    """One request that took a quarter of a second."""
    assert value("littles_law_ratio", view(made(0, 5.0, (5.25,)))) == pytest.approx(1.0)
