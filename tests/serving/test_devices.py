"""One count of devices, and everybody uses it: tensor x pipeline x data parallel is 8 to each consumer."""

from __future__ import annotations

import datetime
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.metrics import METRICS, compute
from bench.metrics.view import View
from bench.plan.estimate import throughput_bound
from bench.plan.feasibility import fits
from bench.plan.planning import as_json, plan
from bench.plan.target import Target, _usable
from bench.records.folder import RunFolder
from bench.records.model import Run, Sample
from bench.result import outcome
from bench.scenario import scenariofile
from bench.scenario.model import Price, Scenario
from search.engine_evaluator import EngineEvaluator
from search.objective import Goal
from search.request import SearchRequest
from search.resume import StudyLog
from search.session import parts
from search.space import Space, most_devices
from search.timed import Timed
from servetune.deploy.exporters import EXPORTERS, render
from servetune.deploy.exporters.reading import deployment
from servetune.deploy.fleet.price import fleet
from servetune.deploy.specify import SpecRequest, specify
from servetune.report import plan_table
from serving import devices
from serving.config import ServingConfig
from serving.costmodel import hardware, shapes
from serving.engines.vllm import _arguments
from serving.errors import UserError
from tests.support.compare_fixture import compare
from tests.support.export_fixture import PLAIN
from tests.support.synthetic import closed_loop

PRICE = Price(per_hour=4.0, currency="USD", source="x", date=datetime.date(2026, 1, 1), per="gpu")
TEXT = """
schema: 1
name: eight
question: what do eight GPUs cost?
device: cuda
model: {name: m, path: org/m, shape: llama-3.1-8b}
engines:
  - engine: vllm
    settings: {max_model_len: 8192, tensor_parallel_size: 2, extra_args: {pipeline-parallel-size: 2, -dp: "2"}}
workloads:
  - {name: test, input_tokens: 128, output_tokens: 20, concurrency: 16, requests: 800}
price: {per_hour: 4.0, currency: USD, source: x, date: 2026-01-01, per: gpu}
search: {goal: minimize cost_per_million_output_tokens, trials: 2}
"""
SPELLINGS: list[dict[str, Any]] = [
    {"pipeline-parallel-size": 2, "data-parallel-size": 2},
    {"pipeline_parallel_size": "2", "data_parallel_size": "2"},
    {"--pipeline-parallel-size": 2, "--data_parallel_size": "2"},
    {"-pp": 2, "-dp": "2"},
    {"pp": "2", "--dp": 2},
    {"-tp": 8, "tensor-parallel-size": 4, "dp": 2},
    {"-pcp": 2, "-dp": 2, "dcp": 2, "enable-expert-parallel": True},
    {"data-parallel-size": None, "dp": 4},
]


def eight(**more: Any) -> ServingConfig:
    given: dict[str, Any] = {"pipeline-parallel-size": 2, "-dp": "2"}
    return ServingConfig(
        engine="vllm", model="org/m", device="cuda", tensor_parallel_size=2, extra_args=given, **more
    )


def run_of(config: ServingConfig, samples: tuple[Sample, ...] = ()) -> Run:
    run = closed_loop()
    return replace(run, point=replace(run.point, config=config), samples=samples, engine_version="0.32.0")


def scenario(folder: Path, text: str = TEXT) -> Scenario:
    file = folder / "scenario.yaml"
    file.write_text(text)
    return scenariofile.load(file)


@pytest.mark.parametrize("flags", SPELLINGS, ids=lambda f: " ".join(f))
def test_every_spelling_is_counted_and_launched(flags: dict[str, Any]) -> None:
    config = ServingConfig(engine="vllm", model="m", tensor_parallel_size=2, extra_args=flags)
    assert devices.count(config) == 8
    long = [part for part in _arguments(config) if part.startswith("--")]
    assert not [flag for flag in long if flag.lstrip("-") in devices.SHORT]
    assert all(flag[2:].endswith(("-size", "-parallel")) for flag in long)


