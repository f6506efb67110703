"""`ServingConfig.sim` and the engine's checks: what is wrong is named, with the nearest right thing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.config import ServingConfig
from serving.engine import Command
from serving.engines import engine
from serving.errors import FailureKind
from serving.sim.engine import Sim
from serving.sim.settings import FAULTS, Fault, check, parse_fault, settings


def config(**more: Any) -> ServingConfig:
    sim = {"gpu": "h200", "shape": "llama-3.1-8b", **more.pop("sim", {})}
    return ServingConfig(**{"engine": "sim", "model": "m", "max_model_len": 4096, "sim": sim, **more})


def test_the_table_has_it() -> None:
    found = engine("sim")
    assert isinstance(found, Sim)
    assert found.simulated
    assert found.honours <= set(ServingConfig.model_fields)


@pytest.mark.parametrize(
    ("sim", "says"),
    [
        ({"gpus": "h200"}, "did you mean 'gpu'?"),
        ({"time_scal": 0.5}, "did you mean 'time_scale'?"),
        ({"seed": "1"}, "seed must be int"),
        ({"seed": True}, "seed must be int"),
        ({"time_scale": 0}, "above 0"),
        ({"noise": 3}, "between 0 and 1"),
        ({"fault": "oom_at_lunch"}, "did you mean 'oom_at_launch'?"),
        ({"fault": "crash_after"}, "crash_after:N"),
        ({"fault": "crash_after:x"}, "crash_after:N"),
        ({"fault": "crash_after:1.5"}, "whole number"),
        ({"fault": "error_rate:1.5"}, "from 0 to 1"),
        ({"fault": "stall:-1"}, "seconds from 0"),
        ({"fault": "stall:inf"}, "seconds from 0"),
        ({"fault": "stall:nan"}, "seconds from 0"),
        ({"fault": "bad_flag:2"}, "takes no parameter"),
        ({"gpu": "h20"}, "did you mean 'h200'?"),
        ({"shape": "llama-3.1-9b"}, "did you mean 'llama-3.1-8b'?"),
    ],
)
def test_a_wrong_setting_is_named(sim: dict[str, object], says: str) -> None:
    problems = Sim().problems(config(sim=sim))
    assert len(problems) == 1
    assert says in problems[0]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"quantization": "magic"}, "no cost model"),
        ({"max_num_batched_tokens": 8, "max_num_seqs": 16}, "below max_num_seqs"),
        ({"enable_chunked_prefill": False, "max_num_batched_tokens": 1024}, "chunked prefill is off"),
        ({"max_model_len": 200_000}, "131072"),
        ({"tensor_parallel_size": 3}, "32 attention heads"),
        ({"sim": {"gpu": "cpu-2core"}, "tensor_parallel_size": 2}, "not simulated on a CPU"),
        ({"sim": {"gpu": "t4"}, "dtype": "bfloat16"}, "no bfloat16"),
        ({"tokenizer": "/no/such/folder"}, "no tokenizer.json"),
    ],
)
def test_what_the_real_engine_refuses_is_refused(more: dict[str, Any], says: str) -> None:
    assert any(says in problem for problem in Sim().problems(config(**more)))


def test_a_good_config_has_no_problems_and_a_command_that_carries_it() -> None:
    good = config(quantization="fp8", max_num_seqs=8, env={"A": "b"})
    assert Sim().problems(good) == []
    command = Sim().command(good, 4711)
    assert isinstance(command, Command)
    assert "4711" in command.argv
    asked = json.loads(command.argv[-1])
    assert asked["quantization"] == "fp8"
    assert asked["model"] == Sim().served_model(good) == "m"
    assert command.env == {"A": "b"}
    assert "env" not in asked


@pytest.mark.parametrize(
    "named", [{"tokenizer": "words"}, {"model": "words", "sim": {"shape": "llama-3.1-8b"}}]
)
def test_a_tokenizer_beside_the_caller_is_found_by_the_server_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: dict[str, Any]
) -> None:
    """The server has a working directory of its own, where a relative folder is not."""
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "tokenizer.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    command = Sim().command(config(**named), 1234)
    assert json.loads(command.argv[-1])["tokenizer"] == str(tmp_path / "words")


def test_the_shape_may_be_the_models_own_name() -> None:
    bare = ServingConfig(engine="sim", model="llama-3.1-8b", sim={"gpu": "l4"})
    assert Sim().problems(bare) == []


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_parses_and_says_what_it_does(name: str) -> None:
    kind, effect = FAULTS[name]
    text = f"{name}:{ {'N': 3, 'S': 0.5, 'P': 0.25}[kind] }" if kind else name
    assert parse_fault(text).name == name
    assert check({"fault": text}) == []
    assert len(effect) > 10


def test_every_class_of_failure_can_be_provoked() -> None:
    provokes = {
        FailureKind.OOM_LAUNCH: "oom_at_launch",
        FailureKind.OOM_LOAD: "oom_under_load",
        FailureKind.UNSUPPORTED: "unsupported",
        FailureKind.BAD_FLAG: "bad_flag",
        FailureKind.CRASH: "crash_after",
        FailureKind.HANG: "hang_after",
        FailureKind.NOT_READY: "never_ready",
        FailureKind.PORT_TAKEN: "port_taken",
        FailureKind.NO_EFFECT: "ignores_setting",
        FailureKind.WRONG_IDENTITY: "wrong_model",
        FailureKind.NOT_INSTALLED: "not_installed",
        FailureKind.KILLED: "killed_after",
    }
    no_engines = {FailureKind.NOT_SCORED}  # of answers that came, and could not be judged
    assert set(provokes) == set(FailureKind) - no_engines
    assert set(provokes.values()) <= set(FAULTS)


def test_a_count_is_of_the_requests_before_the_fault() -> None:
    fault = parse_fault("crash_after:2")
    assert [fault.strikes("crash_after", n) for n in (1, 2, 3)] == [False, False, True]
    assert not Fault().strikes("crash_after", 99)


@given(
    st.dictionaries(
        st.text(max_size=12),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
    )
)
def test_any_settings_are_taken_or_explained(sim: dict[str, Any]) -> None:
    problems = check(sim)
    if problems:
        with pytest.raises(ValueError):
            settings(sim)
    else:
        settings(sim)


def test_a_quantization_without_effect_is_noticed() -> None:
    asked = config(quantization="fp8")
    sim = Sim()
    assert sim.without_effect(asked, {"quantization": "fp8"}, "Quantizing 224 layers with fp8") == {}
    assert "0 layers" in sim.without_effect(asked, {}, "x\nQuantizing 0 layers with fp8\n")["quantization"]
    assert "none" in sim.without_effect(asked, {"quantization": "none"}, "")["quantization"]
    assert sim.without_effect(config(), {"quantization": "none"}, "Quantizing 0 layers") == {}


def test_a_missing_program_is_a_fault_too() -> None:
    command = Sim().command(config(sim={"fault": "not_installed"}), 1)
    assert "not-installed" in command.argv[0]
