"""The main job on real engines: vLLM and bitsandbytes, one launch each, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.records.folder import RunFolder

ROOT = Path(__file__).parents[2]
SERVETUNE = str(Path(sys.executable).parent / "servetune")
MODEL = ROOT / ".models" / "smollm2-135m-instruct"
TEXT = f"""\
schema: 1
name: real
question: do the real engines run?
device: cpu
model:
  name: SmolLM2-135M-Instruct
  path: {MODEL}
  checkpoints: {{w8a16: {MODEL}-w8a16}}
engines:
  - engine: vllm
    optional: true
    settings: {{max_model_len: 512, kv_cache_bytes: 1GiB, enforce_eager: true, max_num_seqs: 8, attempt: true}}
    grid: {{quantization: [none, int8, w8a16]}}
  - engine: transformers
    grid: {{quantization: [bnb-4bit]}}
workloads:
  - {{name: chat, input_tokens: 48, output_tokens: 12, concurrency: 4, requests: 16, warmup_requests: 2}}
limits: {{ready_s: 300s}}
"""

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("real")
    (folder / "real.yaml").write_text(TEXT)
    command = [SERVETUNE, "bench", str(folder / "real.yaml"), "--out", str(folder / "run"), "--json",
               str(folder / "out.json")]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    data = json.loads((folder / "out.json").read_text())
    assert {"run", "points"} <= set(data)
    return RunFolder.open(folder / "run")


def of(real: RunFolder, engine: str, quantization: str):  # type: ignore[no-untyped-def]
    found = [
        r
        for r in real.runs()
        if (r.point.config.engine, r.point.config.quantization) == (engine, quantization)
    ]
    if not found and engine == "vllm":
        pytest.skip("vLLM's CPU build cannot be had here; the run said so and went on")
    return found[0]


@pytest.mark.parametrize(("engine", "quantization"), [("vllm", "none"), ("transformers", "bnb-4bit")])
def test_every_request_is_measured_whole(real: RunFolder, engine: str, quantization: str) -> None:
    run = of(real, engine, quantization)
    assert run.failure is None
    assert len(run.records) == 16
    for record in run.records:
        assert record.ok, record.error_detail
        assert record.output_tokens == 12
        assert record.sent_s is not None
        assert record.first_s is not None
        assert record.last_s is not None
        assert record.planned_s <= record.sent_s < record.first_s <= record.last_s


def test_prompts_have_the_length_asked_for_by_the_servers_own_count(real: RunFolder) -> None:
    assert {r.input_tokens for r in of(real, "vllm", "none").records} == {48}


def test_memory_is_that_of_the_servers_processes(real: RunFolder) -> None:
    rss = [s.value for s in of(real, "vllm", "none").samples if s.name == "rss_bytes"]
    assert rss
    assert 1e9 < max(rss) < 12e9


def test_a_setting_that_did_nothing_is_a_failure_with_its_evidence(real: RunFolder) -> None:
    failure = of(real, "vllm", "int8").failure
    assert failure.kind == "setting_without_effect"
    assert "0 layers" in failure.detail


def test_a_checkpoint_without_a_kernel_is_classified(real: RunFolder) -> None:
    failure = of(real, "vllm", "w8a16").failure
    assert failure.kind == "unsupported_setting"
    assert failure.log_tail


def test_the_clients_ttft_agrees_with_vllms_own_histogram(real: RunFolder) -> None:
    """Mean TTFT within the width of the bucket it falls in, or 10 ms of transport, by vLLM's own sum and count."""
    run = of(real, "vllm", "none")

    def grown(name: str) -> float:
        values = [s.value for s in sorted(run.samples, key=lambda s: s.t_s) if s.name == f"server:{name}"]
        return values[-1] - values[0]

    count = grown("vllm:time_to_first_token_seconds_count")
    assert count == 16
    server_s = grown("vllm:time_to_first_token_seconds_sum") / count
    client_s = sum(r.first_s - r.sent_s for r in run.records) / 16
    assert server_s <= client_s < server_s * 1.5 + 0.01
