"""Every arrival process is what its name says, and `fit` sees it when one is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.point import Load
from bench.traffic.arrivals import ARRIVALS, fit, planned
from serving.errors import UserError

LOAD = Load("w", 8, 8, arrivals="poisson", rate_per_s=50.0, requests=4000)


def of(**changes: object) -> Load:
    return replace(LOAD, **changes)  # type: ignore[arg-type]


def test_constant_has_equal_gaps() -> None:
    times = planned(of(arrivals="constant"), seed=1)
    assert len(times) == 4000
    np.testing.assert_allclose(np.diff(times), 1 / 50)


def test_poisson_is_poisson() -> None:
    load = of()
    found = fit(planned(load, seed=3), load)
    assert found is not None
    assert found.cv == pytest.approx(1, abs=0.05)
    assert found.dispersion == pytest.approx(1, abs=0.25)
    assert abs(found.lag1) < 0.05
    assert found.ks_p is not None
    assert found.ks_p > 0.001


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.5])
def test_gamma_has_its_cv_and_rate(cv: float) -> None:
    load = of(arrivals="gamma", cv=cv, requests=20_000)
    times = planned(load, seed=5)
    found = fit(times, load)
    assert found is not None
    assert found.cv == pytest.approx(cv, rel=0.05)
    assert found.ks_p is not None
    assert found.ks_p > 0.001
    assert len(times) / times[-1] == pytest.approx(50, rel=0.05)


def test_ramp_goes_from_one_rate_to_the_other() -> None:
    load = of(arrivals="ramp", rate_per_s=20.0, ramp_to_per_s=180.0, requests=None, duration_s=60.0)
    counts, _ = np.histogram(planned(load, seed=7), bins=6, range=(0, 60))
    # The mean rate of each ten-second window on the line from 20 to 180 a second.
    expected = 10 * np.linspace(20 + 80 / 6, 180 - 80 / 6, 6)
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


def test_a_ramp_may_fall_and_may_be_flat() -> None:
    down = planned(
        of(arrivals="ramp", rate_per_s=100.0, ramp_to_per_s=10.0, requests=None, duration_s=30.0), 1
    )
    assert (down < 15).sum() > 2 * (down >= 15).sum()
    flat = of(arrivals="ramp", rate_per_s=50.0, ramp_to_per_s=50.0, requests=None, duration_s=60.0)
    assert len(planned(flat, 1)) == pytest.approx(3000, abs=5 * 55)


def test_burst_sends_so_many_at_once_at_the_mean_rate() -> None:
    times = planned(of(arrivals="burst", burst_size=10, requests=1000), seed=1)
    moments, counts = np.unique(times, return_counts=True)
    assert set(counts) == {10}
    np.testing.assert_allclose(np.diff(moments), 10 / 50)


def test_duration_and_requests_whichever_is_first() -> None:
    assert len(planned(of(duration_s=1e6), seed=1)) == 4000
    short = planned(of(requests=None, duration_s=10.0), seed=1)
    assert short[-1] < 10
    assert len(short) == pytest.approx(500, abs=5 * 23)
    assert len(planned(of(duration_s=10.0, requests=100), seed=1)) == 100


def test_the_seed_decides() -> None:
    assert np.array_equal(planned(of(), 1), planned(of(), 1))
    assert not np.array_equal(planned(of(), 1), planned(of(), 2))


@given(
    arrivals=st.sampled_from(sorted(ARRIVALS)),
    rate=st.floats(0.1, 500),
    seed=st.integers(0, 2**31),
    requests=st.none() | st.integers(1, 400),
    duration=st.floats(0.1, 20),
)
def test_planned_times_are_sorted_and_inside(arrivals, rate, seed, requests, duration) -> None:  # type: ignore[no-untyped-def]
    load = of(arrivals=arrivals, rate_per_s=rate, requests=requests, duration_s=duration, cv=1.5,
              ramp_to_per_s=rate * 2, burst_size=7)  # fmt: skip
    times = planned(load, seed)
    assert np.all(np.diff(times) >= 0)
    assert np.all((times >= 0) & (times < duration + 1e-9))
    assert requests is None or len(times) <= requests


def test_fit_sees_workers_that_repeat_each_other() -> None:
    """Workers with the same seed send at the same moments: dispersion and correlation tell."""
    one = planned(of(rate_per_s=25.0, requests=2000), seed=1)
    found = fit(np.sort(np.concatenate([one, one + 1e-4])), of())
    assert found is not None
    assert found.dispersion > 1.5
    assert found.dispersion_p is not None
    assert found.dispersion_p < 1e-6
    assert found.lag1 < -0.2
    assert found.ks_p is not None
    assert found.ks_p < 1e-6


def test_few_poisson_arrivals_are_rarely_called_dispersed() -> None:
    load = of(requests=60)
    found = [fit(planned(load, seed), load) for seed in range(300)]
    p_values = [one.dispersion_p for one in found if one is not None and one.dispersion_p is not None]
    assert len(p_values) == 300
    assert sum(p < 0.01 for p in p_values) <= 12


def test_a_short_load_is_rarely_called_dispersed() -> None:
    """Twenty seconds at 1.5/s: two windows of equal counts are chance, not a client that sends evenly."""
    load = of(rate_per_s=1.5, requests=None, duration_s=20.0)
    found = [one for seed in range(300) if (one := fit(planned(load, seed), load)) is not None]
    assert len(found) > 250
    assert sum(one.dispersion_p is not None and one.dispersion_p < 0.01 for one in found) <= 12


def test_fit_sees_a_rate_that_was_not_reached() -> None:
    found = fit(planned(of(rate_per_s=35.0), seed=2), of())
    assert found is not None
    assert found.cv == pytest.approx(1, abs=0.05)
    assert found.ks_p is not None
    assert found.ks_p < 1e-6


def test_too_few_gaps_say_nothing() -> None:
    assert fit(planned(of(requests=10), seed=1), of()) is None


def test_an_unknown_process_is_named() -> None:
    with pytest.raises(UserError, match="closed"):
        planned(of(arrivals="closed"), 0)
