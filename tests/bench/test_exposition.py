"""What a server says of itself, flattened: names kept, labels added up, shares averaged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from bench.telemetry.exposition import NotExpositionError, flatten, only

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.2
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.6
# TYPE vllm:request_success_total counter
vllm:request_success_total{finished_reason="stop",model_name="m"} 10.0
vllm:request_success_total{finished_reason="length",model_name="m"} 5.0
# TYPE vllm:request_success_created gauge
vllm:request_success_created{finished_reason="stop",model_name="m"} 1.7e9
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 1.5
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="m"} 2.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 3.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="0.1",model_name="m"} 5.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="+Inf",model_name="m"} 7.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 3.0
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="128",engine="0"} 1.0
# TYPE vllm:unset gauge
vllm:unset NaN
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 1e9
# TYPE rpc_seconds summary
rpc_seconds{quantile="0.5"} 4
rpc_seconds_sum 8
"""


def test_series_of_vllm():
    found = flatten(VLLM)
    assert found.values == {
        "vllm:num_requests_running": 7.0,
        "vllm:kv_cache_usage_perc": pytest.approx(0.4),
        "vllm:request_success_total": 15.0,
        "vllm:time_to_first_token_seconds_sum": 1.5,
        "vllm:time_to_first_token_seconds_count": 3.0,
        "vllm:time_to_first_token_seconds_bucket|le=0.1": 7.0,
        "vllm:time_to_first_token_seconds_bucket|le=+Inf": 10.0,
        "rpc_seconds_sum": 8.0,
    }
    assert found.scalars == (
        "vllm:num_requests_running",
        "vllm:kv_cache_usage_perc",
        "vllm:request_success_total",
    )


def test_the_cut_gives_the_same_scalars():
    whole = flatten(VLLM)
    part = flatten(only(VLLM, whole.scalars))
    assert part.values == {name: whole.values[name] for name in whole.scalars}


def test_the_cut_takes_whole_names_only():
    text = 'a 1\nab 2\na_bucket{le="1"} 3\n# TYPE a gauge\n'
    assert only(text, ["a"]) == "a 1\n"


@pytest.mark.parametrize("text", ["<html>not found</html>", '{"error": 1}', 'a{b="c} 1', "a one"])
def test_something_else_is_refused(text):
    with pytest.raises(NotExpositionError):
        flatten(text)


def test_empty_is_no_series():
    assert flatten("").values == {}


label_values = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
numbers = st.floats(min_value=0, max_value=1e12, allow_nan=False)


@given(st.dictionaries(label_values, numbers, min_size=1, max_size=5))
def test_labels_are_added_up_whatever_they_hold(values):
    registry = CollectorRegistry()
    gauge = Gauge("queue", "text", ["of"], registry=registry)
    counter = Counter("done", "text", ["of"], registry=registry)
    Info("build", "text", registry=registry).info({"version": "1"})
    for label, value in values.items():
        gauge.labels(label).set(value)
        counter.labels(label).inc(value)
    text = generate_latest(registry).decode()
    found = flatten(text)
    assert found.values == {
        "queue": pytest.approx(sum(values.values())),
        "done_total": pytest.approx(sum(values.values())),
    }
    assert flatten(only(text, found.scalars)).values == found.values


@given(st.lists(st.floats(min_value=0, max_value=10), max_size=30))
def test_histogram_counts_are_those_observed(observed):
    registry = CollectorRegistry()
    histogram = Histogram("wait_seconds", "text", buckets=(0.5, 5), registry=registry)
    for value in observed:
        histogram.observe(value)
    values = flatten(generate_latest(registry).decode()).values
    assert values["wait_seconds_bucket|le=0.5"] == sum(v <= 0.5 for v in observed)
    assert values["wait_seconds_bucket|le=+Inf"] == values["wait_seconds_count"] == len(observed)
    assert values["wait_seconds_sum"] == pytest.approx(sum(observed))
