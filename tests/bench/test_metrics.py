"""METRICS on runs whose numbers are known, and what they must refuse to say."""

from __future__ import annotations

import datetime
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.metrics import METRICS, compute, needed, percentiles
from bench.metrics.view import View
from bench.records.model import RequestError, Run, Sample
from bench.scenario.model import Price
from bench.scenario.slo import LATENCIES, STATISTICS, parse
from tests.support.synthetic import closed_loop, failed, gauge, open_loop, point, record

PRICE = Price(per_hour=3.6, currency="USD", source="test", date=datetime.date(2026, 1, 1), per="gpu")


def regular(requests: int = 700, gap_s: float = 0.02, **of_record: object) -> Run:
    """Constant arrivals, every request alike: throughputs and latencies are exact."""
    records = tuple(record(i, i * gap_s, **of_record) for i in range(requests))
    made = point(arrivals="constant", rate_per_s=1 / gap_s, requests=requests)
    return Run(point=made, records=records, load_end_s=requests * gap_s)


def test_a_regular_run_has_its_exact_numbers():
    run = regular()
    two = run.point.config.model_copy(update={"tensor_parallel_size": 2})
    found = compute(replace(run, point=replace(run.point, config=two)), price=PRICE)
    exact = {
        "ttft_p50_ms": 100.5, "ttft_p99_ms": 100.5, "ttft_sent_p50_ms": 100.0, "ttft_mean_ms": 100.5,
        "e2e_p50_ms": 290.5, "e2e_sent_p50_ms": 290.0, "tpot_p50_ms": 10.0, "icl_p50_ms": 10.0,
        "schedule_lag_p50_ms": 0.5, "good_share": 1.0, "error_rate": 0.0, "censored_share": 0.0,
        "dispatched_share": 1.0, "output_tokens_mean": 20.0, "input_tokens_mean": 128.0,
        "tokens_per_event": 1.0, "ttft_p50_adjusted_ms": 100.5,
    }  # fmt: skip
    assert {name: found[name] for name in exact} == pytest.approx(exact)
    about = {
        "request_throughput_per_s": 50.0, "output_token_throughput_per_s": 1000.0, "goodput_per_s": 50.0,
        "input_token_throughput_per_s": 6400.0, "total_token_throughput_per_s": 7400.0,
        "offered_rate_per_s": 50.0, "concurrency_mean": 14.5, "littles_law_ratio": 1.0,
        "cost_per_million_output_tokens": 2 * 3.6 / (3600 * 1000) * 1e6,
    }  # fmt: skip
    assert {name: found[name] for name in about} == pytest.approx(about, rel=0.01)
    total = 700 * 20 / (699 * 0.02 + 0.2905)
    assert found["output_token_throughput_total_run_per_s"] == pytest.approx(total)


def test_every_slo_names_a_metric():
    for latency in LATENCIES:
        for statistic in STATISTICS:
            assert parse(f"{latency}:{statistic}<=1s").name in METRICS
    assert parse("error_rate<=1%").name in METRICS


def test_units_stand_in_the_names():
    endings = {"ms": "_ms", "s": "_s", "bytes": "_bytes", "share": ("_share", "_rate"), "us": "us_per_event",
               "tokens/s": "_per_s", "requests/s": "_per_s", "W": "_w"}  # fmt: skip
    for name, metric in METRICS.items():
        if not name.startswith("error_rate_"):
            assert name.endswith(endings.get(metric.unit, "")), name
        assert metric.doc
        assert metric.source


def test_percentiles_below_their_floor_are_withheld_and_say_what_they_need():
    run = regular(requests=664)
    shorter = replace(run, records=run.records[:600], load_end_s=600 * 0.02)
    inside = int(View(shorter).inside.sum())
    assert inside < 662
    assert compute(shorter)["ttft_p99_ms"] is None
    assert percentiles(shorter)["ttft_ms"]["p99"] is None
    assert percentiles(shorter)["ttft_ms"]["p95"] == pytest.approx(100.5)
    assert needed(shorter)["ttft_p99_ms"] == 662
    assert "ttft_p95_ms" not in needed(shorter)
    assert percentiles(shorter)["icl_ms"]["p99"] == pytest.approx(10.0), "events, not requests, are counted"
    assert set(percentiles(run)) == {"ttft_ms", "tpot_ms", "e2e_ms", "icl_ms", "schedule_lag_ms"}


