"""Every threshold of the checks: the last value that is let pass and the first that is not, in a window of our choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bench.checks import answers, client, machine, server, steadiness
from bench.checks.case import Case, Finding, graded
from bench.metrics.histogram import Pair
from bench.metrics.view import View
from bench.metrics.window import Drift, Window
from bench.proof.calibration import Calibration
from bench.records.model import ClientHealth, Record, RequestError, Run, Sample
from bench.scenario.slo import parse
from tests.support.synthetic import HEALTHY, failed, point, record

N = 1000


def case(
    change: Callable[[int, Record], Record] = lambda _, r: r,
    *,
    n: int = N,
    ttft_s: float = 0.01,
    tokens: int = 20,
    health: ClientHealth | None = HEALTHY,
    samples: tuple[Sample, ...] = (),
    window: Window | None = None,
    **load: Any,
) -> Case:
    """One request a second, all of them due in the window."""
    given = {"arrivals": "poisson", "rate_per_s": 1.0, "requests": n, **load}
    records = [record(i, float(i), ttft_s=ttft_s, step_s=0.001, tokens=tokens, lag_s=0.0) for i in range(n)]
    changed = tuple(change(i, r) for i, r in enumerate(records))
    run = Run(point=point(**given), records=changed, samples=samples, client=health, load_end_s=float(n))
    view = View(run).section(0.0, float(n))
    if window is not None:
        view.__dict__["window"] = window
    return Case(view)


def first(count: int, change: Callable[[Record], Record]) -> Callable[[int, Record], Record]:
    return lambda i, r: change(r) if i < count else r


def verdict(found: Finding | None) -> str | None:
    return None if found is None else found.verdict


def censor(r: Record) -> Record:
    return replace(r, error=RequestError.CENSORED, last_s=None, closed_s=None, output_tokens=None)


def told(tokens: int, counted: int | None = None) -> Callable[[Record], Record]:
    return lambda r: replace(
        r, output_tokens=tokens, counted_output_tokens=tokens if counted is None else counted
    )


def test_graded_is_strict() -> None:
    assert graded(1.0, 1.0, 2.0, "", "") is None
    assert verdict(graded(1.1, 1.0, 2.0, "", "")) == verdict(graded(2.0, 1.0, 2.0, "", "")) == "suspect"
    assert graded(2.1, 1.0, 2.0, "text", "remedy") == Finding("invalid", "text", "remedy")
    assert graded(float("nan"), 1.0, 2.0, "", "") is None


# --- answers --------------------------------------------------------------------------------------

BY_SHARE = [(10, None), (11, "suspect"), (100, "suspect"), (101, "invalid")]


@pytest.mark.parametrize(("count", "expected"), BY_SHARE)
def test_errors_from_one_and_from_ten_per_cent(count: int, expected: str | None) -> None:
    assert verdict(answers.errors(case(first(count, failed)))) == expected


@pytest.mark.parametrize(("count", "expected"), BY_SHARE)
def test_censored_from_one_and_from_ten_per_cent(count: int, expected: str | None) -> None:
    assert verdict(answers.censored(case(first(count, censor)))) == expected


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(89, "invalid"), (90, "suspect"), (100, None), (110, "suspect"), (111, "invalid")],
)
def test_lengths_within_a_tenth_of_what_was_asked(tokens: int, expected: str | None) -> None:
    assert verdict(answers.output_length(case(lambda _, r: told(tokens)(r), tokens=100))) == expected


@pytest.mark.parametrize(("count", "expected"), [(0, None), (10, None), (11, "suspect")])
def test_one_per_cent_may_be_of_another_length(count: int, expected: str | None) -> None:
    assert verdict(answers.output_length(case(first(count, told(21))))) == expected


def test_answers_without_a_forced_length_or_without_tokens_are_no_strays() -> None:
    assert answers.output_length(case(lambda _, r: replace(told(3)(r), asked_output_tokens=0))) is None
    unknown = first(500, lambda r: replace(r, output_tokens=None, counted_output_tokens=None))
    assert answers.output_length(case(unknown)) is None
    by_count = lambda _, r: replace(r, output_tokens=None, counted_output_tokens=30)  # noqa: E731
    found = answers.output_length(case(by_count))
    assert found is not None
    assert found.text == "answers are 150% as long as asked for"


@pytest.mark.parametrize(("count", "expected"), [(10, None), (11, "suspect")])
def test_one_per_cent_may_end_for_another_reason(count: int, expected: str | None) -> None:
    found = answers.finish_reason(case(first(count, lambda r: replace(r, finish_reason="stop"))))
    assert verdict(found) == expected
    if found is not None:
        assert found.text.startswith("11 of 1000 answers ended with 'stop'")


def test_reasons_that_were_not_told_or_not_asked_for_do_not_count() -> None:
    mute = case(lambda i, r: replace(r, finish_reason="stop" if i < 1 else None if i < 50 else "length"))
    assert answers.finish_reason(mute) is None
    free = case(lambda _, r: replace(r, finish_reason="stop", asked_output_tokens=0))
    assert answers.finish_reason(free) is None


def test_one_answer_without_usage_is_suspect_and_one_unknown_is_invalid() -> None:
    assert answers.no_usage(case()) is None
    mute = answers.no_usage(case(first(1, lambda r: replace(r, output_tokens=None))))
    assert mute is not None
    assert (mute.verdict, mute.text[:26]) == ("suspect", "1 of 1000 answers came wit")
    blind = answers.no_usage(
        case(first(2, lambda r: replace(r, output_tokens=None, counted_output_tokens=None)))
    )
    assert blind is not None
    assert (blind.verdict, blind.text) == ("invalid", "output tokens of 2 of 1000 answers are unknown")


@pytest.mark.parametrize(
    ("count", "usage", "counted", "expected"),
    [
        (1000, 20, 22, None),  # two tokens apart are no disagreement
        (66, 20, 23, None),  # 0.99% more text in all
        (67, 20, 23, "suspect"),
        (99, 20, 10, None),  # 4.95% less text in all
        (101, 20, 10, "suspect"),
        (200, 20, 10, "suspect"),
        (201, 20, 10, "invalid"),
        (10, 20, 60, None),  # one answer in a hundred
        (11, 20, 60, "suspect"),
    ],
)
def test_our_count_against_usage(count: int, usage: int, counted: int, expected: str | None) -> None:
    assert verdict(answers.token_counts(case(first(count, told(usage, counted))))) == expected


@pytest.mark.parametrize(("counted", "expected"), [(1010, None), (1011, "suspect")])
def test_long_answers_may_differ_by_one_per_cent(counted: int, expected: str | None) -> None:
    assert verdict(answers.token_counts(case(lambda _, r: told(1000, counted)(r)))) == expected


def test_answers_that_only_one_side_counted_are_not_compared() -> None:
    assert answers.token_counts(case(lambda _, r: replace(r, output_tokens=None))) is None
    assert answers.token_counts(case(lambda _, r: replace(r, counted_output_tokens=None))) is None


# --- the client -----------------------------------------------------------------------------------


def lagging(lag_s: float, every: int = 1) -> Callable[[int, Record], Record]:
    def change(i: int, r: Record) -> Record:
        assert r.first_s is not None
        assert r.last_s is not None
        by = lag_s if i % every == 0 else 0.0
        return replace(r, sent_s=r.planned_s + by, first_s=r.first_s + by, last_s=r.last_s + by)

    return change


@pytest.mark.parametrize(
    ("lag_ms", "ttft_s", "expected"),
    [
        (2.9, 0.01, None), (3.1, 0.01, "suspect"), (14.9, 0.01, "suspect"), (15.1, 0.01, "invalid"),
        (99.0, 1.0, None), (101.0, 1.0, "suspect"), (499.0, 1.0, "suspect"), (501.0, 1.0, "invalid"),
    ],
)  # fmt: skip
def test_the_median_lag_against_the_median_ttft(lag_ms: float, ttft_s: float, expected: str | None) -> None:
    assert verdict(client.schedule_lag(case(lagging(lag_ms / 1e3), ttft_s=ttft_s))) == expected


@pytest.mark.parametrize(
    ("lag_ms", "ttft_s", "expected"),
    [
        (9.9, 0.01, None), (10.1, 0.01, "suspect"), (49.9, 0.01, "suspect"), (50.1, 0.01, "invalid"),
        (99.0, 1.0, None), (101.0, 1.0, "suspect"), (499.0, 1.0, "suspect"), (501.0, 1.0, "invalid"),
    ],
)  # fmt: skip
def test_the_99th_percentile_of_the_lag(lag_ms: float, ttft_s: float, expected: str | None) -> None:
    """One request in fifty leaves late: the median is not."""
    found = client.schedule_lag(case(lagging(lag_ms / 1e3, every=50), ttft_s=ttft_s))
    assert verdict(found) == expected
    assert found is None or "(99th percentile)" in found.text


def test_what_is_not_streamed_is_held_against_the_whole_answer() -> None:
    """E2E of 29 ms with a TTFT of 10: a hub delay of 10 ms is the limit in both; of 1 s and 19 ms 51 ms are."""
    slow = case(ttft_s=1.0, stream=False, health=replace(HEALTHY, hub_delay_p99_ms=51.1))
    assert verdict(client.hub_delay(slow)) == "suspect"
    fine = case(ttft_s=1.0, stream=False, health=replace(HEALTHY, hub_delay_p99_ms=50.8))
    assert client.hub_delay(fine) is None


@pytest.mark.parametrize(
    ("share", "expected"), [(0.80, None), (0.81, "suspect"), (0.95, "suspect"), (0.96, "invalid")]
)
def test_the_share_of_a_core(share: float, expected: str | None) -> None:
    assert verdict(client.client_cpu(case(n=20, health=replace(HEALTHY, cpu_share=share)))) == expected
    assert client.client_cpu(case(n=20, health=None)) is None


@pytest.mark.parametrize(
    ("delay_ms", "ttft_s", "expected"),
    [
        (10.0, 0.01, None), (10.1, 0.01, "suspect"), (50.0, 0.01, "suspect"), (50.1, 0.01, "invalid"),
        (49.0, 1.0, None), (51.0, 1.0, "suspect"), (249.0, 1.0, "suspect"), (251.0, 1.0, "invalid"),
        (None, 0.01, None),
    ],
)  # fmt: skip
def test_the_delay_of_the_event_loop(delay_ms: float | None, ttft_s: float, expected: str | None) -> None:
    found = client.hub_delay(case(ttft_s=ttft_s, health=replace(HEALTHY, hub_delay_p99_ms=delay_ms)))
    assert verdict(found) == expected


@pytest.mark.parametrize(("late", "expected"), [(10, None), (11, "invalid")])
def test_99_per_cent_of_what_was_due_must_have_left(late: int, expected: str | None) -> None:
    never = first(late, lambda r: replace(r, sent_s=5000.0))
    assert verdict(client.rate_not_reached(case(never))) == expected
    assert client.rate_not_reached(case(never, arrivals="closed", concurrency=4, rate_per_s=None)) is None


def test_one_mean_gap_after_the_last_planned_one_is_still_in_time() -> None:
    """A thousand requests from 0 to 999 s: 0.999 s and 10 ms of grace."""
    for sent_s, expected in ((1000.0085, None), (1000.0095, "invalid")):
        leaves = lambda r, sent_s=sent_s: replace(r, sent_s=sent_s)  # noqa: E731
        assert verdict(client.rate_not_reached(case(first(20, leaves)))) == expected


@pytest.mark.parametrize(
    ("limit", "workers", "expected"),
    [(20.0, 1, None), (19.9, 1, "invalid"), (20.0, 2, None), (19.9, None, "invalid")],
)
def test_events_a_second_against_the_calibration(
    limit: float, workers: int | None, expected: str | None
) -> None:
    """A thousand answers of 20 events in 1,000 s."""
    health = None if workers is None else replace(HEALTHY, workers=workers)
    found = client.calibrated(replace(case(health=health), calibration=Calibration(events_per_s=limit)))
    assert verdict(found) == expected
    assert client.calibrated(case()) is None
    empty = case(window=Window(5.0, 5.0))
    assert client.calibrated(replace(empty, calibration=Calibration(events_per_s=1.0))) is None


def test_a_calibration_of_two_workers_is_halved_for_one() -> None:
    made = Calibration(events_per_s=39.0, workers=2)
    found = client.calibrated(replace(case(), calibration=made))
    assert found is not None
    assert found.text == (
        "20 output events a second; the client on this machine is calibrated up to 20 with 1 worker"
    )
    two = replace(case(health=replace(HEALTHY, workers=2)), calibration=made)
    assert client.calibrated(two) is None


# --- steadiness -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "slos", "text"),
    [
        (11, (), None), (10, (), "10 requests in the steady window; a p50 needs 11"),
        (64, ("ttft:p90<=1s", "error_rate<=1%"), None),
        (63, ("ttft:p90<=1s", "ttft:p50<=1s"), "63 requests in the steady window; a p90 needs 64"),
        (11, ("ttft:mean<=1s",), None),
    ],
)  # fmt: skip
def test_the_floor_of_the_highest_percentile_asked_for(
    n: int, slos: tuple[str, ...], text: str | None
) -> None:
    made = case(n=n)
    view = made.view.section(0.0, float(n))
    asked = replace(view, slos=tuple(parse(slo) for slo in slos))
    asked.__dict__.update(
        {k: v for k, v in view.__dict__.items() if k in {"records", "requests", "events", "window"}}
    )
    found = steadiness.too_few_samples(Case(asked))
    assert (found and found.text) == text


@pytest.mark.parametrize(
    ("drift", "arrivals", "expected"),
    [
        (Drift("x", 0.2, 4.4), "poisson", None),
        (Drift("x", 0.2, -4.6), "poisson", "suspect"),
        (Drift("x", -0.2, 4.5), "poisson", "suspect"),
        (Drift("x", 0.14, 9.0), "poisson", None),
        (Drift("x", 0.15, 9.0), "poisson", "suspect"),
        (Drift("x", 0.9, 9.0), "poisson", "suspect"),
        (Drift("requests in flight", 0.75, 9.0), "poisson", "suspect"),
        (Drift("requests in flight", 0.76, 9.0), "poisson", "invalid"),
        (Drift("requests in flight", -0.9, -9.0), "poisson", "suspect"),
        (Drift("requests in flight", 0.9, 9.0), "closed", "suspect"),
    ],
)
def test_a_trend_must_be_large_and_sure(drift: Drift, arrivals: str, expected: str | None) -> None:
    load: dict[str, Any] = {"concurrency": 2, "rate_per_s": None} if arrivals == "closed" else {}
    window = Window(0.0, 20.0, drifts=(Drift("quiet", 0.0, 0.0), drift))
    assert verdict(steadiness.not_steady(case(n=20, window=window, arrivals=arrivals, **load))) == expected


def test_a_queue_without_end_is_said_before_an_earlier_trend() -> None:
    drifts = (Drift("x", 0.2, 9.0), Drift("y", 0.3, 9.0), Drift("requests in flight", 2.0, 9.0))
    found = steadiness.not_steady(case(n=20, window=Window(0.0, 20.0, drifts=drifts)))
    assert found is not None
    assert "requests in flight grew by 200%" in found.text
    suspect = steadiness.not_steady(case(n=20, window=Window(0.0, 20.0, drifts=drifts[:2])))
    assert suspect is not None
    assert suspect.text.startswith("x changed by +20%")


def test_a_run_without_a_steady_part_is_suspect() -> None:
    found = steadiness.not_steady(case(n=20, window=Window(0.0, 20.0, True, "too short")))
    assert found is not None
    assert (found.verdict, "(too short)" in found.text) == ("suspect", True)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(1.11, None), (0.89, None), (1.13, "suspect"), (0.87, "suspect"), (1.26, "suspect"), (1.28, "invalid")],
)
def test_littles_law_to_a_tenth_and_the_edge(
    monkeypatch: pytest.MonkeyPatch, ratio: float, expected: str | None
) -> None:
    """Two in flight of 100 due: 2% more on either limit."""
    monkeypatch.setattr(steadiness, "littles_law_ratio", lambda _: ratio)
    monkeypatch.setattr(steadiness, "concurrency_mean", lambda _: 2.0)
    assert verdict(steadiness.littles_law(case(n=100))) == expected
    assert steadiness.littles_law(case(n=100, window=Window(0.0, 100.0, True, "short"))) is None
    assert steadiness.littles_law(case(n=100, window=Window(500.0, 600.0))) is None


# --- the server and the machine -------------------------------------------------------------------


def counters(hits: float, queries: float = 1000.0) -> tuple[Sample, ...]:
    names = {"server:vllm:prefix_cache_hits_total": hits, "server:vllm:prefix_cache_queries_total": queries}
    return tuple(
        Sample(t, name, top * share) for name, top in names.items() for t, share in ((0.0, 0.0), (10.0, 1.0))
    )


@pytest.mark.parametrize(
    ("hits", "load", "expected"),
    [
        (10, {}, None), (11, {}, "suspect"), (100, {}, "suspect"), (101, {}, "invalid"),
        (259, {"shared_prefix_tokens": 32}, None), (261, {"shared_prefix_tokens": 32}, "suspect"),
        (999, {"turns": 2}, None),
    ],
)  # fmt: skip
def test_cache_hits_beyond_what_is_shared(hits: float, load: dict[str, int], expected: str | None) -> None:
    """32 of 128 tokens are a quarter; a session re-uses its own."""
    assert verdict(server.cache_hits(case(n=20, samples=counters(hits), **load))) == expected


@pytest.mark.parametrize(("hits", "expected"), [(182, None), (183, "suspect")])
def test_a_chat_template_is_what_comes_on_top_of_what_was_asked(hits: float, expected: str | None) -> None:
    """Of 20 requests 16 read 160 tokens where 128 were asked for, and four only 100: 512 of 2,960 are the template."""

    def read(i: int, r: Record) -> Record:
        return replace(r, input_tokens=160 if i < 16 else 100)

    assert verdict(server.cache_hits(case(read, n=20, samples=counters(hits), endpoint="chat"))) == expected


@pytest.mark.parametrize(("declared", "expected"), [(0.29, None), (0.28, "suspect")])
def test_a_declared_share_may_be_served_from_the_cache(declared: float, expected: str | None) -> None:
    for load in ({}, {"turns": 2}):
        made = replace(case(n=20, samples=counters(295), **load), declared_cache_share=declared)
        assert verdict(server.cache_hits(made)) == expected


@pytest.mark.parametrize(
    ("n", "count", "expected"),
    [(1000, 1010, None), (1000, 1011, "invalid"), (100, 102, None), (100, 103, "invalid")],
)
def test_requests_of_others(
    monkeypatch: pytest.MonkeyPatch, n: int, count: float, expected: str | None
) -> None:
    monkeypatch.setattr(server, "served", lambda _: count)
    assert verdict(server.foreign_requests(case(n=n))) == expected
    monkeypatch.setattr(server, "served", lambda _: None)
    assert server.foreign_requests(case(n=n)) is None


def readings(name: str, values: list[float]) -> tuple[Sample, ...]:
    return tuple(Sample(float(t), name, value) for t, value in enumerate(values))


@pytest.mark.parametrize("bit", [0x08, 0x20, 0x40, 0x80])
@pytest.mark.parametrize(("count", "expected"), [(1, None), (2, "suspect")])
def test_clocks_taken_away_in_more_than_one_reading_of_a_hundred(
    bit: int, count: int, expected: str | None
) -> None:
    samples = readings("gpu0_throttle_reasons", [float(bit)] * count + [0.0] * (100 - count))
    assert verdict(machine.clocks_throttled(case(n=100, samples=samples))) == expected


@pytest.mark.parametrize("mask", [0x01, 0x02, 0x04, 0x10, 0x100])
def test_the_power_cap_and_idle_clocks_are_no_throttling(mask: int) -> None:
    samples = readings("gpu0_throttle_reasons", [float(mask)] * 100)
    assert machine.clocks_throttled(case(n=100, samples=samples)) is None


def test_every_reason_is_named_and_a_second_gpu_is_looked_at() -> None:
    masks = [float(0x44), float(0x80)] + [0.0] * 98
    samples = readings("gpu0_throttle_reasons", [0.0] * 100) + readings("gpu1_throttle_reasons", masks)
    found = machine.clocks_throttled(case(n=100, samples=samples))
    assert found is not None
    assert found.text.startswith("GPU 1 was slowed in 2% of the window: ")
    assert found.text.count(",") == 1, "the power cap is not among them"


@pytest.mark.parametrize(
    ("count", "text"), [(0, None), (1, "1 other process on"), (3, "3 other processes on")]
)
def test_other_processes_on_the_gpu(count: int, text: str | None) -> None:
    found = machine.gpu_shared(case(n=20, samples=readings("gpu0_other_processes", [0.0, float(count), 0.0])))
    assert (found is None) == (text is None)
    assert found is None or found.text.startswith(str(text))


def test_the_quantile_that_is_furthest_off_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the server's is further off than 1.7 times it; without a server's figure nothing is."""
    pairs = [
        Pair("TTFT", "p50", 0.85, 0.4, 0.6),
        Pair("E2E", "p90", 0.1, 0.4, 0.6),
        Pair("TPOT", "p50", 0.9, 0.0, 0.0),
    ]
    monkeypatch.setattr(server, "reconcile", lambda _: pairs)
    found = server.histograms(case(n=20))
    assert found is not None
    assert found.text.startswith("E2E p90 is 100 ms at the client, 400 to 600 ms by the server's own")
    monkeypatch.setattr(server, "reconcile", lambda _: [Pair("TTFT", "p50", 0.5, 0.4, 0.6)])
    assert server.histograms(case(n=20)) is None
