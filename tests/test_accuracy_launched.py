"""An evaluation inside a run: on a real launch of the simulated engine, shared, repeated, found by the gate."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_accuracy_evaluate import Listener

from bench.accuracy import store
from bench.accuracy.launched import evaluate_launch, is_baseline
from bench.accuracy.settings import Accuracy
from bench.results import RunFolder
from serving.config import ServingConfig
from serving.engines import engine
from serving.process import launch

SETTINGS = Accuracy(tasks=("facts", "text", "repeats"), items=8)


def config(**settings: object) -> ServingConfig:
    return ServingConfig.model_validate({"engine": "sim", "model": "smollm2-135m", **settings})


def test_which_configuration_is_the_baseline() -> None:
    first, other = config(), config(quantization="fp8")
    assert is_baseline(first, Accuracy(), first)
    assert not is_baseline(other, Accuracy(), first)
    named = Accuracy(baseline={"quantization": "fp8"})
    assert is_baseline(other, named, first)
    assert not is_baseline(first, named, first)


def test_a_run_evaluates_each_output_once_and_the_baseline_twice(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {}, b"")
    made = {}
    for settings in ({}, {"max_num_seqs": 4}, {"quantization": "int8"}):
        one = config(**settings)
        with launch(engine("sim"), one, tmp_path / "launch") as server:
            made[one.key] = evaluate_launch(run, one, server, SETTINGS, 3, Listener(), twice=not settings)
    base, shared, other = (store.evaluations(run, key) for key in made)
    assert [set(e.tasks) for e in base] == [{"facts", "text", "repeats"}, {"facts", "text"}]
    assert [e.folder for e in shared] == [base[0].folder]
    assert other[0].folder != base[0].folder
    assert all(e.simulated and not e.failure for e in (*base, *other))
    assert base[0].tasks["facts"].scored == base[1].tasks["facts"].scored


@pytest.mark.parametrize("users", [None, 5])
def test_the_load_s_concurrency_unless_the_scenario_says_another(tmp_path: Path, users: int | None) -> None:
    run = RunFolder.create(tmp_path / "run", {}, b"")
    with launch(engine("sim"), config(), tmp_path / "launch") as server:
        settings = SETTINGS.model_copy(update={"concurrency": users})
        made = evaluate_launch(run, config(), server, settings, 3, Listener())
    assert made.concurrency == (users or 3)
