"""Every fault of the simulated engine, provoked: exit status, log and behaviour."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.sim_process import started


@pytest.mark.parametrize(
    ("fault", "settings", "status", "says"),
    [
        ("oom_at_launch", {}, 1, "torch.OutOfMemoryError: CUDA out of memory"),
        ("crash_at_launch", {}, 1, "illegal memory access"),
        ("bad_flag", {}, 2, "error: unrecognized arguments"),
        ("unsupported", {"quantization": "fp8"}, 1, "fp8 is not supported for the current GPU"),
        ("port_taken", {}, 1, "address already in use"),
        ("", {"sim": {"gpu": "t4"}, "dtype": "float16"}, 1, "torch.OutOfMemoryError"),
        ("", {"sim": {"gpu": "l4"}, "max_model_len": 131072}, 1, "To serve at least one request"),
        ("", {"sim": {"gpu": "l4"}, "gpu_memory_utilization": 0.7}, 1, "No available memory for the cache"),
        ("", {"gpu_memory_utilization": 1.0}, 1, "Free memory on device"),
        ("", {"max_num_seqs": 64, "max_num_batched_tokens": 32}, 1, "must be greater than or equal to"),
        ("", {"sim": {"gpu": "nonesuch"}}, 1, "unknown gpu 'nonesuch'"),
        ("", {"quantization": "magic"}, 1, "magic"),
    ],
)
def test_a_server_that_dies_at_launch(
    tmp_path: Path, fault: str, settings: dict[str, Any], status: int, says: str
) -> None:
    with started(tmp_path, fault, wait=False, **settings) as server:
        assert server.process.wait(timeout=10) == status
        assert says in server.log
        if status == 1 and "OutOf" in says:
            assert "Engine core initialization failed" in server.log


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [
        ("oom_under_load:2", 1, "CUDA out of memory"),
        ("crash_after:2", 1, "EngineDeadError"),
        ("killed_after:2", -9, "Starting simulated server"),
    ],
)
def test_a_server_that_dies_under_load_serves_what_came_before(
    tmp_path: Path, fault: str, status: int, says: str
) -> None:
    with started(tmp_path, fault) as server:
        assert [server.complete(f"p {n}").status_code for n in range(2)] == [200, 200]
        assert server.process.poll() is None
        with pytest.raises(httpx.TransportError):
            server.complete("p 3")
        assert server.process.wait(timeout=5) == status
        assert says in server.log


def test_a_hang_accepts_and_never_answers(tmp_path: Path) -> None:
    with started(tmp_path, "hang_after:1") as server:
        assert server.complete().status_code == 200
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/completions", json={"prompt": "a"}, timeout=0.5, trust_env=False)
        assert server.get("/health").status_code == 200


def test_slow_and_never_ready(tmp_path: Path) -> None:
    with started(tmp_path, "slow_ready:0.7", wait=False) as server:
        assert not server.ready(0.4)
        assert server.ready(5)
    with started(tmp_path, "never_ready", wait=False) as server:
        deadline = time.monotonic() + 10
        while "Loading safetensors" not in server.log:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not server.ready(0.3)
        assert server.process.poll() is None
        server.process.terminate()
        assert server.process.wait(timeout=5) == 0


def test_a_setting_that_does_nothing(tmp_path: Path) -> None:
    with started(tmp_path, "ignores_setting", quantization="fp8") as server:
        assert "Quantizing 0 layers with fp8" in server.log
        info = server.get("/server_info").json()
        assert info["settings"]["quantization"] == "none"
        assert info["memory"]["weights"] == 16_060_522_496


def test_the_wrong_model(tmp_path: Path) -> None:
    with started(tmp_path, "wrong_model") as server:
        assert server.get("/v1/models").json()["data"][0]["id"] == "another-model"
        assert server.complete().status_code == 404


def test_a_share_of_errors(tmp_path: Path) -> None:
    def statuses() -> list[int]:
        with started(tmp_path, "error_rate:0.3") as server, ThreadPoolExecutor(1) as pool:
            return list(pool.map(lambda n: server.complete(f"p {n}", 1).status_code, range(100)))

    first = statuses()
    assert set(first) == {200, 500}
    assert 15 <= first.count(500) <= 45
    assert statuses() == first, "the seed says which"


def test_an_error_inside_a_stream(tmp_path: Path) -> None:
    with started(tmp_path, "in_stream_error:1") as server:
        ask = {"prompt": "a b", "max_tokens": 10, "ignore_eos": True}
        assert len(server.stream(**ask)) == 11
        *tokens, error, end = server.stream(**ask)
        assert len(tokens) == 3
        assert json.loads(error)["error"]["code"] == 500
        assert end == "[DONE]"
        assert server.complete("a b", 10).status_code == 500, "an answer that is not streamed has a status"
        assert (
            'vllm:kv_cache_usage_perc{engine="0",model_name="llama-3.1-8b"} 0.0'
            in server.get("/metrics").text
        )


def seconds(server: Any, prompt: str) -> float:
    begun = time.monotonic()
    assert server.complete(prompt, 10).status_code == 200
    return time.monotonic() - begun


def test_a_stall_happens_once(tmp_path: Path) -> None:
    with started(tmp_path, "stall:0.8") as server:
        times = [seconds(server, f"p {n}") for n in range(14)]
    assert times[9] > 0.8
    assert sum(t > 0.8 for t in times) == 1


def test_a_cliff_stays(tmp_path: Path) -> None:
    with started(tmp_path, "slow_after:3") as server:
        times = [seconds(server, f"p {n}") for n in range(6)]
    assert min(times[3:]) > 4 * min(times[:3])