@pytest.mark.parametrize("value", ["eight", True, "", 0, "-2", 2.0, "2x", "²"])
def test_what_is_no_number_is_not_counted(value: Any) -> None:
    config = ServingConfig(engine="vllm", model="m", extra_args={"data-parallel-size": value})
    assert devices.count(config) is None


def test_a_rank_of_several_counts_itself_alone() -> None:
    config = eight()
    ranked = config.model_copy(update={"extra_args": {**config.extra_args, "data-parallel-rank": 1}})
    assert devices.count(ranked) == 4


def test_a_running_server_is_counted_only_where_it_says_so() -> None:
    there = ServingConfig(engine="endpoint", model="m", url="http://127.0.0.1:8000")
    assert devices.count(there) is None
    assert devices.count(there.model_copy(update={"gpus": 8})) == 8


def test_money_and_compare() -> None:
    one = run_of(ServingConfig(engine="vllm", model="org/m", device="cuda"))
    names = [name for name in METRICS if name.startswith("cost_")]
    assert len(names) == 3
    cheap, dear = compute(one, price=PRICE), compute(run_of(eight()), price=PRICE)
    assert [dear[name] for name in names] == [pytest.approx(8 * (cheap[name] or 0)) for name in names]
    names = ["cost_per_million_output_tokens", "output_token_throughput_per_s"]
    runs = ([replace(r, launch=str(n)) for n in range(3)] for r in (one, run_of(eight())))
    a, b = runs
    ratios = [compare(a, b, name, price=lambda run: PRICE).ratio for name in names]
    assert ratios == [pytest.approx(8), pytest.approx(1)]


def test_telemetry_counts_the_cards_that_the_engine_is_on() -> None:
    """An engine may spread by itself; cards that others use, or where nothing of it was seen, do not count."""
    one = ServingConfig(engine="vllm", model="org/m", device="cuda")
    seen = tuple(Sample(t, f"gpu{i}_memory_bytes", 1e9) for t in (0.1, 1.0) for i in range(4))
    idle = tuple(Sample(0.1, f"gpu{i}_power_w", 80.0) for i in range(8))
    assert View(run_of(one, (*seen, *idle))).devices == 4
    assert View(run_of(one, idle)).devices == 1
    assert View(run_of(eight(), seen)).devices == 8


def test_an_unknown_count_has_no_cost_per_gpu() -> None:
    there = run_of(ServingConfig(engine="endpoint", model="m", url="http://127.0.0.1:8000"))
    assert compute(there, price=PRICE)["cost_per_million_output_tokens"] is None
    machine = PRICE.model_copy(update={"per": "machine"})
    assert compute(there, price=machine)["cost_per_million_output_tokens"] is not None


def test_spec_capacity_and_every_export(tmp_path: Path) -> None:
    of = scenario(tmp_path)
    manifest = {"scenario": of.name, "device": "cuda", "environment": {}}
    folder = RunFolder.create(tmp_path / "run", manifest, of.file.read_bytes())
    run = run_of(eight())
    folder.save(run)
    assert outcome(run, of).devices == 8
    spec = specify(folder, of, SpecRequest(image="docker.io/vllm/vllm-openai:v0.32.0@sha256:" + "a1" * 32))
    assert spec.hardware.gpus == 8
    assert spec.cost is not None
    assert spec.cost.replica_hour == 32.0
    rated = spec.model_copy(update={"capacity": spec.capacity.model_copy(update={"safe_rate_per_s": 5.0})})
    found = fleet(rated, 12.0)
    assert (found.replicas, found.gpus, found.cost_per_hour) == (3, 24, 96.0)
    older = rated.model_copy(update={"hardware": rated.hardware.model_copy(update={"gpus": 1})})
    assert fleet(older, 12.0).gpus == 24
    assert deployment(older).gpus == 8
    assert not {"dp", "-dp"} & deployment(spec).flags.keys()