def test_failures_stay_in_every_denominator():
    run = regular()
    broken = tuple(failed(r) if r.index % 4 == 0 else r for r in run.records)
    found = compute(replace(run, records=broken), slos=[parse("ttft:p99<=200ms")])
    assert found["error_rate"] == pytest.approx(0.25, abs=0.01)
    assert found["error_rate_reset"] == found["error_rate"]
    assert found["error_rate_timeout"] == 0
    assert found["good_share"] == pytest.approx(0.75, abs=0.01)
    assert found["ttft_p50_ms"] == pytest.approx(100.5)
    assert found["ttft_p50_adjusted_ms"] == pytest.approx(100.5)
    assert found["ttft_p90_adjusted_ms"] == math.inf
    assert found["output_token_throughput_per_s"] == pytest.approx(750, rel=0.02), (
        "failed output is no output"
    )


def test_censored_requests_are_counted_not_dropped():
    run = regular()
    cut = tuple(
        replace(r, error=RequestError.CENSORED, last_s=None, closed_s=None, event_s=r.event_s[:5],
                output_tokens=None, counted_output_tokens=None)
        if r.index % 10 == 0 else r
        for r in run.records
    )  # fmt: skip
    found = compute(replace(run, records=cut))
    assert found["censored_share"] == pytest.approx(0.1, abs=0.01)
    assert found["error_rate"] == 0
    assert found["e2e_p95_adjusted_ms"] == math.inf
    assert found["output_token_throughput_per_s"] == pytest.approx(900 + 100 * 5 / 20, rel=0.02)


def test_goodput_counts_requests_within_every_limit():
    run = regular()
    slow = tuple(record(r.index, r.planned_s, ttft_s=0.5) if r.index % 5 == 0 else r for r in run.records)
    limits = [parse("ttft:p99<=200ms"), parse("tpot:p99<=50ms"), parse("error_rate<=1%")]
    found = compute(replace(run, records=slow), slos=limits, price=PRICE)
    assert found["good_share"] == pytest.approx(0.8, abs=0.01)
    assert found["goodput_per_s"] == pytest.approx(40, rel=0.02)
    good, every = found["cost_per_million_good_tokens"], found["cost_per_million_output_tokens"]
    assert good == pytest.approx(every / 0.8, rel=0.02)
    halting = tuple(
        replace(r, event_s=(*r.event_s[:10], *(t + 0.1 for t in r.event_s[10:]))) if r.index % 5 == 0 else r
        for r in run.records
    )
    found = compute(replace(run, records=halting), slos=[parse("icl:p99<=50ms")])
    assert found["good_share"] == pytest.approx(0.8, abs=0.01)


def test_several_tokens_an_event():
    """Four tokens every 40 ms, the server says so: ICL 40 ms, ITL and TPOT by token."""
    run = regular(tokens=40, tokens_per_event=4, step_s=0.04)
    told = tuple(replace(r, event_tokens=(4,) * 10) for r in run.records)
    found = compute(replace(run, records=told))
    assert found["tokens_per_event"] == 4
    assert found["icl_p50_ms"] == pytest.approx(40)
    assert found["itl_p50_ms"] == pytest.approx(10)
    assert found["tpot_p50_ms"] == pytest.approx(360 / 39)
    assert found["tpot_event_p50_ms"] == pytest.approx(10)
    untold = compute(run)
    assert untold["itl_p50_ms"] is None
    assert untold["tpot_event_p50_ms"] is None
    assert untold["output_token_throughput_per_s"] == pytest.approx(2000, rel=0.02)


def test_reasoning_parts_ttft_from_ttfo():
    thinking = tuple(replace(r, first_answer_s=r.event_s[10]) for r in regular().records)
    found = compute(replace(regular(), records=thinking))
    assert found["ttfo_p50_ms"] - found["ttft_p50_ms"] == pytest.approx(100)


def test_one_token_answers_have_no_tpot():
    found = compute(regular(tokens=1))
    assert found["tpot_p50_ms"] is None
    assert found["e2e_p50_ms"] == pytest.approx(100.5)


def test_unknown_output_is_no_throughput():
    mute = tuple(replace(r, output_tokens=None, counted_output_tokens=None) for r in regular().records)
    found = compute(replace(regular(), records=mute), price=PRICE)
    for name in ("output_token_throughput_per_s", "cost_per_million_output_tokens", "tpot_p50_ms"):
        assert found[name] is None
    assert found["request_throughput_per_s"] == pytest.approx(50, rel=0.01)
    counted = tuple(replace(r, output_tokens=None) for r in regular().records)
    assert compute(replace(regular(), records=counted))["output_token_throughput_per_s"] == pytest.approx(
        1000, rel=0.02
    )


def test_what_is_not_streamed_has_no_first_token():
    run = regular()
    load = replace(run.point.load, stream=False)
    whole = tuple(replace(r, first_s=r.last_s, event_s=(r.last_s,)) for r in run.records)
    found = compute(replace(run, point=replace(run.point, load=load), records=whole))
    assert found["ttft_p50_ms"] is None
    assert found["icl_p50_ms"] is None
    assert found["e2e_p50_ms"] == pytest.approx(290.5)


