"""A plan taken apart: points, launches, what is dropped, which device counts, each on small grids written out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.plan import planning, target
from bench.plan.expand import Dropped, expand, label
from bench.plan.planning import Plan, _counted, _launches, _reasons, _refusal, as_json, plan
from bench.plan.target import Target, place, recorded, supposing, target_of
from bench.point import Load, Point
from bench.scenario import scenariofile
from bench.scenario.model import Model, Scenario
from serving.config import ServingConfig
from serving.costmodel import hardware, shapes
from serving.errors import UserError

TEXT = """\
schema: 1
name: small
question: q
device: cpu
seed: 7
model: {name: m, path: llama-3.1-8b, shape: llama-3.1-8b, tokenizer: none}
engines:
  - engine: sim
    settings: {max_model_len: 2048, sim: {gpu: h200, shape: llama-3.1-8b}}
    grid: {max_num_seqs: [4, 8]}
rules: RULES
workloads:
  - {name: chat, input_tokens: [16, 64], output_tokens: 8, concurrency: [2, 6], requests: 4}
repeats: REPEATS
"""


def scenario(tmp_path: Path, rules: str = "[]", repeats: str = "{count: 2}") -> Scenario:
    file = tmp_path / "small.yaml"
    file.write_text(TEXT.replace("RULES", rules).replace("REPEATS", repeats))
    return scenariofile.load(file)


def brief(points: Any) -> list[tuple[Any, ...]]:
    return [(p.config.max_num_seqs, p.load.input_tokens, p.load.concurrency, p.repeat) for p in points]


def test_points_in_their_order(tmp_path: Path) -> None:
    points, dropped = expand(scenario(tmp_path), "cpu")
    assert brief(points) == [
        (seqs, tokens, users, repeat)
        for seqs in (4, 8) for tokens in (16, 64) for users in (2, 6) for repeat in (0, 1)
    ]  # fmt: skip
    assert {p.seed for p in points} == {7}
    assert dropped == []


def test_a_rule_on_the_configuration_drops_all_of_its_points(tmp_path: Path) -> None:
    points, dropped = expand(scenario(tmp_path, '[{drop: {max_num_seqs: 4}, because: "too few"}]'), "cpu")
    assert {p.config.max_num_seqs for p in points} == {8}
    assert [(d.reason, d.points) for d in dropped] == [("too few", 2 * 2 * 2)]


def test_a_rule_on_the_load_drops_its_repeats(tmp_path: Path) -> None:
    rule = '[{drop: {max_num_seqs: "< concurrency"}, because: "waits"}]'
    points, dropped = expand(scenario(tmp_path, rule), "cpu")
    assert len(points) == 16 - 4
    assert [(d.reason, d.points) for d in dropped] == [("waits", 2), ("waits", 2)]
    assert [d.label.partition(" | ")[2] for d in dropped] == ["chat 16->8 c=6", "chat 64->8 c=6"]


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (Load("w", 16, 8, concurrency=6), "w 16->8 c=6"),
        (Load("w", 16, 8, "poisson", rate_per_s=2.5), "w 16->8 2.5/s"),
        (Load("w", 16, 8, "trace"), "w 16->8 trace"),
    ],
)
def test_the_short_name_of_a_load(load: Load, said: str) -> None:
    assert label(load) == said


def test_a_launch_serves_all_points_of_its_configuration(tmp_path: Path) -> None:
    points, _ = expand(scenario(tmp_path), "cpu")
    launches = list(_launches(points, restart=False))
    assert [launch.name[:4] for launch in launches] == ["001-", "002-"]
    assert all(launch.name == f"{n:03d}-{launch.config.key}" for n, launch in enumerate(launches, 1))
    assert [p.repeat for p in launches[0].points] == [0, 0, 0, 0, 1, 1, 1, 1], "a repeat is measured whole"
    assert {p.config.max_num_seqs for p in launches[0].points} == {4}


def test_with_restarts_each_repeat_has_its_own_launch_and_repeats_are_outermost(tmp_path: Path) -> None:
    points, _ = expand(scenario(tmp_path), "cpu")
    launches = list(_launches(points, restart=True))
    assert [(launch.config.max_num_seqs, {p.repeat for p in launch.points}) for launch in launches] == [
        (4, {0}), (8, {0}), (4, {1}), (8, {1}),
    ]  # fmt: skip


def test_the_whole_plan(tmp_path: Path) -> None:
    found = plan(scenario(tmp_path))
    assert (found.device, found.supposed, found.baseline) == ("cpu", None, None)
    assert (len(found.points), len(found.launches), found.dropped) == (16, 2, ())
    assert {feasibility.verdict for feasibility in found.memory.values()} == {"fits"}
    data = as_json(found)
    assert (data["points"], data["launches"], "accuracy" in data, "supposed" in data) == (16, 2, False, False)
    assert [config["points"][5]["load"] for config in data["configs"]] == ["chat 16->8 c=6"] * 2
    assert data["estimated_s"] == found.estimated_s > 0


def test_refused_configurations_leave_with_their_points_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _refusal
    monkeypatch.setattr(
        planning, "_refusal", lambda c, t: ("no" if c.max_num_seqs == 4 else None, real(c, t)[1])
    )
    found = plan(scenario(tmp_path))
    assert [(d.reason, d.points) for d in found.dropped] == [("no", 8)]
    assert {launch.config.max_num_seqs for launch in found.launches} == {8}
    monkeypatch.setattr(planning, "_refusal", lambda c, t: ("no", real(c, t)[1]))
    with pytest.raises(UserError, match="nothing is left to run; 2 configurations: no"):
        plan(scenario(tmp_path))


def test_counted_are_the_points_of_what_is_refused(tmp_path: Path) -> None:
    points, _ = expand(scenario(tmp_path), "cpu")
    first, second = points[0].config, points[-1].config
    assert list(_counted(points, {second.key: "why"})) == [(second, "why", 8)]
    assert list(_counted(points, {first.key: "a", second.key: "b"})) == [(first, "a", 8), (second, "b", 8)]
    assert list(_counted(points, {})) == []


def test_each_reason_is_said_once() -> None:
    dropped = [Dropped("a", "x"), Dropped("b", "y"), Dropped("c", "x")]
    assert _reasons(dropped) == "2 configurations: x; b: y"


# --- refusals -------------------------------------------------------------------------------------

H200 = Target("cuda", hardware.HARDWARE["h200"], shapes.SHAPES["llama-3.1-8b"], supposed=True)
T4 = Target("cuda", hardware.HARDWARE["t4"], shapes.SHAPES["llama-3.1-8b"], supposed=True)


def config(**more: Any) -> ServingConfig:
    return ServingConfig(**{"engine": "vllm", "model": "m", "device": "cuda", "max_model_len": 4096, **more})


def test_why_a_configuration_is_not_launched() -> None:
    assert _refusal(config(), H200)[0] is None
    reason, feasibility = _refusal(config(), T4)
    assert reason == feasibility.reason
    assert "exceed" in str(reason) or "alone take" in str(reason)
    strange = _refusal(config(engine="transformers", max_num_seqs=8, max_model_len=None), H200)[0]
    assert strange == "transformers has no max_num_seqs"


def test_what_no_kernel_can_do_is_refused_unless_it_is_to_be_tried() -> None:
    reason = _refusal(config(quantization="bnb-4bit"), H200)[0]
    assert reason is not None
    assert "bnb-4bit" in reason
    assert _refusal(config(quantization="bnb-4bit", attempt=True), H200)[0] is None


# --- targets --------------------------------------------------------------------------------------

NAMED = Model(name="m", path="no/such/folder", shape="qwen2.5-7b")


def test_a_supposed_gpu_must_be_known() -> None:
    found = supposing("l4", NAMED)
    assert (found.device, found.hardware, found.shape, found.supposed) == (
        "cuda", hardware.HARDWARE["l4"], shapes.SHAPES["qwen2.5-7b"], True,
    )  # fmt: skip
    for name in ("z9", "cpu-2core"):
        with pytest.raises(UserError, match=f"no figures of a GPU '{name}'; known: ") as caught:
            supposing(name, NAMED)
        assert caught.value.hint.startswith("--gpu ")
        assert "cpu-2core" not in caught.value.message.partition("known: ")[2]


def test_the_device_of_a_run_is_that_of_its_manifest() -> None:
    l4 = {"name": "NVIDIA L4", "memory_bytes": 23034 * 2**20}
    there = recorded({"device": "cuda", "environment": {"gpus": [l4]}}, NAMED)
    assert (there.device, there.hardware) == ("cuda", hardware.HARDWARE["l4"])
    for manifest in (
        {"device": "cuda"},
        {"device": "cuda", "environment": {"gpus": []}},
        {"device": "cpu", "environment": {"gpus": [l4]}},
    ):
        assert recorded(manifest, NAMED) == Target("cpu", None, shapes.SHAPES["qwen2.5-7b"])


def test_this_machines_gpu_counts_unless_a_cpu_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="NVIDIA L4", memory_bytes=23034 * 2**20)
    monkeypatch.setattr("bench.plan.target.gpus_visible", lambda: [card])
    assert [target_of(device, NAMED).device for device in (None, "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
    monkeypatch.setattr("bench.plan.target.gpus_visible", list)
    assert target_of("cuda", NAMED) == Target("cuda", None, shapes.SHAPES["qwen2.5-7b"])
    assert target_of(None, NAMED).device == "cpu"


def test_the_simulated_engine_brings_its_device_and_may_bring_its_shape() -> None:
    here = Target("cuda", hardware.HARDWARE["l4"], shapes.SHAPES["qwen2.5-7b"])
    assert place(config(), here) == (here.hardware, here.shape)
    sim = {"engine": "sim", "device": "cpu"}
    assert place(config(**sim, sim={"gpu": "t4", "shape": "llama-3.1-8b"}), here) == (
        hardware.HARDWARE["t4"], shapes.SHAPES["llama-3.1-8b"],
    )  # fmt: skip
    assert place(config(**sim, sim={}), here) == (hardware.HARDWARE["h200"], here.shape)
    assert (
        place(config(**sim, sim={}, model="llama-3.1-8b"), Target("cpu", None, None))[1]
        == shapes.SHAPES["llama-3.1-8b"]
    )
    assert target._device("z9") is None


def test_a_plan_counts_the_points_of_its_launches() -> None:
    one, two = (Point(config(max_num_seqs=n), Load("w", 1, 1, concurrency=1)) for n in (1, 2))
    launches = tuple(planning.Launch(str(n), p.config, (p,)) for n, p in enumerate((one, two)))
    assert Plan(SimpleNamespace(), "cpu", launches, (), {}, 0.0).points == (one, two)  # type: ignore[arg-type]
