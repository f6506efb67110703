"""Levels, neighbours and Optuna's parameters of small spaces, written out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from search.space import UNSET, Axis, Space, _axis, made, names
from serving.config import ServingConfig


@pytest.mark.parametrize(
    ("axis", "levels"),
    [
        (Axis("a", choices=("x", "y"), default="y"), ("x", "y")),
        (Axis("a", choices=("x", "y")), (None, "x", "y")),
        (Axis("a", choices=("x", "y", "x")), (None, "x", "y")),
        (Axis("a", "int", low=4, high=40, log=True), (None, 4, 8, 16, 32, 40)),
        (Axis("a", "int", low=4, high=32, log=True, default=8), (4, 8, 16, 32)),
        (Axis("a", "int", low=4, high=32, log=True, default=12), (12, 4, 8, 16, 32)),
        (Axis("a", "int", low=2, high=5), (None, 2, 3, 4, 5)),
        (Axis("a", "int", low=2, high=9, step=3), (None, 2, 5, 8)),
        (Axis("a", "float", low=0.5, high=0.9, default=0.5), (0.5, 0.6, 0.7, 0.8, 0.9)),
        (Axis("a", "float", low=0.0, high=0.3, step=0.1, default=0.0), (0.0, 0.1, 0.2, 0.3)),
        (Axis("a", "float", low=0.5, high=2.0, log=True, default=0.5), (0.5, 1.0, 2.0)),
    ],
)
def test_the_levels_of_an_axis(axis: Axis, levels: tuple[object, ...]) -> None:
    assert len(axis.levels) == len(levels)
    for found, wanted in zip(axis.levels, levels, strict=True):
        assert found == (pytest.approx(wanted) if isinstance(wanted, float) else wanted)
        assert isinstance(found, type(wanted))


@pytest.mark.parametrize(
    ("axis", "finite"),
    [
        (Axis("a", choices=("x",)), True),
        (Axis("a", "int", low=1, high=9), True),
        (Axis("a", "int", low=1, high=9, log=True), False),
        (Axis("a", "int", low=1, high=9, log=True, step=2), True),
        (Axis("a", "float", low=0.1, high=0.9), False),
        (Axis("a", "float", low=0.1, high=0.9, step=0.1), True),
    ],
)
def test_whether_the_levels_are_all_there_is(axis: Axis, finite: bool) -> None:
    assert axis.finite == finite


SEQS = Axis("max_num_seqs", "int", low=1, high=8, log=True, default=2)
METHOD = Axis("quantization", choices=("fp8", "awq"))
EAGER = Axis("enforce_eager", choices=(True, False), default=False)
ONE = Space({"one": (SEQS, METHOD, EAGER)})
TWO = Space({"one": (SEQS,), "two": (METHOD,)})


def test_the_default_names_only_what_the_engine_must_be_told() -> None:
    assert ONE.default() == {"engine": "one", "max_num_seqs": 2, "enforce_eager": False}
    assert TWO.default("two") == {"engine": "two"}
    assert TWO.default() == {"engine": "one", "max_num_seqs": 2}


def test_departures_are_settings_that_differ_from_their_default() -> None:
    assert ONE.departures(ONE.default()) == 0
    assert ONE.departures({**ONE.default(), "quantization": "fp8"}) == 1
    assert (
        ONE.departures({"engine": "one", "max_num_seqs": 4, "enforce_eager": True, "quantization": "fp8"})
        == 3
    )


def test_the_whole_space_begins_with_the_default() -> None:
    every = list(ONE.all())
    assert every[0] == ONE.default()
    assert len(every) == ONE.size == 4 * 3 * 2
    assert [s["engine"] for s in TWO.all()] == ["one"] * 4 + ["two"] * 3


def test_neighbours_are_one_level_up_and_down_or_any_other_choice() -> None:
    """Between 1, 2, 4, 8 one step; None, fp8 and awq have no order, nor have True and False."""
    here = {"engine": "one", "max_num_seqs": 4, "quantization": "fp8", "enforce_eager": True}
    assert ONE.neighbours(here) == [
        {**here, "max_num_seqs": 2},
        {**here, "max_num_seqs": 8},
        {"engine": "one", "max_num_seqs": 4, "enforce_eager": True},
        {**here, "quantization": "awq"},
        {**here, "enforce_eager": False},
    ]


@pytest.mark.parametrize(("seqs", "near"), [(1, [2]), (8, [4]), (2, [1, 4]), (3, [1, 2, 4, 8])])
def test_an_end_has_one_neighbour_and_what_is_no_level_has_them_all(seqs: int, near: list[int]) -> None:
    assert [s["max_num_seqs"] for s in TWO.neighbours({"engine": "one", "max_num_seqs": seqs})] == near


def test_parameters_name_the_engine_where_there_are_several() -> None:
    assert ONE.parameters({"engine": "one", "max_num_seqs": 4}) == {
        "max_num_seqs": 4, "quantization": UNSET, "enforce_eager": UNSET,
    }  # fmt: skip
    assert TWO.parameters({"engine": "two", "quantization": "fp8"}) == {
        "engine": "two",
        "two.quantization": "fp8",
    }


def test_a_range_that_may_be_left_out_has_a_switch() -> None:
    space = Space({"one": (Axis("max_num_seqs", "int", low=1, high=8),)})
    assert space.parameters({"engine": "one"}) == {"max_num_seqs?": UNSET}
    assert space.parameters({"engine": "one", "max_num_seqs": 3}) == {
        "max_num_seqs?": "set",
        "max_num_seqs": 3,
    }


@pytest.mark.parametrize(
    ("axis", "given", "settings"),
    [
        (METHOD, {"quantization": UNSET}, {}),
        (METHOD, {"quantization": "awq"}, {"quantization": "awq"}),
        (Axis("a", "int", low=2, high=9, step=3), {"a?": UNSET}, {}),
        (Axis("a", "int", low=2, high=8, step=3), {"a?": "set", "a": 5}, {"a": 5}),
        (Axis("a", "int", low=1, high=8, log=True, default=2), {"a": 7}, {"a": 7}),
        (Axis("a", "float", low=0.5, high=0.9, default=0.5), {"a": 0.625}, {"a": 0.625}),
        (Axis("a", "float", low=0.5, high=1.0, step=0.25, default=0.5), {"a": 0.75}, {"a": 0.75}),
    ],
)
def test_what_optuna_suggests_becomes_settings(
    axis: Axis, given: dict[str, object], settings: dict[str, object]
) -> None:
    """And the distributions are those of the axis: a fixed trial refuses what is outside them."""
    trial = optuna.trial.FixedTrial(given)
    assert Space({"one": (axis,)}).suggest(trial) == {"engine": "one", **settings}
    if axis.kind != "categorical" and settings:
        found = trial.distributions["a"]
        assert (found.low, found.high, found.log) == (axis.low, axis.high, axis.log)
        assert found.step == (
            None if axis.log and axis.kind == "float" else axis.step or (1 if axis.kind == "int" else None)
        )


def test_the_engine_is_suggested_only_where_there_are_several() -> None:
    trial = optuna.trial.FixedTrial({"engine": "two", "two.quantization": "fp8"})
    assert TWO.suggest(trial) == {"engine": "two", "quantization": "fp8"}


def test_settings_leave_out_what_is_left_to_the_engine() -> None:
    assert made("one", {"a": None, "b": 0, "engine": "two"}) == {"engine": "one", "b": 0}


def test_engines_of_one_kind_are_numbered() -> None:
    parts = [SimpleNamespace(engine=name) for name in ("vllm", "sim", "vllm", "vllm")]
    assert names(SimpleNamespace(engines=parts)) == ["vllm", "sim", "vllm-2", "vllm-3"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "given", "axis"),
    [
        ("max_num_seqs", {"low": 4.0, "high": 64.0, "default": 8.0}, Axis("max_num_seqs", "int", (), 4, 64, default=8)),
        ("max_num_seqs", {"low": 4.0, "high": 64.0, "log": True}, Axis("max_num_seqs", "int", (), 4, 64, log=True)),
        ("gpu_memory_utilization", {"low": 0.0, "high": 1.0}, Axis("gpu_memory_utilization", "float", (), 0, 1)),
        ("x", {"low": 0.5, "high": 2.0, "default": 1.0, "step": 0.5}, Axis("x", "float", (), 0.5, 2, step=0.5, default=1.0)),
        ("x", {"low": 1.0, "high": 2.5}, Axis("x", "float", (), 1, 2.5)),
    ],
)  # fmt: skip
def test_a_range_of_whole_numbers_is_one_of_integers_but_for_shares(
    name: str, given: dict[str, Any], axis: Axis
) -> None:
    found = _axis(name, SimpleNamespace(**{"log": False, "step": None, "default": None, **given}))
    assert found == axis
    assert type(found.default) is type(axis.default)


def test_listed_choices_are_read_as_quantities_and_have_the_configs_default() -> None:
    assert _axis("kv_cache_bytes", ["2GiB", 4096]).choices == (2 * 2**30, 4096)
    assert (
        _axis("tensor_parallel_size", [1, 2]).default
        == ServingConfig.model_fields["tensor_parallel_size"].default
    )
