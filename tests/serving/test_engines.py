"""What every row of ENGINES must keep, on paper and running. Real engines start once a session."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serving.config import ServingConfig
from serving.engine import Engine
from serving.engines import ENGINES, engine
from serving.errors import EngineError, FailureKind, UserError
from serving.install import environments
from serving.install.environment import Environment
from serving.launch.launch import Server, launch
from serving.launch.ready import differences, generate
from tests.support.engine_fixtures import MODEL, need, real_config

SIM = {"gpu": "h200", "shape": "llama-3.1-8b", "seed": 1}
CONFIGS: dict[str, ServingConfig] = {
    "vllm": real_config("vllm"),
    "transformers": real_config("transformers"),
    "endpoint": ServingConfig(engine="endpoint", model="m", url="http://127.0.0.1:9"),
    "sim": ServingConfig(engine="sim", device="cuda", model="m", tokenizer="none", max_num_seqs=8, sim=SIM),
}
STARTED = [name for name in ENGINES if name != "endpoint"]


def test_every_engine_is_held_to_this_suite() -> None:
    assert set(CONFIGS) == set(ENGINES)


@pytest.mark.parametrize("name", ENGINES)
def test_protocol_on_paper(name: str) -> None:
    chosen, config = engine(name), CONFIGS[name]
    assert chosen.name == name
    assert chosen.simulated == (name == "sim")
    assert chosen.honours <= set(ServingConfig.model_fields)
    assert chosen.served_model(config)
    assert isinstance(chosen.version(config), str)
    before = sorted(Path.cwd().iterdir())
    assert all(isinstance(text, str) and text for text in chosen.problems(config))
    assert sorted(Path.cwd().iterdir()) == before


@pytest.mark.parametrize("name", STARTED)
def test_commands_bind_to_loopback_and_carry_no_shell(name: str) -> None:
    if name != "sim":
        need(name)
    command = engine(name).command(CONFIGS[name], 4321)
    assert command is not None
    assert Path(command.argv[0]).is_absolute()
    assert "4321" in command.argv
    assert "0.0.0.0" not in command.argv
    assert not any(part.startswith("--trust-remote-code") for part in command.argv)
    assert all(isinstance(part, str) for part in command.argv)
    assert engine(name).problems(CONFIGS[name]) == []


def test_an_unknown_engine_names_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        engine("vlm")
    assert "vllm" in caught.value.hint


@pytest.fixture
def sim_server(tmp_path: Path) -> Iterator[Server]:
    with launch(engine("sim"), CONFIGS["sim"], tmp_path) as server:
        yield server


@pytest.fixture(params=[pytest.param(n, marks=() if n == "sim" else pytest.mark.engine) for n in ENGINES])
def running(request: pytest.FixtureRequest, sim_server: Server) -> tuple[Engine, Server]:
    """Each engine with a server of its own; `endpoint` looks at the simulated one."""
    name = request.param
    if name == "sim":
        return engine(name), sim_server
    if name == "endpoint":
        at = sim_server.endpoint
        config = ServingConfig(engine="endpoint", model=at.served_model, url=at.url)
        with launch(engine(name), config, Path("unused")) as server:
            return engine(name), server
    server = request.getfixturevalue(f"{name}_server")
    return engine(name), server


def test_a_running_server_is_what_was_asked(running: tuple[Engine, Server]) -> None:
    chosen, server = running
    at = server.endpoint
    assert server.alive()
    assert at.engine == chosen.name
    assert at.ready_s is not None
    assert at.ready_s > 0
    assert (at.pid is None) == (chosen.name == "endpoint")
    assert at.simulated == (chosen.name in ("sim", "endpoint"))
    assert differences(server.config.settings, at.effective) == []
    assert at.url.startswith("http://127.0.0.1:")
    if chosen.name not in ("endpoint", "sim"):
        assert at.version == chosen.version(server.config)
    assert generate(at.url, server.config, at.served_model, 60) is None


def test_a_stream_has_every_token_and_its_usage(running: tuple[Engine, Server]) -> None:
    chosen, server = running
    at = server.endpoint
    body: dict[str, object] = {
        "model": at.served_model, "prompt": "Once upon a time", "max_tokens": 12, "temperature": 0,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    if chosen.name != "transformers":  # which refuses the field, and stops at an end-of-sequence token
        body["ignore_eos"] = True
    events = []
    with httpx.stream("POST", f"{at.url}/v1/completions", json=body, timeout=60, trust_env=False) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if line.startswith("data:") and "[DONE]" not in line:
                events.append(json.loads(line[5:]))
    assert sum(bool(c.get("text")) for e in events for c in e["choices"]) >= 6
    usage = [event["usage"] for event in events if event.get("usage")][-1]
    assert usage["completion_tokens"] == 12 or (
        chosen.name == "transformers" and usage["completion_tokens"] < 12
    )
    assert usage["prompt_tokens"] > 0


def test_the_prefix_cache_is_emptied_or_said_not_to_be(running: tuple[Engine, Server]) -> None:
    chosen, server = running
    assert chosen.reset_prefix_cache(server.endpoint.url) == (chosen.name in ("vllm", "sim"))


@pytest.mark.engine
def test_vllm_tells_its_settings_itself(vllm_server: Server) -> None:
    effective = vllm_server.endpoint.effective
    expected = {
        "max_model_len": 512, "max_num_seqs": 4, "kv_cache_bytes": 2**29, "enforce_eager": True,
        "dtype": "bfloat16", "quantization": "none", "enable_prefix_caching": True,
    }  # fmt: skip
    assert {name: effective[name] for name in expected} == expected
    assert isinstance(effective["kv_cache_tokens"], int)


@pytest.mark.engine
def test_endpoint_reads_a_real_server(vllm_server: Server, tmp_path: Path) -> None:
    at = vllm_server.endpoint
    config = ServingConfig(engine="endpoint", model=at.served_model, url=f"{at.url}/")
    with launch(engine("endpoint"), config, tmp_path) as server:
        assert server.endpoint.version == at.version
        assert server.endpoint.effective["max_model_len"] == 512
        assert not server.endpoint.simulated
        assert server.alive()
    assert vllm_server.alive()
    other = config.model_copy(update={"model": "another"})
    with pytest.raises(EngineError) as caught, launch(engine("endpoint"), other, tmp_path):
        pass
    assert caught.value.failure.kind == FailureKind.WRONG_IDENTITY


@pytest.mark.engine
@pytest.mark.slow
def test_a_setting_that_did_nothing_is_found_out(tmp_path: Path) -> None:
    need("vllm")
    config = real_config("vllm", quantization="int8", attempt=True)
    with pytest.raises(EngineError) as caught, launch(engine("vllm"), config, tmp_path):
        pass
    failure = caught.value.failure
    assert failure.kind == FailureKind.NO_EFFECT
    assert "Quantizing 0 layers" in failure.detail
    assert failure.settings["quantization"] == "int8"


@pytest.mark.parametrize("name", ["vllm", "transformers"])
def test_not_installed_is_said_at_planning_and_at_launch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: Callable[..., list[Environment]] = environments.environments
    monkeypatch.setattr(environments, "environments", lambda engine=None, **kw: gone(engine, root=tmp_path))
    config = CONFIGS[name]
    assert any("make engines" in text for text in engine(name).problems(config))
    with pytest.raises(EngineError) as caught, launch(engine(name), config, tmp_path / "l"):
        pass
    assert caught.value.failure.kind == FailureKind.NOT_INSTALLED


@pytest.mark.skipif(not MODEL.is_dir(), reason="the small model is not there: make model")
def test_folders_become_whole_paths_and_short_names(monkeypatch: pytest.MonkeyPatch) -> None:
    need("vllm")
    monkeypatch.chdir(MODEL.parent.parent)
    config = real_config("vllm", model=".models/smollm2-135m-instruct")
    command = engine("vllm").command(config, 1)
    assert command is not None
    assert str(MODEL) in command.argv
    assert engine("vllm").served_model(config) == "smollm2-135m-instruct"
    assert command.env["HF_HUB_OFFLINE"] == "1"
    hub = engine("vllm").command(real_config("vllm", model="org/name"), 1)
    assert hub is not None
    assert "HF_HUB_OFFLINE" not in hub.env
