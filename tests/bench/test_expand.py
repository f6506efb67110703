"""Grid expansion: counts, order, keys, rules."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest

from bench.plan.expand import expand
from bench.plan.planning import as_json, plan
from bench.scenario import scenariofile
from bench.scenario.model import Scenario
from bench.scenario.rules import matches
from servetune.report import plan_table
from serving.errors import UserError

TEXT = """\
schema: 1
name: demo
question: q
model: {{name: m, path: p, checkpoints: {{w8a8: p-w8a8}}}}
engines:
  - engine: sim
    grid: {{max_num_seqs: {seqs}, quantization: [none, w8a8, fp8]}}
rules: {rules}
workloads:
  - {{name: chat, input_tokens: [16, 64], output_tokens: 8, concurrency: {concurrency}, requests: 4}}
repeats: {repeats}
"""


def scenario(tmp_path: Path, *, seqs: str = "[4, 8, 16]", rules: str = "[]", concurrency: str = "[1]",
             repeats: int = 1) -> Scenario:  # fmt: skip
    file = tmp_path / "s.yaml"
    file.write_text(TEXT.format(seqs=seqs, rules=rules, concurrency=concurrency, repeats=repeats))
    return scenariofile.load(file)


def test_every_combination_once_and_configs_stand_together(tmp_path: Path) -> None:
    points, dropped = expand(scenario(tmp_path, repeats=2), "cpu")
    assert len(points) == 3 * 3 * 2 * 2
    assert not dropped
    assert len({p.key for p in points}) == len(points)
    changes = sum(a.config.key != b.config.key for a, b in pairwise(points))
    assert changes == 9 - 1


def test_a_checkpoint_follows_its_quantization(tmp_path: Path) -> None:
    points, _ = expand(scenario(tmp_path), "cpu")
    for point in points:
        assert point.config.checkpoint == ("p-w8a8" if point.config.quantization == "w8a8" else None)


def test_rules_drop_with_their_reason_and_count(tmp_path: Path) -> None:
    rules = '[{drop: {max_num_seqs: "< concurrency"}, because: the batch is smaller than the load}]'
    points, dropped = expand(scenario(tmp_path, rules=rules, concurrency="[1, 8]"), "cpu")
    assert len(points) == 3 * 3 * 2 * 2 - 3 * 2
    assert sum(d.points for d in dropped) == 3 * 2
    assert {d.reason for d in dropped} == {"the batch is smaller than the load"}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [(8, True), ([4, 8], True), ([4], False), (">= 8", True), ("> 8", False), ("< other", True),
     ("!= 8", False), ("> missing", False)],
)  # fmt: skip
def test_conditions(condition: object, holds: bool) -> None:
    assert matches({"n": condition}, {"n": 8, "other": 9}) is holds


def test_an_absent_value_never_matches() -> None:
    assert not matches({"n": "< 8"}, {"n": None})
    assert not matches({"n": 8}, {})


def test_keys_are_the_same_in_another_process_and_change_with_content(tmp_path: Path) -> None:
    points, _ = expand(scenario(tmp_path), "cpu")
    again, _ = expand(scenario(tmp_path), "cpu")
    assert [p.key for p in points] == [p.key for p in again]
    # Pinned: resume and caches on disk depend on it. A change here is a change of results schema.
    assert points[0].config.key == "6f8ed9493388"
    assert points[0].key == "e54a1da4d7c2"


def test_ten_thousand_points_expand_in_well_under_a_second(tmp_path: Path) -> None:
    many = scenario(tmp_path, seqs=str(list(range(1, 1668))), concurrency="[1]")
    started = time.process_time()
    points, _ = expand(many, "cpu")
    assert len(points) == 10_002
    assert time.process_time() - started < 3.0  # loose: the figure itself is in `make bench-plan`


def test_a_plan_of_nothing_says_each_reason_once(tmp_path: Path):
    rule = "[{drop: {engine: sim}, because: none is wanted}]"
    text = TEXT.format(seqs="[1, 2, 4]", rules=rule, concurrency="4", repeats="{count: 1}")
    (tmp_path / "demo.yaml").write_text(text)
    with pytest.raises(UserError, match=r"nothing is left to run; \d+ configurations: none is wanted$"):
        plan(scenariofile.load(tmp_path / "demo.yaml"))


ELSEWHERE = """\
schema: 1
name: elsewhere
question: q
device: cuda
model: {name: Llama-3.1-8B, path: .models/not-here, shape: llama-3.1-8b}
engines:
  - {engine: vllm, settings: {max_model_len: 8192, max_num_seqs: 64}, grid: {quantization: [none, fp8]}}
workloads:
  - {name: chat, input_tokens: 512, output_tokens: 64, concurrency: 8, requests: 100}
repeats: {count: 2, restart: true}
"""


def elsewhere(tmp_path: Path) -> Scenario:
    file = tmp_path / "elsewhere.yaml"
    file.write_text(ELSEWHERE)
    return scenariofile.load(file)


def test_a_plan_for_a_gpu_that_is_not_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither engine nor weights are on this machine; what fits and what it takes can be told all the same."""
    with pytest.raises(UserError, match="nothing is left to run"):
        plan(elsewhere(tmp_path))
    planned = plan(elsewhere(tmp_path), gpu="h200")
    assert (planned.supposed, planned.device) == ("h200", "cuda")
    assert [launch.config.quantization for launch in planned.launches] == ["none", "fp8"] * 2
    assert not planned.dropped
    assert as_json(planned)["supposed"] == "h200"
    plan_table.show_plan(planned)
    shown = capsys.readouterr().out
    assert "supposed: h200" in shown
    assert "vllm, all: max_model_len=8192 max_num_seqs=64" in shown
    assert [line.split()[:4] for line in shown.splitlines() if line.startswith("vllm ")] == [
        ["vllm", "none", "2", "2"], ["vllm", "fp8", "2", "2"],
    ]  # fmt: skip


def test_what_a_supposed_gpu_cannot_do_is_dropped_with_its_reason(tmp_path: Path) -> None:
    small = plan(elsewhere(tmp_path), gpu="t4")
    assert [launch.config.quantization for launch in small.launches] == ["fp8"] * 2
    assert ["exceed 13.6 GiB (92% of the device)" in drop.reason for drop in small.dropped] == [True]
    file = tmp_path / "other.yaml"
    file.write_text(ELSEWHERE.replace("[none, fp8]", "[none, bnb-4bit]"))
    assert "vllm has no bnb-4bit on cuda" in plan(scenariofile.load(file), gpu="h200").dropped[0].reason
    with pytest.raises(UserError, match="no figures of a GPU 'h2000'; known: h200,"):
        plan(elsewhere(tmp_path), gpu="h2000")
