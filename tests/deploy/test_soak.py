"""A soak: drift, growth and failures are found; a steady server passes; too little says nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.records.model import Record, RequestError, Sample
from bench.soak import change, drift, judged
from servetune.deploy.verify.soak_run import soak
from serving.engine import Endpoint
from tests.support.sim_process import MODEL, started
from tests.support.spec_fixture import LOAD, simulated


def records(hours: float = 1.0, drift_: float = 0.0, failed: int = 0, seed: int = 1) -> list[Record]:
    random = np.random.default_rng(seed)
    times = np.sort(random.uniform(0, 3600 * hours, 2000))
    found = []
    for index, t in enumerate(times):
        slow = (1 + drift_ * t / times[-1]) * random.lognormal(0, 0.2)
        found.append(Record(index, float(t), float(t), first_s=float(t + 0.1 * slow), last_s=float(t + slow)))
    return [
        replace(r, error=RequestError.RESET) if failed and r.index % (2000 // failed) == 7 else r
        for r in found
    ]


def memory(growth: float) -> list[Sample]:
    """A gigabyte after the first minutes, then a straight line."""
    t = np.linspace(0, 3600, 1200)
    level = 1e9 * (1 - np.exp(-t / 120)) + 1e9 * growth * t / 3600
    return [Sample(float(a), "rss_bytes", float(b)) for a, b in zip(t, level, strict=True)]


def verdicts(**changed: object) -> dict[str, str]:
    growth = float(changed.pop("growth", 0.0))  # type: ignore[arg-type]
    return {c.name: c.verdict for c in judged(records(**changed), memory(growth))}  # type: ignore[arg-type]


def test_a_steady_server_passes() -> None:
    assert set(verdicts().values()) == {"PASS"}


def test_drift_growth_and_failures_are_found() -> None:
    assert verdicts(drift_=0.5)["soak ttft drift"] == "FAIL"
    assert verdicts(drift_=0.5)["soak e2e drift"] == "FAIL"
    assert verdicts(growth=0.3)["soak memory"] == "FAIL"
    assert verdicts(failed=40)["soak errors"] == "FAIL"
    assert verdicts(failed=1)["soak errors"] == "INCONCLUSIVE"
    assert {c.name: c.verdict for c in judged(records(), memory(0), alive=False)}["soak errors"] == "FAIL"


def test_what_cannot_be_told_is_inconclusive() -> None:
    assert {c.verdict for c in judged([], [])} == {"INCONCLUSIVE"}
    assert drift("x", [(float(i), 1.0 + i) for i in range(20)], 0.1).verdict == "INCONCLUSIVE"


def test_a_straight_line_is_told_exactly() -> None:
    found = change([(float(t), 100.0 + t) for t in range(100)])
    assert found is not None
    assert found[0] == pytest.approx(99 / 149.5, rel=0.01)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random, held = np.random.default_rng(3), 0
    for _ in range(300):
        t = np.sort(random.uniform(0, 100, 400))
        found = change(list(zip(t, 1 + 0.2 * t / 100 + random.normal(0, 0.1, 400), strict=True)))
        assert found is not None
        held += found[1] <= 0.2 / 1.1 <= found[2]
    assert held >= 0.92 * 300


@pytest.mark.slow
def test_a_short_soak_of_a_server_that_slows_down(tmp_path: Path) -> None:
    load = {**LOAD, "rate_per_s": 20.0}
    evidence = [{"key": "a", "verdict": "ok", "slo": "met", "load": load}]
    spec = simulated(evidence=evidence, capacity={"safe_rate_per_s": 16.0})
    with started(tmp_path, fault="slow_after:90") as server:
        endpoint = Endpoint(server.url, MODEL, "vllm", "1")
        pid = server.process.pid
        found = {c.name: c for c in soak(spec, endpoint, 12.0, pid, lambda: server.process.poll() is None)}
    assert found["soak errors"].verdict == "PASS", found["soak errors"]
    assert found["soak e2e drift"].verdict == "FAIL", found["soak e2e drift"]
    assert found["soak memory"].effect is not None or "too few" in found["soak memory"].note
