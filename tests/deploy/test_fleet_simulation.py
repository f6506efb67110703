"""Fleets under recorded traffic: queueing theory, by hand, the fit, thinning, and the command."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.traffic.trace import Arrival
from servetune.cli.main import main
from servetune.deploy.deployable import dump, with_id
from servetune.deploy.exporters.deployment import ExportedSlo
from servetune.deploy.fleet.service import END_S, Replica, Service, alone, fit
from servetune.deploy.fleet.simulation import Traffic, fits, least, needed, simulate
from servetune.deploy.spec import ServingSpec
from serving.errors import UserError
from tests.support.spec_fixture import spec_of

PLAIN = Service(0.010, 0.001, 0.0001)
TRACE = Path(__file__).parents[3] / "shared" / "data" / "traces" / "azure2023_conv.csv"


def poisson(rate: float, seconds: float, output: int = 20, size: int = 100, seed: int = 0) -> Traffic:
    at = np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds)).cumsum()
    return Traffic(at, np.full(at.size, size), np.full(at.size, output))


def run(service: Service, arrivals: list[tuple[float, int, int]]) -> tuple[list[float], list[float]]:
    first, done = [0.0] * len(arrivals), [0.0] * len(arrivals)
    replica = Replica(service, [a[1] for a in arrivals], [a[2] for a in arrivals], first, done)
    for index, (at, _, _) in enumerate(arrivals):
        replica.arrive(index, at)
    replica.advance(END_S)
    return first, done


def test_one_request_by_hand() -> None:
    first, done = run(PLAIN, [(1.0, 100, 11)])
    assert first[0] == pytest.approx(1.01)
    assert done[0] == pytest.approx(1.01 + 10 * 0.011)


def test_two_requests_by_hand() -> None:
    """The second stops the first for its prompt; then both share steps."""
    first, done = run(PLAIN, [(0.0, 100, 11), (0.01 + 5 * 0.011, 100, 6)])
    assert first[1] == pytest.approx(0.01 + 5 * 0.011 + 0.01)
    assert done == pytest.approx([first[1] + 5 * 0.012, first[1] + 5 * 0.012])


def test_closed_loops_by_hand() -> None:
    """A user alone: each prompt, then each step with one sequence. Two: a prompt stops the other's steps."""
    one = alone(PLAIN, {"users": 1, "rate": 0, "input": 100.0, "output": 11.0})
    assert one == pytest.approx((0.010, 0.011))
    first, pace = alone(PLAIN, {"users": 2, "rate": 0, "input": 100.0, "output": 11.0})
    assert first >= 0.010
    assert pace == pytest.approx(0.012 + 0.010 / 10, rel=0.05)


def test_slots_and_cache_make_requests_wait() -> None:
    asked = [(0.0, 100, 11), (0.0, 100, 11)]
    for limited in (Service(0.01, 0.001, 0.0001, slots=1), Service(0.01, 0.001, 0.0001, cache_tokens=150)):
        first, done = run(limited, asked)
        assert first[1] == pytest.approx(done[0] + 0.01)


def test_a_server_of_one_slot_is_the_queue_of_the_textbook() -> None:
    """M/D/1: mean wait is rho / (2 (1 - rho)) service times (Pollaczek and Khinchine)."""
    held = 0.01 + 19 * 0.01
    service = Service(0.009, 0.001, 0.0001, slots=1)
    traffic = poisson(0.6 / held, 40_000 * held / 0.6)
    first, _ = run(service, list(zip(traffic.at_s, traffic.inputs, traffic.outputs, strict=True)))
    waits = np.array(first) - traffic.at_s - 0.01
    assert waits.mean() == pytest.approx(0.6 / (2 * 0.4) * held, rel=0.06)


def test_more_replicas_are_later_less_often_and_two_choices_beat_one() -> None:
    service, slos = Service(0.02, 0.002, 0.0005, slots=4), (ExportedSlo("ttft", 90, 0.2),)
    traffic = poisson(60, 120)
    late = [simulate(service, traffic, n, slos, "random").late[0] for n in (6, 10, 20)]
    assert late[0] > late[1] > late[2]
    assert simulate(service, traffic, 10, slos, "least-request").late[0] < late[1]


def test_least_is_the_smallest() -> None:
    asked: list[int] = []

    def holds(count: int) -> bool:
        asked.append(count)
        return count >= 37

    assert least(holds, 5) == 37
    assert least(holds, 100) == 37
    with pytest.raises(UserError, match="no number of replicas"):
        least(lambda count: False, 1)


def test_a_thinned_fleet_says_what_the_whole_one_says() -> None:
    """400 replicas are shown by 100 of them; their share of late requests is the same."""
    service, slos = Service(0.02, 0.002, 0.0005, slots=4), (ExportedSlo("ttft", 90, 0.3),)
    small = simulate(service, poisson(60, 120), 8, slos, "random").late[0]
    large = simulate(service, poisson(3000, 60), 400, slos, "random")
    assert large.requests < 100_000
    assert large.late[0] == pytest.approx(small, abs=0.05)


def test_times_keeps_the_traffic() -> None:
    traffic = poisson(20, 300)
    for factor in (0.25, 1.0, 3.5):
        more = traffic.times(factor)
        assert more.at_s.size == pytest.approx(factor * traffic.at_s.size, rel=0.05)
        assert (np.diff(more.at_s) >= 0).all()
        assert more.duration_s <= traffic.duration_s


