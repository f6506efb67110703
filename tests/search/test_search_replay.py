"""Replay: a grid in place of engines, its noise, the shipped grids, and `servetune replay` over them."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.plan.expand import expand
from bench.plan.planning import plan
from bench.scenario.scenariofile import load as load_scenario
from search.replay import contest, grids
from search.replay.aa_test import even, false_winners
from search.replay.grid_evaluator import SPREAD, GridEvaluator
from search.replay.grids import Cell
from search.replay.winner import crowned
from search.result import key_of
from search.space import Space
from servetune.cli.main import main
from serving.config import ServingConfig
from serving.errors import BrokenRunError, UserError
from tests.support import report_fixture
from tests.support.replay_fixture import CONSTRAINTS, GOAL, SPACE, grid

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
SHIPPED = sorted(path.parent for path in REFERENCE.glob("sim-*/manifest.json"))
DEFAULT = SPACE.default()


def test_a_look_is_the_truth_times_noise_of_the_stated_spread() -> None:
    found = grid()
    truth = found.cells[key_of(DEFAULT)].value
    assert truth is not None
    looks = [GridEvaluator(found, seed).measure(DEFAULT, "full") for seed in range(400)]
    off = np.array([math.log((one.value or 0.0) / truth) for one in looks])
    assert abs(off.mean()) < 4 * SPREAD / 20
    assert off.std() == pytest.approx(SPREAD, rel=0.15)
    assert looks[0].variance == pytest.approx((SPREAD * truth) ** 2)
    assert looks[0].simulated


def test_a_short_look_is_noisier_by_the_root_of_its_share_and_cheaper() -> None:
    found = grid()
    truth = found.cells[key_of(DEFAULT)].value or 0.0
    looks = [GridEvaluator(found, seed, screen_share=0.25).measure(DEFAULT, "screen") for seed in range(400)]
    off = np.array([math.log((one.value or 0.0) / truth) for one in looks])
    assert off.std() == pytest.approx(2 * SPREAD, rel=0.15)
    assert looks[0].seconds == {"launch": 60.0, "warmup": 5.0, "measure": 15.0}


def test_answers_depend_on_seed_configuration_and_count_and_nothing_else() -> None:
    other = {**DEFAULT, "max_num_seqs": 16}
    one, two = GridEvaluator(grid(), 5), GridEvaluator(grid(), 5)
    first = one.measure(DEFAULT, "full")
    two.measure(other, "full")
    assert two.measure(DEFAULT, "full") == first
    assert one.measure(DEFAULT, "full").value != first.value
    assert GridEvaluator(grid(), 6).measure(DEFAULT, "full").value != first.value


def test_a_slow_launch_is_slow_in_its_promises_too_but_not_in_accuracy() -> None:
    found = grid()
    cell = found.cells[key_of(DEFAULT)]
    for seed in range(20):
        look = GridEvaluator(found, seed).measure(DEFAULT, "full")
        slow = (look.value or 0.0) / (cell.value or 1.0)
        assert 1 + look.violations["tpot:p95<=50ms"] == pytest.approx(
            slow * (1 + cell.violations["tpot:p95<=50ms"])
        )
        assert look.violations["accuracy"] == cell.violations["accuracy"]


def test_where_more_is_better_a_slow_launch_shows_less() -> None:
    found = grid()
    found = replace(found, goal=type(GOAL)((("output_token_throughput_per_s", False),)))
    cell, look = found.cells[key_of(DEFAULT)], GridEvaluator(found, 1).measure(DEFAULT, "full")
    slow = (1 + look.violations["tpot:p95<=50ms"]) / (1 + cell.violations["tpot:p95<=50ms"])
    assert look.value == pytest.approx((cell.value or 0.0) / slow)


def test_a_failure_is_a_failure_again_and_what_it_took_is_waste() -> None:
    found = grid()
    dead = next(cell for cell in found.cells.values() if cell.failure)
    look = GridEvaluator(found).measure(dead.settings, "full")
    assert (look.failure, look.value, look.seconds) == ("oom_at_launch", None, {"waste": 40.0})


def test_noise_is_resampled_from_recorded_repeats() -> None:
    """Repeats that are 10 % off either way, never in between: so are the looks."""
    found = grid()
    cells = {
        key: replace(cell, values=(0.9 * cell.values[0], 1.1 * cell.values[0])) if cell.values else cell
        for key, cell in found.cells.items()
    }
    oracle = [GridEvaluator(replace(found, cells=cells), seed) for seed in range(60)]
    truth = found.cells[key_of(DEFAULT)].value or 0.0
    off = np.array([math.log((one.measure(DEFAULT, "full").value or 0.0) / truth) for one in oracle])
    grown = math.sqrt(2)
    for value in off:
        assert min(abs(value - grown * math.log(0.9)), abs(value - grown * math.log(1.1))) < 1e-9
    assert oracle[0].sigma == pytest.approx(0.1 * grown, rel=0.02)


def test_a_grid_reads_back_as_it_was_written(tmp_path: Path) -> None:
    found = grid()
    grids.write(found, tmp_path / "g")
    back = grids.load(tmp_path / "g")
    assert back.cells.keys() == found.cells.keys()
    assert back.constraints == CONSTRAINTS
    assert back.simulated
    assert back.best.settings == found.best.settings
    for key, cell in found.cells.items():
        assert back.cells[key].failure == cell.failure
        assert back.cells[key].values == pytest.approx(cell.values, rel=1e-5)
    assert {key_of(one) for one in back.space.all()} == set(found.cells)


def test_what_is_not_a_grid_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no manifest"):
        grids.load(tmp_path)
    grids.write(grid(), tmp_path / "g")
    (tmp_path / "g" / "table.csv").write_text("max_num_seqs,value\nnot json,1\n")
    with pytest.raises(BrokenRunError):
        grids.load(tmp_path / "g")


RUN = """
schema: 1
name: recorded
question: which is cheapest?
device: cpu
model: {name: SmolLM2-135M-Instruct, path: .models/smollm2}
engines:
  - engine: vllm
    settings: {max_model_len: 1024, kv_cache_bytes: 1GiB}
    grid: {quantization: [none, w8a8, w4a16], max_num_seqs: [4, 32]}
