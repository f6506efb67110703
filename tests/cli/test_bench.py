"""The whole flow on the simulated engine: launches, every failure class, kill -9 and resume, interrupts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.records.folder import RunFolder

ROOT = Path(__file__).parents[2]
SERVETUNE = str(Path(sys.executable).parent / "servetune")
TEXT = """\
schema: 1
name: tiny
question: does it hold?
device: cpu
model: {{name: tiny, path: llama-3.1-8b, shape: llama-3.1-8b, tokenizer: none}}
engines:
  - engine: sim
    settings: {{max_model_len: 2048, sim: {{gpu: h200, shape: llama-3.1-8b, seed: 1{fault}}}}}
    grid: {{max_num_seqs: {seqs}}}
workloads:
  - {{name: chat, input_tokens: 64, output_tokens: 8, concurrency: {concurrency}, requests: {requests},
     warmup_requests: 1, request_timeout_s: 10s, silence_timeout_s: 3s}}
limits: {{ready_s: 8s}}
"""


def scenario(tmp_path: Path, *, seqs: str = "[8]", concurrency: str = "[2]", requests: int = 8,
             fault: str = "") -> Path:  # fmt: skip
    file = tmp_path / "tiny.yaml"
    file.write_text(TEXT.format(seqs=seqs, concurrency=concurrency, requests=requests,
                                fault=f", fault: {json.dumps(fault)}" if fault else ""))  # fmt: skip
    return file


def bench(tmp_path: Path, file: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [SERVETUNE, "bench", str(file), "--out", str(tmp_path / "run"), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_points_that_share_a_server_share_its_launch(tmp_path: Path) -> None:
    done = bench(tmp_path, scenario(tmp_path, seqs="[4, 8, 16]", concurrency="[1, 2, 4]"), "--json", "-")
    assert done.returncode == 0, done.stderr
    folder = RunFolder.open(tmp_path / "run")
    assert len(folder.runs()) == 9
    assert sum(e["event"] == "launch" for e in folder.events()) == 3
    data = json.loads(done.stdout)
    assert len(data["points"]) == 9
    for run in folder.runs():
        assert run.simulated
        assert len(run.records) == 8
        assert all(r.ok and r.output_tokens == 8 for r in run.records)
    for name in ("report.html", "summary.csv", "summary.parquet"):
        assert (tmp_path / "run" / name).stat().st_size > 100


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("oom_at_launch", "oom_at_launch"),
        ("oom_under_load:2", "oom_under_load"),
        ("crash_after:2", "crash"),
        ("hang_after:2", "hang"),
        ("never_ready", "readiness_timeout"),
        ("bad_flag", "bad_flag"),
        ("ignores_setting", "setting_without_effect"),
        ("wrong_model", "wrong_identity"),
    ],
)
def test_a_failure_is_classified_kept_and_the_run_goes_on(tmp_path: Path, fault: str, kind: str) -> None:
    file = scenario(tmp_path, fault=fault)
    text = file.read_text().replace("grid: {max_num_seqs: [8]}", "grid: {quantization: [fp8]}")
    healthy = text[text.index("  - engine: sim") : text.index("workloads:")].replace(
        f', fault: "{fault}"', ""
    )
    file.write_text(text.replace("workloads:", healthy + "workloads:"))
    done = bench(tmp_path, file)
    assert done.returncode == 0, done.stderr
    failed, well = RunFolder.open(tmp_path / "run").runs()
    assert failed.failure is not None
    assert failed.failure.kind == kind
    assert failed.failure.detail
    assert failed.failure.settings["quantization"] == "fp8"
    assert well.failure is None
    assert len(well.records) == 8


def test_a_run_without_one_believable_point_says_so_in_its_exit_status(tmp_path: Path) -> None:
    done = bench(tmp_path, scenario(tmp_path, fault="oom_at_launch"))
    assert done.returncode == 1


def test_an_existing_folder_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    done = bench(tmp_path, scenario(tmp_path))
    assert done.returncode == 2
    assert "--resume" in done.stderr


def test_kill_9_then_resume_repeats_nothing(tmp_path: Path) -> None:
    file = scenario(tmp_path, seqs="[4, 8]", concurrency="[1, 2]", requests=20)
    command = [SERVETUNE, "bench", str(file), "--out", str(tmp_path / "run")]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    events = tmp_path / "run" / "events.jsonl"
    deadline = time.monotonic() + 60
    while not (events.exists() and '"event":"point"' in events.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    before = RunFolder.open(tmp_path / "run").done()
    assert before
    done = bench(tmp_path, file, "--resume")
    assert done.returncode == 0, done.stderr
    points = [e["key"] for e in RunFolder.open(tmp_path / "run").events() if e["event"] == "point"]
    assert len(points) == len(set(points)) == 4
    assert set(points) >= before


def test_an_interrupt_ends_the_engine_and_keeps_what_was_measured(tmp_path: Path) -> None:
    file = scenario(tmp_path, seqs="[4, 8]", concurrency="[1, 2]", requests=20)
    command = [SERVETUNE, "bench", str(file), "--out", str(tmp_path / "run")]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    events = tmp_path / "run" / "events.jsonl"
    deadline = time.monotonic() + 60
    while not (events.exists() and '"event":"point"' in events.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    assert child.stderr is not None
    said = child.stderr.read()
    assert child.wait(timeout=40) == 130
    assert "--resume" in said
    assert "Traceback" not in said
    assert RunFolder.open(tmp_path / "run").done()


def test_resume_refuses_another_version_of_the_scenario(tmp_path: Path) -> None:
    assert bench(tmp_path, scenario(tmp_path)).returncode == 0
    done = bench(tmp_path, scenario(tmp_path, requests=9), "--resume")
    assert done.returncode == 2
    assert "another version" in done.stderr