GPU_COUNT = {
    "kubernetes": r'nvidia\.com/gpu: "?(\d+)',
    "kserve": r'nvidia\.com/gpu: "?(\d+)',
    "ray": r'nvidia\.com/gpu: "?(\d+)',
    "production-stack": r"requestGPU: (\d+)",
    "compose": r"count: (\d+)",
}


@pytest.mark.parametrize("target", GPU_COUNT)
def test_each_export_asks_for_all_of_them(target: str) -> None:
    flags = {**PLAIN.flags, "tensor-parallel-size": 2, "pipeline-parallel-size": "2", "data-parallel-size": 2}
    files = render(replace(PLAIN, flags=flags), target)
    counts = {int(n) for text in files.values() for n in re.findall(GPU_COUNT[target], text)}
    assert counts == {8}


def test_the_other_targets_count_no_gpus() -> None:
    """A target that is added must say where it asks for GPUs, or that it does not."""
    assert EXPORTERS.keys() - GPU_COUNT.keys() == {"vllm", "delivery", "bom"}
    for target in ("vllm", "delivery", "bom"):
        texts = render(replace(PLAIN, gpus=8), target).values()
        assert not [text for text in texts if re.search(r"nvidia\.com/gpu: |count: 8", text)]


def test_search_budget_and_ray_placement(tmp_path: Path) -> None:
    of = scenario(tmp_path)
    assert most_devices(of) == 8
    other = TEXT.replace("    settings: {", "    space: {tensor_parallel_size: [1, 2, 4]}\n    settings: {")
    assert most_devices(scenario(tmp_path, other.replace(" tensor_parallel_size: 2,", ""))) == 16
    ranged = TEXT.replace("    settings: {", "    grid: {extra_args: [{}, {tp: 8}]}\n    settings: {")
    ranged = ranged.replace(', extra_args: {pipeline-parallel-size: 2, -dp: "2"}', "")
    assert most_devices(scenario(tmp_path, ranged)) == 8
    target = Target("cuda", hardware.HARDWARE["h200"], shapes.SHAPES["llama-3.1-8b"])
    folder = RunFolder.create(tmp_path / "study", {}, b"")
    oracle = EngineEvaluator(of, folder, target, Goal.of(of), Timed())
    needed = oracle._needed(oracle.baseline, 2.0)  # tokens/s for 2 USD a million at 32 USD an hour
    assert needed == pytest.approx(32 / 3600 * 1e6 / 2)


def test_a_search_is_priced_by_the_devices_it_holds(tmp_path: Path) -> None:
    of = scenario(tmp_path)
    target = Target("cuda", None, None)
    folder = RunFolder.create(tmp_path / "study", {}, b"")
    oracle = EngineEvaluator(of, folder, target, Goal.of(of), Timed())
    loop, finals = parts(of, SearchRequest(), Space.of(of), oracle, StudyLog(folder.path), print)
    assert loop.budget is finals.budget
    assert loop.budget.cost(3600.0) == 32.0


def test_plan_shows_them_and_the_memory_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(scenario(tmp_path), gpu="h100")
    assert [config["gpus"] for config in as_json(found)["configs"]] == [8]
    plan_table.show_plan(found)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("vllm none"))
    assert row.split()[2:5] == ["1", "1", "8"]


def test_memory_is_shared_by_tensor_and_pipeline_not_by_data() -> None:
    """Llama-3.1-8B in 16 bits: 14.96 GiB, of which embeddings and head are 0.98 each."""
    target = Target("cuda", hardware.HARDWARE["h100-sxm"], shapes.SHAPES["llama-3.1-8b"])
    gib = 2**30

    def budget(**flags: Any) -> Any:
        config = ServingConfig(engine="vllm", model="m", device="cuda", max_model_len=8192, extra_args=flags)
        return fits(config, target).budget

    alone, data = budget(), budget(dp=8)
    assert data == alone
    assert alone.weights / gib == pytest.approx(14.96, abs=0.01)
    assert budget(tp="4").weights / gib == pytest.approx(14.96 / 4, abs=0.01)
    halves = budget(pp=2)
    assert halves.weights / gib == pytest.approx((14.96 - 2 * 0.98) / 2 + 0.98, abs=0.01)
    assert halves.kv_per_token == alone.kv_per_token / 2
    assert budget(pp=2, tp=2).weights == pytest.approx(halves.weights / 2, rel=1e-6)