def test_open_loop_latency_counts_the_client_waiting():
    found = compute(regular(lag_s=1.0))
    assert found["ttft_p50_ms"] == pytest.approx(1100)
    assert found["ttft_sent_p50_ms"] == pytest.approx(100)
    assert found["schedule_lag_p50_ms"] == pytest.approx(1000)


def test_without_telemetry_or_price_nothing_is_made_up():
    found = compute(regular())
    unknown = ("memory_peak_bytes", "device_memory_peak_bytes", "kv_cache_peak_share", "queue_peak",
               "preemptions", "cache_hit_share", "energy_j_per_output_token", "power_mean_w",
               "cost_per_million_output_tokens", "client_cpu_share")  # fmt: skip
    assert all(found[name] is None for name in unknown)


def test_a_point_without_requests_has_no_numbers():
    found = {name: value for name, value in compute(Run(point())).items() if value}
    assert found == {}
    assert needed(Run(point())) == {}


def test_telemetry():
    hits = gauge("server:vllm:prefix_cache_hits_total", lambda t: 10 * t, 15)
    queries = gauge("server:vllm:prefix_cache_queries_total", lambda t: 100 * t, 15)
    waiting = gauge("server:vllm:num_requests_waiting", lambda t: 7.0 if t == 3 else 0.0, 15)
    kv = gauge("server:vllm:kv_cache_usage_perc", 0.4, 15)
    evicted = gauge("server:vllm:num_preemptions_total", lambda t: 5.0 + (t > 2), 15)
    rss = gauge("rss_bytes", 3e9, 15)
    run = replace(regular(), samples=(*hits, *queries, *waiting, *kv, *evicted, *rss))
    found = compute(run)
    assert found["cache_hit_share"] == pytest.approx(0.1)
    assert (found["queue_peak"], found["kv_cache_peak_share"], found["preemptions"]) == (7, 0.4, 1)
    assert found["memory_peak_bytes"] == 3e9
    one_gpu = gauge("gpu0_memory_bytes", 2e10, 15)
    two = [*one_gpu, *gauge("gpu1_memory_bytes", 1e10, 15)]
    assert compute(replace(run, samples=(*rss, *two)))["memory_peak_bytes"] == 3e10
    half = [*one_gpu, *gauge("gpu1_power_w", 300, 15)]
    assert compute(replace(run, samples=tuple(half)))["memory_peak_bytes"] is None, (
        "a card's share is unknown"
    )


def test_cached_tokens_of_usage_stand_in_for_server_counters():
    told = tuple(replace(r, cached_input_tokens=32) for r in regular().records)
    assert compute(replace(regular(), records=told))["cache_hit_share"] == pytest.approx(0.25)


def test_energy_needs_a_long_window_and_every_card():
    run = regular()
    joules = [s for i in (0, 1) for s in gauge(f"gpu{i}_energy_j", lambda t: 5e6 + 200 * t, 15)]
    found = compute(replace(run, samples=tuple(joules)))
    assert found["energy_j_per_output_token"] == pytest.approx(400 / 1000, rel=0.02)
    assert found["power_mean_w"] == pytest.approx(400)
    slow = [Sample(0.0, "gpu0_energy_update_period_s", 1.0)]
    assert compute(replace(run, samples=(*joules, *slow)))["energy_j_per_output_token"] is None
    reset = gauge("gpu0_energy_j", lambda t: 200 * (t % 7), 15)
    assert compute(replace(run, samples=tuple(reset)))["energy_j_per_output_token"] is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 0.6), st.integers(1, 8), st.integers(1, 12))
def test_whatever_the_records_the_metrics_hold_together(seed, broken, users, rounds):
    rng = np.random.default_rng(seed)

    def damage(records):
        kinds = list(RequestError)
        return [failed(r, kinds[rng.integers(len(kinds))]) if rng.random() < broken else r for r in records]

    found = compute(closed_loop(users, rounds, seed=seed % 1000, change=damage))
    shares = [
        found[n] for n in METRICS if METRICS[n].unit == "share" and found[n] is not None and "cpu" not in n
    ]
    assert all(0 <= share <= 1 for share in shares)
    assert found["good_share"] + found["error_rate"] + found["censored_share"] == pytest.approx(1)
    by_class = sum(v for n, v in found.items() if n.startswith("error_rate_"))
    assert by_class == pytest.approx(found["error_rate"])
    assert not any(v is not None and math.isnan(v) for v in found.values())


def test_a_million_events_take_seconds():
    run = open_loop(requests=50_000)
    begun = time.process_time()
    compute(run)
    assert time.process_time() - begun < 10
