"""The steady window on signals of our own making: where it begins and ends, what is too short, and its trends."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from bench.metrics.columns import Events, Requests
from bench.metrics.window import Drift, Window, _batched, _drift, _filled, _signals, _smooth, find
from bench.records.model import Record
from bench.telemetry.series import TelemetrySeries
from tests.support.synthetic import failed, gauge, record

NOTHING = TelemetrySeries.of(())


def columns(records: Sequence[Record]) -> tuple[Requests, Events]:
    requests = Requests.of(records)
    return requests, Events.of(records, requests)


def window(
    records: Sequence[Record],
    load_end_s: float | None = None,
    *,
    closed: bool = False,
    samples: Sequence[object] = (),
) -> Window:
    telemetry = TelemetrySeries.of(tuple(samples))  # type: ignore[arg-type]
    return find(*columns(records), telemetry, load_end_s, closed=closed)


def even(n: int, gap_s: float = 0.2, start_s: float = 0.0) -> list[Record]:
    """Requests at equal gaps: TTFT of 105 ms and 19 steps of 10 ms, 0.295 s in all."""
    return [record(i, start_s + i * gap_s, ttft_s=0.105, lag_s=0.0) for i in range(n)]


# --- where it lies --------------------------------------------------------------------------------


def test_an_open_loop_begins_after_one_request_and_ends_with_the_last_departure() -> None:
    found = window(even(101, start_s=5.0))
    assert not found.whole
    assert found.start_s == pytest.approx(5.0 + 0.295)
    assert found.end_s == pytest.approx(5.0 + 20)
    assert found.length_s == pytest.approx(20 - 0.295)


def test_the_load_may_end_before_the_last_departure_but_not_after_the_last_sign() -> None:
    """In an open loop also not later than a mean gap after the last that was planned: 20 s for 101 requests."""
    assert window(even(101), 12.0).end_s == 12.0
    assert window(even(101), 99.0).end_s == pytest.approx(20 + 20 / 101)
    assert window(even(101), 99.0, closed=True).end_s == pytest.approx(20 + 0.295)


def test_a_closed_loop_begins_with_nine_tenths_of_its_usual_concurrency() -> None:
    """Ten users that come one a second, each with the next request as the last one ends: 9 of 10 after 8 s."""
    records = [
        record(0, user + i * 0.29, lag_s=0.0) for user in range(10) for i in range(int((40 - user) / 0.29))
    ]
    found = window(records, 39.5, closed=True)
    assert not found.whole
    assert 8.0 <= found.start_s <= 9.5
    assert found.end_s == 39.5


def test_a_server_signal_is_cut_where_it_settles() -> None:
    """Running requests climb for 8 of 20 seconds."""
    climbing = gauge("server:vllm:num_requests_running", lambda t: min(t, 8.0), 20.0)
    found = window(even(101), samples=climbing)
    assert 5.0 < found.start_s <= 8.5
    assert "running requests (server)" in {drift.signal for drift in found.drifts}
    few = gauge("server:vllm:num_requests_running", lambda t: min(t, 8.0), 20.0, every_s=20 / 14)
    assert len(few) == 15
    assert window(even(101), samples=few).start_s == pytest.approx(0.295)


# --- too short ------------------------------------------------------------------------------------


def test_twenty_completed_requests_are_needed() -> None:
    short = window([*even(19), *[failed(r) for r in even(5, start_s=3.8)]])
    assert (short.whole, short.reason) == (True, "19 completed requests; 20 are needed")
    assert (short.start_s, short.end_s) == (0.0, pytest.approx(0.2 * 23 + 0.105 + 0.09))
    assert "completed requests; " not in window(even(20)).reason


def test_the_load_must_last_two_request_durations() -> None:
    """A request takes 0.295 s: departures over 0.57 s are too few, over 0.6 s long enough to look further."""
    assert window(even(39, 0.015)).reason.startswith(
        "the load lasts 0.57 s, below 2 request durations of 0.295 s"
    )
    assert not window(even(41, 0.015)).reason.startswith("the load")


def test_the_steady_part_must_last_two_request_durations_too() -> None:
    """0.59 s must be left beside what fills the system."""
    assert (
        window(even(60, 0.015)).reason
        == "its steady part lasts 0.582 s, below 2 request durations of 0.295 s"
    )
    assert not window(even(62, 0.015)).whole


def test_the_steady_part_needs_twenty_completed_requests() -> None:
    records = even(40, 0.05)
    late = window([failed(r) if r.index >= 25 else r for r in records])
    assert late.reason == "its steady part has 19 completed requests"
    assert not window([failed(r) if r.index >= 26 else r for r in records]).whole


def test_nothing_sent_is_no_window() -> None:
    unsent = [record(i, float(i), sent_s=None, first_s=None, last_s=None, event_s=()) for i in (2, 5)]
    found = window(unsent)
    assert (found.start_s, found.end_s, found.whole, found.reason) == (2.0, 5.0, True, "no request was sent")
    assert window([]) == Window(0.0, 0.0, True, "no request was sent")


def test_sixteen_bins_are_needed() -> None:
    """Two completed requests or five events a bin, whichever gives more: 31 requests of one event have fifteen."""
    why = "too few output events to see a trend"

    def reason(n: int, tokens: int) -> str:
        return window([record(i, i * 0.5, tokens=tokens, lag_s=0.0) for i in range(n)]).reason

    assert [reason(31, 1) == why, reason(32, 1) == why] == [True, False]
    assert [reason(20, 3) == why, reason(20, 4) == why] == [True, False]


# --- signals --------------------------------------------------------------------------------------


def test_signals_on_an_even_grid() -> None:
    """Two requests at 0 and 1 s that take 2 s and 1 s, in four bins of half a second."""
    records = [
        record(0, 0.0, lag_s=0.0, ttft_s=1.0, step_s=1.0, tokens=2),
        record(1, 1.0, lag_s=0.0, ttft_s=0.2, step_s=0.8, tokens=2),
    ]
    found = _signals(*columns(records), NOTHING, 0.0, 2.0, 4, 0.5)
    assert list(found) == ["requests in flight", "output tokens a second"]
    assert list(found["requests in flight"]) == [1, 1, 2, 2]
    assert list(found["output tokens a second"]) == [0, 0, 2, 2]


def test_the_wait_is_a_signal_from_sixteen_requests_on() -> None:
    for n, there in ((15, False), (16, True)):
        found = _signals(*columns(even(n, 0.1)), NOTHING, 0.0, 2.0, 16, 0.3)
        assert ("time to first token" in found) == there
    assert found["time to first token"] == pytest.approx(np.full(16, 0.105))


def test_requests_outside_and_failed_ones_do_not_wait() -> None:
    slow = [failed(record(100 + i, 0.5, ttft_s=9.0)) for i in range(5)]
    outside = [record(200 + i, 50.0 + i, ttft_s=9.0) for i in range(5)]
    found = _signals(*columns([*even(20, 0.1), *slow, *outside]), NOTHING, 0.0, 2.0, 16, 0.3)
    assert found["time to first token"] == pytest.approx(np.full(10, 0.105))


def test_means_of_neighbours() -> None:
    values = np.arange(12.0)
    assert _smooth(values, 3) == pytest.approx(np.arange(1.0, 11.0))
    assert list(_smooth(values, 0)) == list(values)
    assert _smooth(values, 99).size == 10, "at most a quarter of the values together"
    assert list(_batched(values, 12)) == list(values)
    assert list(_batched(values, 6)) == [0.5, 2.5, 4.5, 6.5, 8.5, 10.5]
    assert list(_batched(values, 5)) == [1.0, 4.0, 7.0, 10.0]
    assert list(_batched(np.arange(7.0), 3)) == [1.0, 4.0, 6.0]


@pytest.mark.parametrize(
    ("flight", "start_s"),
    [([1, 5, 8, 9, 10, 10, 10, 10], 13.75), ([10] * 8, 10.0), ([1, 9, 9, 9, 10, 10, 10, 10], 11.25)],
)
def test_a_closed_loop_is_full_at_nine_tenths_of_its_later_half(flight: list[int], start_s: float) -> None:
    assert _filled(np.array(flight, dtype=float), 10.0, 20.0) == pytest.approx(start_s)


# --- trends ---------------------------------------------------------------------------------------


def test_a_trend_is_the_least_squares_line_through_ten_batches() -> None:
    rng = np.random.default_rng(0)
    values = 10 + np.arange(100) * 0.02 + rng.normal(0, 1, 100)
    means = values.reshape(10, 10).mean(axis=1)
    line = stats.linregress(np.arange(10), means)
    found = _drift("x", values)
    assert found.signal == "x"
    assert found.t == pytest.approx(line.slope / line.stderr)
    assert found.change == pytest.approx(line.slope * 9 / np.abs(means).mean())


def test_a_signal_that_does_not_move_has_no_trend_and_a_perfect_line_an_endless_t() -> None:
    assert _drift("x", np.full(50, 3.0)) == Drift("x", 0.0, 0.0)
    assert _drift("x", np.zeros(50)) == Drift("x", 0.0, 0.0)
    rising, falling = _drift("x", np.arange(10.0)), _drift("x", -np.arange(10.0))
    assert rising.change == pytest.approx(9 / 4.5)
    assert falling.change == pytest.approx(-2.0)
    assert rising.t > 1e6 or rising.t == math.inf
    assert falling.t < -1e6


def test_every_signal_of_the_window_has_its_trend() -> None:
    found = window(even(101))
    assert [drift.signal for drift in found.drifts] == [
        "requests in flight", "output tokens a second", "time to first token",
    ]  # fmt: skip


def test_an_event_whose_tokens_are_not_known_counts_as_one() -> None:
    blind = [
        record(
            0,
            0.0,
            lag_s=0.0,
            ttft_s=0.1,
            step_s=0.2,
            tokens=4,
            output_tokens=None,
            counted_output_tokens=None,
        )
    ]
    found = _signals(*columns(blind), NOTHING, 0.0, 0.8, 4, 0.2)
    assert list(found["output tokens a second"]) == [1, 1, 1, 1]
