"""Real engines, started once a session: vLLM and transformers, serving the small model on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.config import ServingConfig
from serving.engines import engine
from serving.install import environments
from serving.launch.launch import Server, launch

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / ".models" / "smollm2-135m-instruct"
SETTINGS: dict[str, dict[str, object]] = {
    "vllm": {"max_model_len": 512, "max_num_seqs": 4, "kv_cache_bytes": 2**29, "enforce_eager": True},
    "transformers": {"quantization": "bnb-4bit"},
}


def real_config(name: str, **settings: object) -> ServingConfig:
    """A small configuration of a real engine on the CPU."""
    fields = {"engine": name, "model": str(MODEL), **SETTINGS[name], **settings}
    return ServingConfig.model_validate(fields)


def need(name: str) -> None:
    """Skips the test, with the reason, where the engine or model is missing.

    In CI that is a failure instead, unless the build cannot be had there: then its installer said so.
    """
    environment = environments.find(name, None, "cpu")
    assert environment is not None
    if not environment.installed:
        log = environment.folder.parent / f"{environment.folder.name}.log"
        no_build = log.is_file() and "No matching distribution found for torch" in log.read_text(
            errors="replace"
        )
        _missing(f"{environment.folder.name} is not installed: make engines", excused=no_build)
    if not (MODEL / "config.json").is_file():
        _missing("the small model is not there: make model", excused=False)


def _missing(text: str, *, excused: bool) -> None:
    if os.environ.get("CI") and not excused:
        pytest.fail(text)
    pytest.skip(text)


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """vLLM on the CPU, eager, four sequences; about 35 s."""
    need("vllm")
    with launch(engine("vllm"), real_config("vllm"), tmp_path_factory.mktemp("vllm")) as server:
        yield server


@pytest.fixture(scope="session")
def transformers_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """transformers serve with 4-bit weights by bitsandbytes; about 10 s."""
    need("transformers")
    folder = tmp_path_factory.mktemp("transformers")
    with launch(engine("transformers"), real_config("transformers"), folder) as server:
        yield server
