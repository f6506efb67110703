"""Repeats draw their own arrivals, the same for every configuration: their spread is that of new seeds."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.metrics.statistics import percentile
from bench.plan.expand import expand
from bench.point import DRAWN, Load, Point, seed_of
from bench.records.folder import RunFolder
from bench.records.model import Run
from bench.scenario.scenariofile import load as read
from bench.traffic.arrivals import Times, planned
from search.engine_evaluator import EngineEvaluator
from search.result import TrialResult
from tests.support.compare_fixture import compare
from tests.support.sim_search import oracle
from tests.support.synthetic import open_loop

LOAD = Load("w", 8, 8, arrivals="poisson", rate_per_s=7.0, requests=800)
SCENARIO = """\
schema: 1
name: repeats
question: do repeats draw their own
model: {name: m, path: m, shape: llama-3.1-8b}
engines: [{engine: sim, grid: {max_num_seqs: [4, 8]}}]
workloads:
  - {name: open, arrivals: poisson, rate_per_s: 7, requests: 100, input_tokens: 128, output_tokens: 20}
  - {name: closed, concurrency: 4, requests: 100, input_tokens: 128, output_tokens: 20}
repeats: {count: 3, restart: true}
seed: 5
"""


def points(folder: Path) -> list[Point]:
    file = folder / "s.yaml"
    file.write_text(SCENARIO)
    return expand(read(file), "cpu")[0]


def test_a_repeat_draws_its_own_and_every_configuration_the_same(tmp_path: Path) -> None:
    made = points(tmp_path)
    seeds = {
        name: {repeat: {p.seed for p in made if p.load.workload == name and p.repeat == repeat} for repeat in range(3)}
        for name in ("open", "closed")
    }  # fmt: skip
    assert all(len(of_repeat) == 1 for of_repeat in seeds["open"].values()), "common to all configurations"
    assert len(set.union(*seeds["open"].values())) == 3
    assert seeds["open"][0] == {5}
    drawn = [planned(p.load, p.seed) for p in made if p.load.workload == "open"][:3]
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])
    assert set.union(*seeds["closed"].values()) == {5}, "nothing is drawn: the key stays what it was"


def test_everything_drawn_by_seed_differs_and_no_two_seeds_share_a_repeat() -> None:
    for process in DRAWN:
        assert seed_of(replace(LOAD, arrivals=process), 1, 1) != 1
    sampled = replace(LOAD, arrivals="closed", rate_per_s=None, concurrency=2, temperature=0.7)
    assert seed_of(sampled, 1, 1) != 1
    every = {seed_of(LOAD, seed, repeat) for seed in range(100) for repeat in range(1, 20)}
    assert len(every) == 1900


def test_an_old_folder_is_read_and_its_replayed_repeats_are_measured_anew(tmp_path: Path) -> None:
    new = points(tmp_path)
    old = [replace(p, seed=5) for p in new]  # every repeat had the scenario's seed
    folder = RunFolder.create(tmp_path / "run", {}, SCENARIO.encode())
    for p in old:
        folder.save(replace(open_loop(requests=30), point=p))
    assert [run.point for run in folder.runs()] == old
    todo = [p for p in new if p.key not in folder.done()]
    assert {(p.load.workload, p.repeat) for p in todo} == {("open", 1), ("open", 2)}


def ttft_p99(due: Times, rng: np.random.Generator) -> float:
    """One server, service of 0.1 s with 3% noise: waiting is decided by the arrivals."""
    service = 0.1 * (1 + 0.03 * rng.standard_normal(due.size))
    before = np.cumsum(service) - service
    wait = np.maximum.accumulate(due - before) + before - due
    return percentile(np.sort(wait + service), 0.99)


def of_repeats(rng: np.random.Generator, seed: int, count: int) -> np.ndarray:
    return np.log([ttft_p99(planned(LOAD, seed_of(LOAD, seed, r)), rng) for r in range(count)])


def test_the_spread_over_repeats_is_the_spread_over_seeds() -> None:
    """Fresh seeds. A replayed schedule shows the noise of the service alone, a fiftieth of it."""
    base = secrets.randbits(31)
    rng = np.random.default_rng(base)
    repeats = of_repeats(rng, base, 200).std(ddof=1)
    seeds = np.log([ttft_p99(planned(LOAD, base + 1 + s), rng) for s in range(200)]).std(ddof=1)
    replayed = np.log([ttft_p99(planned(LOAD, base), rng) for _ in range(50)]).std(ddof=1)
    assert 0.75 < repeats / seeds < 1.33, base
    assert replayed < seeds / 5, base


def test_an_interval_over_repeats_covers_what_new_seeds_show() -> None:
    """Five repeats, 95%: 300 intervals of fresh seeds hold the mean over 2,000 other ones."""
    from scipy import stats

    base = secrets.randbits(30)
    rng = np.random.default_rng(base)
    truth = float(np.mean([np.log(ttft_p99(planned(LOAD, base + 10_000 + s), rng)) for s in range(2000)]))
    reach = stats.t.ppf(0.975, 4) / np.sqrt(5)
    found = [of_repeats(rng, base + s, 5) for s in range(300)]
    covered = np.mean([abs(x.mean() - truth) <= reach * x.std(ddof=1) for x in found])
    assert 0.90 <= covered <= 0.99, f"{covered}, seed {base}"


def side(name: str, schedules: np.ndarray, rng: np.random.Generator, slower: float = 1.0) -> list[Run]:
    """A launch a repeat: what the schedule does to both sides, and 1% of the launch's own."""
    runs = []
    for repeat, schedule in enumerate(schedules):
        pace = slower * float(np.exp(schedule + rng.normal(0, 0.01)))
        run = open_loop(200, ttft_s=0.1 * pace)
        point = replace(run.point, seed=seed_of(run.point.load, 5, repeat), repeat=repeat)
        runs.append(replace(run, point=point, launch=f"{name}{repeat}"))
    return runs