workloads:
  - {name: chat, input_tokens: 128, output_tokens: 32, concurrency: [2, 8], requests: 300}
slos: ["tpot:p50<=100ms"]
price: {per_hour: 0.0816, currency: USD, source: example price list, date: 2026-06-17}
repeats: 3
search: {goal: minimize cost_per_million_output_tokens}
"""


def test_a_run_of_bench_is_a_grid(tmp_path: Path) -> None:
    report_fixture.build(tmp_path / "run", scenario=RUN, sim=False)
    found = grids.load(tmp_path / "run")
    assert not found.simulated
    assert len(found.cells) == 6
    assert found.space.default() in [dict(cell.settings) for cell in found.cells.values()]
    good = [cell for cell in found.cells.values() if cell.failure is None]
    assert good
    assert all(len(cell.values) == 3 for cell in good)
    assert found.best.settings["quantization"] == "w8a8"
    look = GridEvaluator(found, 1).measure(found.best.settings, "full")
    assert look.value == pytest.approx(found.best.value, rel=0.3)
    assert look.seconds["measure"] > 0
    assert {key_of(one) for one in found.space.neighbours(found.best.settings)} <= set(found.cells)


def test_equal_configurations_crown_nothing_and_a_clear_one_is_crowned() -> None:
    found = grid()
    flat = even(found)
    assert all(flat.regret(cell) == 0 for cell in flat.cells.values())
    history = [GridEvaluator(found, 1).measure(cell.settings, "full") for cell in found.cells.values()]
    verdict, regret = crowned(
        found, GridEvaluator(found, 1), [h for h in history if h.config == DEFAULT] + history
    )
    assert verdict == "winner"
    assert regret < 0.1


def test_false_winners_are_rare_in_whole_searches(tmp_path: Path) -> None:
    grids.write(grid(), tmp_path / "g")
    course = contest.Course(tmp_path / "g", 20, 20)
    assert false_winners(course, 40, 1) <= 0.15  # at 5 %, seven of 40 or more come once in 300


def test_a_race_counts_launches_and_minutes_and_never_forgets(tmp_path: Path) -> None:
    grids.write(grid(), tmp_path / "g")
    one = contest.race(contest.Course(tmp_path / "g", 25, 15), "random", 3)
    assert len(one.found) == len(one.held) == len(one.minutes) == 25
    assert list(one.found) == sorted(one.found, reverse=True)
    assert list(one.minutes) == sorted(one.minutes)
    assert one.verdict in {"winner", "default_is_best", "none_feasible", "not_settled"}
    assert one == replace(contest.race(contest.Course(tmp_path / "g", 25, 15), "random", 3), cpu_s=one.cpu_s)


def test_regret_is_one_for_what_breaks_a_promise_and_nought_for_the_best() -> None:
    found = grid()
    assert found.regret(found.best) == 0
    assert found.regret(None) == 1
    assert found.regret(Cell(DEFAULT, (0.01,), {"accuracy": 0.1}, None, {})) == 1
    assert found.regret(Cell(DEFAULT, ((found.best.value or 0) * 1.25,), {}, None, {})) == pytest.approx(0.25)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_grids_are_large_simulated_and_have_an_optimum(path: Path) -> None:
    found = grids.load(path)
    assert len(found.cells) >= 400
    assert found.simulated
    assert found.about["simulated"] is True
    assert found.best.value is not None
    assert found.counts()["feasible"] >= 10
    assert sum(count for kind, count in found.counts().items() if kind != "feasible") > 0
    assert key_of(found.space.default()) in found.cells


def test_three_grids_ship() -> None:
    assert len(SHIPPED) >= 3


def test_the_command_prints_a_table_and_writes_its_numbers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    grids.write(grid(), tmp_path / "g")
    target = tmp_path / "out.json"
    arguments = ["replay", str(tmp_path / "g"), "--sampler", "surrogate,random", "--seeds", "4", "--share", "0.1",
                 "--processes", "1", "--json", str(target)]  # fmt: skip
    assert main(arguments) == 0
    shown = capfd.readouterr().out
    assert "SIMULATED" in shown
    assert "surrogate" in shown
    written = json.loads(target.read_text())
    assert (written["grid"], written["size"]) == (written["grids"][0]["grid"], 180)
    assert [one["name"] for one in written["searchers"]] == ["surrogate", "random"]
    assert all(one["launches_to_1pct"].keys() == {"p50", "p90"} and len(one["regret"]) == 18
               for one in written["searchers"])  # fmt: skip
    told = written["grids"][0]
    assert told["simulated"] is True
    assert told["samplers"].keys() == {"surrogate", "random"}
    assert len(told["samplers"]["random"]["regret"]["median"]) == told["launches"] == 18
    assert main(["replay", str(tmp_path / "g"), "--sampler", "annealing"]) == 2


LARGE = """
schema: 1
name: large
question: how long does planning take?
device: cpu
model: {name: llama-3.1-8b, path: .models/llama-3.1-8b, tokenizer: none}
engines:
  - engine: sim
    settings: {max_model_len: 2048, sim: {gpu: h200, shape: llama-3.1-8b}}
    grid:
      max_num_seqs: [SEQS]
      max_num_batched_tokens: [TOKENS]
