"""transformers serve: settings to flags, and options that would do nothing refused beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.config import ServingConfig
from serving.engines import transformers
from serving.engines.transformers import Transformers
from serving.install import environments
from serving.install.environment import Environment
from serving.install.environments import FLAGS


def config(**settings: object) -> ServingConfig:
    return ServingConfig.model_validate({"engine": "transformers", "model": "org/name", **settings})


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    lock = tmp_path / "transformers-5.23.0-cpu.txt"
    lock.write_text("# nothing\n")
    environment = Environment("transformers", "5.23.0", "cpu", tmp_path / "transformers-5.23.0", lock)
    environment.folder.mkdir()
    known = "--dtype --attn-implementation --quantization --compile --continuous-batching --cb-block-size"
    (environment.folder / FLAGS).write_text(known)
    monkeypatch.setattr(Environment, "installed", True)
    monkeypatch.setattr(environments, "find", lambda name, version, device: environment)
    return environment


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"dtype": "float32"}, ["--dtype", "float32"]),
        ({"quantization": "bnb-4bit"}, ["--quantization", "bnb-4bit"]),
        ({"enforce_eager": True}, []),
        ({"enforce_eager": False}, ["--compile"]),
        ({"attention_backend": "sdpa"}, ["--attn-implementation", "sdpa"]),
        ({"continuous_batching": False}, []),
        ({"continuous_batching": True, "max_num_batched_tokens": 64, "gpu_memory_utilization": 0.5},
         ["--continuous-batching", "--cb-max-batch-tokens", "64", "--cb-max-memory-percent", "0.5"]),
        ({"continuous_batching": True, "extra_args": {"cb-block-size": 32}},
         ["--continuous-batching", "--cb-block-size", "32"]),
    ],
)  # fmt: skip
def test_settings_become_flags(settings: dict[str, object], expected: list[str]) -> None:
    assert transformers._arguments(config(**settings)) == expected


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_num_batched_tokens": 64}, "without continuous_batching"),
        ({"extra_args": {"cb-block-size": 32}}, "without continuous_batching"),
        ({"continuous_batching": True, "gpu_memory_utilization": 0.5}, "no flag --cb-max-memory-percent"),
        ({"quantization": "w8a8", "checkpoint": "org/x"}, "transformers has no w8a8"),
        ({"quantization": "bnb_4bit"}, "did you mean 'bnb-4bit'"),
        ({"extra_args": {"host": "0.0.0.0"}}, "may not set host"),
    ],
)
def test_what_cannot_be_launched_is_said_beforehand(settings: dict[str, object], said: str) -> None:
    problems = Transformers().problems(config(**settings))
    assert any(said in text for text in problems), problems


@pytest.mark.usefixtures("installed")
def test_the_command(tmp_path: Path) -> None:
    chosen = Transformers()
    assert chosen.problems(config(quantization="bnb-8bit")) == []
    hub = chosen.command(config(revision="abc"), 7)
    assert hub.argv[1:] == ("serve", "org/name@abc", "--host", "127.0.0.1", "--port", "7", "--device", "cpu")
    assert chosen.served_model(config(revision="abc")) == "org/name@abc"
    assert "HF_HUB_OFFLINE" not in hub.env
    folder = chosen.command(config(model=str(tmp_path)), 7)
    assert folder.argv[2] == str(tmp_path)
    assert folder.env["HF_HUB_OFFLINE"] == "1"


def test_it_claims_no_settings_that_the_server_does_not_tell() -> None:
    log = "[transformers] Loading /models/m@main\nINFO: Application startup complete."
    assert Transformers().effective("", config(), log) == {"model": "/models/m@main"}


def test_batching_that_the_server_gave_up_is_found_in_the_log() -> None:
    log = "Continuous batching is not supported for this model. Falling back to regular generation."
    found = Transformers().without_effect(config(continuous_batching=True), {}, log)
    assert "not supported" in found["continuous_batching"]
    assert Transformers().without_effect(config(), {}, log) == {}
