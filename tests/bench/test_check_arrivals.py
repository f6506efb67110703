"""The arrivals check, branch by branch: each law is broken in one way only, and the others are shown to hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.checks.case import Case
from bench.checks.client import arrivals
from bench.metrics.view import View
from bench.point import Load
from bench.records.model import Run
from bench.traffic.arrivals import Fit, fit
from tests.support.synthetic import HEALTHY, point, record

RATE = 50.0


def law(n: int) -> np.ndarray:
    """Gaps that are the exponential law itself, in rising order: only their order is left to choose."""
    return -np.log1p(-(np.arange(1, n + 1) - 0.5) / n) / RATE


GAPS = law(240)
POISSON = Load(
    workload="test", input_tokens=128, output_tokens=20, arrivals="poisson", rate_per_s=RATE, requests=240
)


def run_of(gaps: np.ndarray, **load: object) -> Run:
    due = np.cumsum(gaps)
    given = {"arrivals": "poisson", "rate_per_s": RATE, "requests": due.size, **load}
    return Run(
        point=point(**given),
        records=tuple(record(i, float(t), lag_s=0.0) for i, t in enumerate(due)),
        client=HEALTHY,
        load_end_s=float(due[-1]),
    )


def said(gaps: np.ndarray, **load: object) -> str | None:
    found = arrivals(Case(View(run_of(gaps, **load))))
    assert found is None or found.verdict == "invalid"
    return None if found is None else found.text.partition(": ")[2]


def fitted(gaps: np.ndarray) -> Fit:
    found = fit(np.cumsum(gaps), POISSON)
    assert found is not None
    assert found.ks_p is not None
    assert found.ks_p > 0.5, "the law of the gaps holds: only their order is wrong"
    assert abs(found.lag1) < 5 / np.sqrt(gaps.size), "neighbours hardly depend on each other"
    return found


def shuffled() -> np.ndarray:
    return np.random.default_rng(0).permutation(GAPS)


def in_waves() -> np.ndarray:
    """Busy and quiet times of forty gaps, with so much noise that neighbours hardly tell of each other."""
    rng = np.random.default_rng(1)
    wish = np.sin(np.arange(240) * 2 * np.pi / 80) + rng.normal(0, 1.3, 240)
    gaps = np.empty(240)
    gaps[np.argsort(wish)] = GAPS
    return gaps


def balanced() -> np.ndarray:
    """Every ten gaps take nearly the same time, the longest in the middle: equal times hold equal counts."""
    dealt = law(480).reshape(10, 48).copy()
    dealt[1::2] = dealt[1::2, ::-1]
    order = [0, 6, 3, 8, 9, 2, 7, 4, 5, 1]
    return dealt.T[np.random.default_rng(2).permutation(48)][:, order].ravel()


def test_the_law_itself_passes() -> None:
    assert 0.6 < fitted(shuffled()).dispersion < 1.6
    assert said(shuffled()) is None


def test_counts_too_uneven_for_chance_are_refused() -> None:
    found = fitted(in_waves())
    assert 2.5 < found.dispersion < 5.0
    assert found.dispersion_p is not None
    assert found.dispersion_p < 1e-6
    assert (
        said(in_waves()) == f"counts in equal times have a dispersion of {found.dispersion:.2f} instead of 1"
    )


def test_counts_too_even_for_chance_are_refused() -> None:
    found = fitted(balanced())
    assert found.dispersion < 0.4
    assert found.dispersion_p is not None
    assert found.dispersion_p < 1e-6
    assert (
        said(balanced()) == f"counts in equal times have a dispersion of {found.dispersion:.2f} instead of 1"
    )


@pytest.mark.parametrize(
    ("dispersion", "p", "refused"),
    [(0.39, 9e-7, True), (0.41, 9e-7, False), (2.49, 9e-7, False), (2.51, 9e-7, True), (9.0, 2e-6, False),
     (0.1, 2e-6, False), (9.0, None, False)],
)  # fmt: skip
def test_a_dispersion_is_refused_outside_its_bounds_and_beyond_chance(
    monkeypatch: pytest.MonkeyPatch, dispersion: float, p: float | None, refused: bool
) -> None:
    monkeypatch.setattr("bench.checks.client.fit", lambda *_: Fit(1.0, dispersion, p, 0.0, 0.5))
    assert (said(shuffled()) is not None) == refused


@pytest.mark.parametrize(("lag1", "refused"), [(0.32, False), (0.33, True), (-0.32, False), (-0.33, True)])
def test_neighbours_may_correlate_by_five_standard_errors(
    monkeypatch: pytest.MonkeyPatch, lag1: float, refused: bool
) -> None:
    """5 / sqrt(240) = 0.323."""
    monkeypatch.setattr("bench.checks.client.fit", lambda *_: Fit(1.0, 1.0, 0.5, lag1, 0.5))
    assert (said(shuffled()) is not None) == refused


@pytest.mark.parametrize(
    ("ks_p", "distance", "refused"), [(9e-7, 0.051, True), (9e-7, 0.049, False), (2e-6, 0.5, False)]
)
def test_the_law_is_refused_beyond_chance_and_a_distance_of_a_twentieth(
    monkeypatch: pytest.MonkeyPatch, ks_p: float, distance: float, refused: bool
) -> None:
    monkeypatch.setattr("bench.checks.client.fit", lambda *_: Fit(1.0, 1.0, 0.5, 0.0, ks_p, distance))
    assert (said(shuffled(), arrivals="gamma", cv=1.0) is not None) == refused


@pytest.mark.parametrize(
    ("share", "rate", "refused"), [(0.09, 10.0, False), (0.12, 10.0, True), (0.12, 50.0, True)]
)
def test_constant_gaps_may_vary_by_a_tenth(share: float, rate: float, refused: bool) -> None:
    """The planned ones, so at every rate: no timer is in them."""
    gaps = np.full(240, 1 / rate) * (1 + share * np.resize([1, -1], 240))
    assert (said(gaps, arrivals="constant", rate_per_s=rate) is not None) == refused


def test_only_poisson_counts_are_held_to_a_dispersion() -> None:
    assert said(in_waves(), arrivals="gamma", cv=1.0) is None


def test_traces_have_no_law() -> None:
    run = run_of(np.full(240, 0.02))
    ramp = replace(
        run.point, load=replace(run.point.load, arrivals="ramp", ramp_to_per_s=60.0, duration_s=5.0)
    )
    assert arrivals(Case(View(replace(run, point=ramp)))) is None