workloads:
  - {name: chat, input_tokens: 128, output_tokens: 32, concurrency: [LOADS], requests: 100}
"""


def large(folder: Path, seqs: int, tokens: int, loads: int) -> Path:
    text = LARGE.replace("SEQS", ", ".join(str(n + 1) for n in range(seqs)))
    text = text.replace("TOKENS", ", ".join(str(2048 + n) for n in range(tokens)))
    path = folder / "large.yaml"
    path.write_text(text.replace("LOADS", ", ".join(str(n + 1) for n in range(loads))))
    return path


def test_nine_configurations_under_three_loads_are_nine_launches(tmp_path: Path) -> None:
    planned = plan(load_scenario(large(tmp_path, 3, 3, 3)), "cpu")
    assert len(planned.points) == 27
    assert len(planned.launches) == 9


def test_a_space_of_ten_thousand_is_one_space(tmp_path: Path) -> None:
    scenario = load_scenario(large(tmp_path, 100, 100, 1))
    assert Space.of(scenario).size >= 10_000
    assert len(expand(scenario, "cpu")[0]) == 10_000


def test_ten_thousand_configurations_are_planned_in_a_moment(tmp_path: Path) -> None:
    """0.8 s of one core; the bound leaves room for a busy machine."""
    scenario = load_scenario(large(tmp_path, 100, 100, 1))
    start = time.process_time()
    planned = plan(scenario, "cpu")
    assert time.process_time() - start < 2.5
    assert len(planned.launches) == 10_000


def test_a_changed_copy_of_a_config_has_a_key_of_its_own() -> None:
    config = ServingConfig(engine="sim", model="m")
    assert config.key == ServingConfig(engine="sim", model="m").key
    changed = config.model_copy(update={"max_num_seqs": 8})
    assert changed.key == ServingConfig(engine="sim", model="m", max_num_seqs=8).key != config.key
