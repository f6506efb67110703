"""What serving.costmodel.memory predicts, against what vLLM logged in launches that others published (tests/launches)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pytest
import yaml

from bench.plan.feasibility import judge
from serving.costmodel import hardware, memory, shapes
from serving.costmodel.defaults import Resolved, resolve
from serving.costmodel.hardware import GIB, Hardware
from serving.costmodel.memory import MemoryBudget
from serving.costmodel.shapes import Shape

ROWS: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "launches" / "launches.yaml").read_text(encoding="utf-8")
)
SETTINGS = (
    "tensor_parallel_size",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "quantization",
    "dtype",
)
MORE = {
    "qwen3-14b": Shape("qwen3-14b", 40, 5120, 40, 8, 128, 17408, 151936, 40960, qk_norm=True),
    "codellama-34b": Shape("codellama-34b", 48, 8192, 64, 8, 128, 22016, 32000, 16384),
    "tinyllama-1.1b": Shape("tinyllama-1.1b", 22, 2048, 32, 4, 64, 5632, 32000, 2048),
}
"""Shapes that only these launches need: layers, hidden, heads, KV heads, head, MLP, vocabulary, context."""
FITTED_ON = frozenset(list(dict.fromkeys(row["source"] for row in ROWS))[::2])
"""Every second source: the constants of serving.costmodel.memory were read off these, the others are held out."""
ROUNDING_GIB = 0.0051
"""vLLM prints GiB with two decimals."""
LEAST_GIB = 1.0
"""Below it the KV cache is a rest of a rest, and its relative error says nothing: compared in GiB only."""


@dataclass(frozen=True)
class Launch:
    row: dict[str, Any]
    shape: Shape
    resolved: Resolved
    budget: MemoryBudget
    whole: bool

    @property
    def available_gib(self) -> float | None:
        """As logged, or from the tokens logged."""
        if "available_gib" in self.row:
            return float(self.row["available_gib"])
        tokens = self.row.get("kv_tokens")
        return None if tokens is None else tokens * self.budget.kv_per_token / GIB

    @property
    def error(self) -> float:
        """Of the memory for the KV cache, and so of its tokens: predicted / logged - 1."""
        assert self.available_gib is not None
        return self.budget.available / GIB / self.available_gib - 1


def device(row: dict[str, Any]) -> Hardware | None:
    """The card with its memory as logged; what else is in its row does not matter here. None: not told."""
    if "gpu_total_gib" in row:
        return replace(hardware.HARDWARE["l4"], memory_bytes=int(row["gpu_total_gib"] * GIB))
    return hardware.find(row["gpu"]) if "gpu" in row else None


def launch(row: dict[str, Any]) -> Launch:
    shape = {**shapes.SHAPES, **MORE}[row["shape"]]
    shape = replace(shape, context=row.get("context", shape.context))
    where = device(row)
    asked = {key: row[key] for key in SETTINGS if key in row}
    asked["gpu_memory_utilization"] = row.get("utilization")
    resolved = resolve(asked, where or hardware.HARDWARE["h200"], shape)
    release = memory.profiling(row.get("release"), row.get("fused_sampler", False))
    budget = memory.budget(resolved, where or hardware.HARDWARE["h200"], shape, release)
    return Launch(row, shape, resolved, budget, where is not None and "utilization" in row)


LAUNCHES = [launch(row) for row in ROWS]
WHOLE = [found for found in LAUNCHES if found.whole]
COMPARED = [found for found in WHOLE if found.available_gib is not None and found.available_gib >= LEAST_GIB]


def name(found: Launch) -> str:
    return f"{found.row['source']} {found.row['place']}"


def spread(errors: list[float]) -> tuple[float, float]:
    """Median and 90th percentile of the sizes."""
    sizes = [abs(error) for error in errors]
    return median(sizes), quantiles(sizes, n=10, method="inclusive")[-1]


def test_every_row_says_where_it_comes_from_and_has_a_figure() -> None:
    known = {"weights_gib", "available_gib", "kv_tokens"}
    assert all(row["source"].count("/") == 1 and row["place"] and known & row.keys() for row in ROWS)
    places = [(row["source"], row["place"]) for row in ROWS]
    assert len(set(places)) == len(places)
    assert all(set(row.get("assumed", "").split()) <= row.keys() for row in ROWS)


@pytest.mark.parametrize("found", LAUNCHES, ids=name)
def test_bytes_a_token_are_exact(found: Launch) -> None:
    """Tokens x bytes a token is the available memory, to the block and to its printed digits."""
    row = found.row
    if "available_gib" not in row or "kv_tokens" not in row:
        pytest.skip("the source does not give both figures")
    block = found.budget.block_tokens * found.budget.kv_per_token / GIB
    left = row["available_gib"] - row["kv_tokens"] * found.budget.kv_per_token / GIB
    assert -ROUNDING_GIB <= left <= block + ROUNDING_GIB


def test_weights_as_loaded() -> None:
    """Unquantized: exact to the fourth digit in most, 0.1% in nine of ten. bitsandbytes: 3%."""
    errors: list[float] = []
    quantized: list[float] = []
    for found in LAUNCHES:
        if "weights_gib" in found.row:
            loaded = found.budget.weights + memory.loaded_bytes(found.resolved, found.shape)
            into = quantized if "quantization" in found.row else errors
            into.append(loaded / GIB / found.row["weights_gib"] - 1)
    assert len(errors) >= 20
    middle, most = spread(errors)
    assert middle < 0.0002
    assert most < 0.001
    assert max(abs(error) for error in (*errors, *quantized)) < 0.035


def test_the_peak_of_the_profiled_step() -> None:
    """Where the log gives it. The farthest ran with a max_num_seqs that is not told."""
    logged = [found for found in LAUNCHES if "activations_gib" in found.row]
    assert len(logged) >= 4
    errors = [found.budget.activations / GIB / found.row["activations_gib"] - 1 for found in logged]
    assert spread(errors)[0] < 0.05
    assert max(abs(error) for error in errors) < 0.20


def test_the_graphs_that_recent_releases_count() -> None:
    logged = [found for found in LAUNCHES if "graphs_estimated_gib" in found.row]
    assert logged
    for found in logged:
        graphs = memory.graph_bytes(found.resolved, found.shape)
        assert graphs / GIB == pytest.approx(found.row["graphs_estimated_gib"], rel=0.15)


@pytest.mark.parametrize("found", COMPARED, ids=name)
def test_kv_tokens_of_a_launch(found: Launch) -> None:
    assert abs(found.error) < 0.05


def test_kv_tokens_over_all_launches(capsys: pytest.CaptureFixture[str]) -> None:
    """All, then one figure a source (its worst), then the sources that no constant was read off."""
    worst: dict[str, float] = {}
    for found in COMPARED:
        seen = worst.get(found.row["source"], 0.0)
        worst[found.row["source"]] = max(found.error, seen, key=abs)
    held = [found.error for found in COMPARED if found.row["source"] not in FITTED_ON]
    for label, errors, middle, most in (
        ("launches", [found.error for found in COMPARED], 0.01, 0.04),
        ("sources, worst of each", list(worst.values()), 0.035, 0.05),
        ("held out", held, 0.03, 0.05),
    ):
        assert len(errors) >= 3
        found_middle, found_most = spread(errors)
        with capsys.disabled():
            print(
                f"\nKV tokens, {len(errors)} {label}: median {found_middle:.1%}, p90 {found_most:.1%}", end=""
            )
        assert found_middle <= middle
        assert found_most <= most


def test_what_little_is_left_is_met_in_gib() -> None:
    """Launches that hardly started or did not: the memory left, within what other processes make of it."""
    close = [found for found in WHOLE if found.available_gib is not None and found not in COMPARED]
    assert len(close) >= 3
    for found in close:
        assert found.available_gib is not None
        assert found.budget.available / GIB == pytest.approx(found.available_gib, abs=0.1)


@pytest.mark.parametrize("found", [found for found in WHOLE if found.row.get("started", True)], ids=name)
def test_nothing_that_started_is_refused(found: Launch) -> None:
    assert judge(found.budget, found.resolved).verdict != "does_not_fit"
    unknown = memory.budget(
        found.resolved, replace(hardware.HARDWARE["l4"], memory_bytes=found.budget.total), found.shape
    )
    assert judge(unknown, found.resolved).verdict != "does_not_fit"