def measured(service: Service, rates: tuple[float, ...], limit_ms: float = 200.0) -> ServingSpec:
    """A spec whose points are those of a known service."""
    evidence = []
    for rate in rates:
        ttft, tpot = alone(service, {"users": 0, "rate": rate, "input": 200.0, "output": 40.0}, requests=3000)
        metrics = {"ttft_mean_ms": 1000 * ttft, "tpot_mean_ms": 1000 * tpot, "input_tokens_mean": 200.0,
                   "output_tokens_mean": 40.0, "request_throughput_per_s": rate,
                   "concurrency_mean": rate * (ttft + 39 * tpot)}  # fmt: skip
        load = {"arrivals": "poisson", "rate_per_s": rate}
        evidence.append({"key": f"k{rate}", "verdict": "ok", "slo": "met", "load": load, "metrics": metrics})
    slo = {"metric": "ttft", "percentile": 90.0, "limit_ms": limit_ms}
    body = {"cost": {"replica_hour": 2.0, "currency": "USD", "source": "x", "date": "2026-01-01"}}
    spec = spec_of(**body)
    changed = {**spec.model_dump(), "evidence": evidence, "slos": [slo]}
    changed["workload"] |= {"input_tokens_mean": 200.0, "output_tokens_mean": 40.0}
    return with_id(ServingSpec.model_validate(changed))


def test_a_known_service_is_found_again() -> None:
    found = fit(measured(PLAIN, (1.0, 5.0, 12.0)))
    assert found.step_s == pytest.approx(PLAIN.step_s, rel=0.15)
    assert found.prefill_s_per_token == pytest.approx(PLAIN.prefill_s_per_token, rel=0.25)
    assert found.error < 0.15
    assert found.slots == 96


def test_one_load_is_not_enough() -> None:
    with pytest.raises(UserError, match="two points"):
        fit(measured(PLAIN, (5.0,)))


def test_what_the_server_would_refuse_is_left_out() -> None:
    kept, refused = fits(Traffic.of([Arrival(0.0, 100, 10), Arrival(1.0, 9000, 10)]), 8192)
    assert (kept.at_s.size, refused) == (1, 1)


def test_what_no_fleet_can_hold_is_said_at_once() -> None:
    with pytest.raises(UserError, match="even when they are alone"):
        needed(PLAIN, poisson(1, 100, size=5000), (ExportedSlo("ttft", 90, 0.2),), "random")


def test_the_interval_holds_the_estimate() -> None:
    service = Service(0.02, 0.002, 0.0005, slots=4, error=0.2)
    middle, low, high = needed(service, poisson(40, 100), (ExportedSlo("ttft", 90, 0.2),), "least-request")
    assert low <= middle <= high
    assert low < high


def trace(folder: Path, size: int, rate: float = 10.0) -> Path:
    at = np.random.default_rng(0).exponential(1 / rate, 3000).cumsum()
    rows = "".join(f"{t:.3f},{size},40\n" for t in at)
    file = folder / "trace.csv"
    file.write_text("arrival_s,input_tokens,output_tokens\n" + rows)
    return file


@pytest.mark.slow
def test_capacity_of_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(dump(measured(PLAIN, (1.0, 5.0, 12.0))))
    asked: list[Any] = ["capacity", str(spec), "--trace", str(trace(tmp_path, 200)), "--json", "-"]
    found = {}
    for scale in (5, 20):
        assert main([*map(str, asked), "--scale", str(scale)]) == 0
        found[scale] = json.loads(capsys.readouterr().out)
    rows = found[5]["rows"]
    assert [row["spare"] for row in rows] == [0, 1]
    assert rows[1]["replicas"] == rows[0]["replicas"] + 1
    assert rows[0]["cost_per_hour"] == 2.0 * rows[0]["replicas"]
    assert found[5]["interval"][0] <= rows[0]["replicas"] <= found[5]["interval"][1]
    assert found[20]["rows"][0]["replicas"] == pytest.approx(4 * rows[0]["replicas"], rel=0.25)
    assert main([*map(str, asked[:4]), "--scale", "10"]) == 0
    said = capsys.readouterr().out
    assert "simulated" in said
    assert "replicas" in said


def test_prompts_that_nobody_measured_are_not_extrapolated_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(dump(measured(PLAIN, (1.0, 5.0, 12.0))))
    asked = ["capacity", str(spec), "--trace", str(trace(tmp_path, 1000))]
    assert main(asked) == 2
    assert "--extrapolate" in capsys.readouterr().err
    assert main([*asked, "--extrapolate"]) == 0
    assert "EXTRAPOLATED" in capsys.readouterr().out
    assert main(["capacity", str(spec)]) == 2


@pytest.mark.slow
def test_thousands_of_replicas_in_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not TRACE.is_file():
        pytest.skip(f"not checked: the trace {TRACE.name} is not here")
    spec = tmp_path / "spec.yaml"
    spec.write_text(dump(measured(PLAIN, (1.0, 5.0, 12.0), limit_ms=1000.0)))
    begun = time.process_time()
    asked = ["capacity", str(spec), "--trace", str(TRACE), "--scale", "3000", "--extrapolate", "--json", "-"]
    assert main(asked) == 0
    assert time.process_time() - begun < 120
    said = json.loads(capsys.readouterr().out)
    assert said["rows"][0]["replicas"] > 1000