def test_a_comparison_takes_out_what_the_arrivals_do_to_both() -> None:
    """Schedules differ by 30%, launches by 1%: 5% is found with 4 launches a side, equals are left alone."""
    base = secrets.randbits(31)
    rng = np.random.default_rng(base)
    found = equal = unpaired = 0
    for _ in range(40):
        schedules = rng.normal(0, 0.3, 4)
        a, b = side("a", schedules, rng), side("b", schedules, rng, slower=1.05)
        found += compare(a, b, "ttft_p50_ms").different
        equal += compare(a, side("b", schedules, rng), "ttft_p50_ms").different
        other = [replace(run, point=replace(run.point, seed=run.point.seed + 1)) for run in b]
        unpaired += compare(a, other, "ttft_p50_ms").different
    assert found >= 32, base
    assert equal <= 8, base
    assert unpaired <= 8, base


def test_a_launch_without_its_partner_is_left_out_aloud() -> None:
    rng = np.random.default_rng(1)
    schedules = rng.normal(0, 0.3, 4)
    made = compare(side("a", schedules, rng), side("b", schedules, rng)[1:], "ttft_p50_ms")
    assert made.launches == (3, 3)
    assert any("A: 1 launch met draws" in note for note in made.notes)
    same = [replace(run, point=replace(run.point, seed=5)) for run in side("a", schedules, rng)]
    assert compare(same, same[:3], "ttft_p50_ms").launches == (4, 3), "as stored before: no pairs"


def test_rounds_of_a_final_draw_anew_and_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = oracle(tmp_path)
    drawn = [replace(load, arrivals="poisson", rate_per_s=5.0, concurrency=None) for load in made.loads()]
    asked: list[tuple[Point, ...]] = []

    def measure(
        self: EngineEvaluator,
        settings: object,
        config: object,
        fidelity: str,
        points: list[Point],
        *more: object,
    ) -> list[TrialResult]:
        asked.append(tuple(points))
        return []

    monkeypatch.setattr(EngineEvaluator, "loads", lambda self: drawn)
    monkeypatch.setattr(EngineEvaluator, "_measure", measure)
    one, two = {"engine": "sim", "quantization": "none"}, {"engine": "sim", "quantization": "fp8"}
    made.scenario = made.scenario.model_copy(
        update={"search": made.scenario.search.model_copy(update={"screen_share": 1.0})}
    )
    made.evaluate(one, lambda screen: True)
    for settings in (one, two, two, one):
        made.confirm(settings)
    seeds = [{p.seed for p in points} for points in asked]
    assert seeds[1] == seeds[2]
    assert seeds[3] == seeds[4]
    assert len(set.union(*seeds)) == 3
    # Interrupted in the second round of one of them: that round once more, with what it had drawn.
    made.recall(
        [TrialResult(one, "confirm", 1.0), TrialResult(two, "confirm", 1.0), TrialResult(two, "confirm", 1.0)]
    )
    made.confirm(one)
    assert asked[-1] == asked[-2], "the second round of one"