def test_the_bound_of_several_is_not_that_of_one() -> None:
    """What it says cannot win is not launched: eight ranks must not be held against the limit of one."""
    where, shape = hardware.HARDWARE["h100-sxm"], shapes.SHAPES["llama-3.1-8b"]
    load = replace(closed_loop().point.load, concurrency=512)
    one = ServingConfig(engine="vllm", model="m", device="cuda", max_model_len=2048, max_num_seqs=64)
    bound = throughput_bound(one, load, where, shape)
    ranks = one.model_copy(update={"extra_args": {"-dp": 8}})
    stages = one.model_copy(update={"extra_args": {"-pp": 8}})
    assert throughput_bound(ranks, load, where, shape) == pytest.approx(8 * bound)
    assert throughput_bound(stages, load, where, shape) >= 8 * bound


PER_GPU = [
    ("{engine: endpoint, settings: {url: 'http://127.0.0.1:9'}}", "nobody knows on how many GPUs"),
    ("{engine: vllm, settings: {extra_args: {-dp: many}}}", "nobody knows on how many GPUs"),
]


@pytest.mark.parametrize(("engine", "says"), PER_GPU)
def test_a_price_per_gpu_needs_their_number(tmp_path: Path, engine: str, says: str) -> None:
    text = re.sub(r"engines:.*workloads", f"engines: [{engine}]\nworkloads", TEXT, flags=re.DOTALL)
    with pytest.raises(UserError, match=says) as refused:
        plan(scenario(tmp_path, text), gpu="h100")
    assert "per: machine" in refused.value.hint
    assert plan(scenario(tmp_path, text.replace("per: gpu", "per: machine")), gpu="h100").points
    stated = text.replace("'http://127.0.0.1:9'", "'http://127.0.0.1:9', gpus: 8")
    if stated != text:
        assert plan(scenario(tmp_path, stated), gpu="h100").points


def test_a_price_per_gpu_on_the_cpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.engines.vllm.Vllm.problems", lambda self, config: [])
    text = TEXT.replace("device: cuda", "device: cpu").replace(
        ', extra_args: {pipeline-parallel-size: 2, -dp: "2"}', ""
    )
    with pytest.raises(UserError, match="runs on the CPU"):
        plan(scenario(tmp_path, text))


@pytest.mark.parametrize(
    ("cards", "visible", "usable"),
    [(8, None, 8), (8, "0,1", 2), (8, "", 0), (2, "0,1,2", 2), (8, "MIG-abc", None), (8, "GPU-1, GPU-2", 2)],
)
def test_cards_that_may_be_used(cards: int, visible: str | None, usable: int | None) -> None:
    assert _usable(cards, visible) == usable


def test_more_than_there_are_is_refused_at_planning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target("cuda", hardware.HARDWARE["h200"], shapes.SHAPES["llama-3.1-8b"], cards=4)
    monkeypatch.setattr("bench.plan.planning.target_of", lambda device, model: target)
    monkeypatch.setattr("serving.engines.vllm.Vllm.problems", lambda self, config: [])
    with pytest.raises(UserError, match=r"takes 8 GPUs .* 4 GPUs can be seen here"):
        plan(scenario(tmp_path))
    for more in ("nnodes: 2", "distributed-executor-backend: ray"):
        assert plan(scenario(tmp_path, TEXT.replace("-dp:", f"{more}, -dp:"))).points
    monkeypatch.setattr("bench.plan.planning.target_of", lambda device, model: replace(target, cards=8))
    assert plan(scenario(tmp_path)).points
