"""The scripts for a GPU machine with stand-ins: failures provoked, NVML held against nvidia-smi, KV cache, clients."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_nvml import FakeNvml
from tests.support.report_fixture import build

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from gpu import failures, kv_table, nvml_truth, page, stretch  # noqa: E402

from bench.telemetry.nvml import session  # noqa: E402
from serving.install.environment import Environment  # noqa: E402

GIB = 2**30


@pytest.mark.parametrize("case", failures.CASES)
def test_each_failure_is_provoked_and_classified_on_the_simulated_engine(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    line = failures.attempt(case, failures.CASES[case], "sim", tmp_path)
    assert line["right"], line
    assert line["detail"]
    assert (tmp_path / f"{case}.log").stat().st_size > 0
    assert str(ROOT) not in (tmp_path / f"{case}.log").read_text()


def test_a_case_is_not_provoked_twice_and_a_wrong_class_is_told(tmp_path: Path) -> None:
    lines = [{"case": name, "right": name != "bad-flag"} for name in failures.CASES]
    (tmp_path / "failures.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "tools/gpu/failures.py", "--out", str(tmp_path)]
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_cases_launch_the_small_model_and_differ() -> None:
    configs = {failures.config_of(case, "vllm").key: case for case in failures.CASES.values()}
    assert len(configs) == len(failures.CASES)
    for case in failures.CASES.values():
        config = failures.config_of(case, "vllm")
        assert config.enforce_eager
        assert not (config.kv_cache_bytes and config.gpu_memory_utilization)


class Smi:
    """nvidia-smi over the same card as FakeNvml, with an offset a field. Unknown fields are refused as it does."""

    def __init__(self, card: dict[str, Any], **changed: str) -> None:
        self.card = card
        self.answers = {
            "memory.used": "70000", "power.draw.instant": "512.50", "utilization.gpu": "98", "clocks.sm": "1980",
            "temperature.gpu": "61", "clocks_event_reasons.active": "0x0000000000000004", "power.draw.average": "[N/A]",
        } | changed  # fmt: skip

    def __call__(self, arguments: Sequence[str]) -> str:
        what, _, names = arguments[0].partition("=")
        if what == "--query-compute-apps":
            return "4711, 69000\n4712, [N/A]\n"
        asked = names.split(",")
        wrong = [name for name in asked if name not in self.answers]
        if wrong:
            raise OSError(f'Field "{wrong[0]}" is not a valid field to query.')
        return ", ".join(self.answers[name] for name in asked) + "\n"


def card(used: int = 70_000 * 2**20) -> dict[str, Any]:
    from types import SimpleNamespace

    joules = iter(range(0, 10_000_000, 60))
    return {
        "name": "NVIDIA H200", "memory": SimpleNamespace(used=used, total=143_771 * 2**20), "power_mw": 512_000,
        "energy_mj": lambda: 1000 * next(joules), "utilization": SimpleNamespace(gpu=98), "clock": 1980,
        "temperature": 61, "reasons": 4,
        "processes": [SimpleNamespace(pid=4711, usedGpuMemory=69_000 * 2**20), SimpleNamespace(pid=4712, usedGpuMemory=None)],
        "mps_processes": [],
    }  # fmt: skip


def rounds(of: dict[str, Any], smi: Smi) -> list[dict[str, Any]]:
    with session(FakeNvml(of)) as nvml:
        fields = nvml_truth.known(smi)
        return [nvml_truth.look(nvml, smi, fields) for _ in range(5)]


def test_what_agrees_agrees_and_a_field_nvidia_smi_lacks_is_left_out() -> None:
    seen = rounds(card(), Smi(card()))
    found = nvml_truth.compare(seen)
    assert {name for name, row in found.items() if row["agrees"]} == {
        *(field.nvml for field in nvml_truth.FIELDS), "memory_bytes_per_process",
    }  # fmt: skip
    assert "memory.reserved" not in seen[0]["smi"]
    assert seen[0]["smi"]["power.draw.average"] is None
    assert found["memory_bytes_per_process"]["compared"] == 5
    assert "| idle | power_w | 512 | 512.5 | 0.5 | yes |" in nvml_truth.table(
        {"idle": found, "load": found, "energy": None}
    )


def test_memory_that_nvml_counts_and_nvidia_smi_does_not_is_found() -> None:
    row = nvml_truth.compare(rounds(card(used=70_500 * 2**20), Smi(card())))["memory_total_used_bytes"]
    assert not row["agrees"]
    assert row["worst_gap"] == 500 * 2**20


def test_the_energy_counter_is_held_against_power_over_time() -> None:
    def at(second: float, watts: float, joules: float) -> dict[str, Any]:
        return {"nvml": [{"at_s": second, "energy_j": joules}] * 2, "smi": {"power.draw.instant": watts}}

    honest = nvml_truth.energy([at(t, 500.0, 1e6 + 490 * t) for t in range(5)])
    assert honest is not None
    assert honest["agrees"]
    assert honest["ratio"] == pytest.approx(0.98)
    stuck = nvml_truth.energy([at(t, 500.0, 1e6) for t in range(5)])
    assert stuck is not None
    assert not stuck["agrees"]
    assert nvml_truth.energy([at(0, 500.0, 1e6)]) is None


def test_both_are_asked_idle_and_under_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of, smi = card(), Smi(card())

    def slowly(arguments: Sequence[str]) -> str:
        time.sleep(0.02)
        return smi(arguments)

    monkeypatch.setattr(nvml_truth, "session", lambda: session(FakeNvml(of)))
    monkeypatch.setattr(nvml_truth, "ask", slowly)
    monkeypatch.setattr(
        nvml_truth, "LOAD", replace(nvml_truth.LOAD, concurrency=4, duration_s=1.0, warmup_requests=0)
    )
    monkeypatch.setattr(sys, "argv", ["nvml_truth.py", "--out", str(tmp_path), "--engine", "sim"])
    monkeypatch.chdir(ROOT)
    assert nvml_truth.main() == 0
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert found["idle"]["power_w"]["rounds"] == nvml_truth.IDLE_ROUNDS
    assert found["load"]["power_w"]["rounds"] > 5
    assert found["energy"]["smi_power_w"] == pytest.approx(512.5)
    assert len((tmp_path / "rounds.jsonl").read_text().splitlines()) > nvml_truth.IDLE_ROUNDS + 5
    assert "| load | sm_clock_mhz | 1,980 | 1,980 | 0 | yes |" in capsys.readouterr().out


def kv_row(predicted: int | None, reported: int | None, verdict: str = "fits") -> kv_table.Row:
    return kv_table.Row(
        "run", "001", "vllm none", verdict, predicted, reported, None if reported else "crash"
    )


def test_the_kv_table_counts_what_is_within_five_percent() -> None:
    good = [kv_row(1040, 1000), kv_row(960, 1000), kv_row(1000, None)]
    assert kv_table.summary(good) == (
        "2 of 2 launches within 5%; median -4.0%, worst -4.0%; 0 feasible ones refused", True,
    )  # fmt: skip
    assert "| run | 001 | vllm none | 1,000 | crash | - |" in kv_table.table(good)
    text, held = kv_table.summary([*good, kv_row(1060, 1000)])
    assert not held
    assert text.startswith("2 of 3 launches")
    assert kv_table.summary([kv_row(1000, 1000, "does_not_fit")])[1] is False
    assert kv_table.summary([kv_row(1000, None)])[1] is False


def test_the_kv_table_reads_a_recorded_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.records.folder import RunFolder

    monkeypatch.chdir(ROOT)
    run = tmp_path / "run"
    command = [sys.executable, "-m", "servetune", "bench", "scenarios/demo.yaml", "--out", str(run)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    found = kv_table.rows(RunFolder.open(run))
    assert found
    assert kv_table.summary(found)[1]


@pytest.mark.slow
def test_both_clients_are_measured_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "engine" / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    program.write_text(
        f"#!{sys.executable}\nimport json, sys, pathlib as p\na = sys.argv\nat = lambda n: a[a.index(n) + 1]\n"
        "assert a[1:3] == ['bench', 'serve'] and '--ignore-eos' in a\n"
        "p.Path(at('--result-dir'), at('--result-filename')).write_text(json.dumps(\n"
        "  {'completed': int(at('--num-prompts')), 'total_output_tokens': 10, 'output_throughput': 5.0}))\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(Environment, "installed", property(lambda self: True))
    found = Environment(
        "vllm", "0.24.0", "cuda", tmp_path / "engine", ROOT / "serving/locks/vllm-0.24.0-cuda.txt"
    )
    monkeypatch.setattr(stretch.environments, "find", lambda *asked: found)
    arguments = [
        "--out",
        str(tmp_path / "out"),
        "--engine",
        "sim",
        "--workers",
        "1",
        "--streams",
        "16",
        "--requests",
        "32",
    ]
    monkeypatch.setattr(sys, "argv", ["stretch.py", *arguments])
    monkeypatch.chdir(ROOT)
    assert stretch.main() == 0
    told = json.loads((tmp_path / "out" / "stretch.json").read_text())
    assert [row["completed"] for row in told["null_server"]] == [64, 64]
    assert not (tmp_path / "out" / stretch.PARTIAL).exists()
    assert [(row["client"], row["completed"]) for row in told["engine"]] == [
        ("servetune", 32),
        ("vllm bench serve", 32),
    ]
    assert told["engine"][0]["output_tokens"] == 32 * stretch.LOAD.output_tokens
    assert told["steps"][0]["events_per_s"] > 100
    assert "| engine | servetune, 1 workers |" in capsys.readouterr().out


# --- the page of everything that was recorded ------------------------------------------------------


def test_the_page_has_every_section_whose_source_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "run", requests=40, repeats=6)
    study = {
        "goal": [{"metric": "cost_per_million_good_tokens"}], "trials": 9, "launches": 29, "ledger": {"total": 1671.0},
        "ended": "all 9 trials are spent",
        "winner": {"settings": {"quantization": "fp8"}, "value": 0.25,
                   "gain": {"estimate": 0.313, "low": 0.191, "high": 0.435}},
    }  # fmt: skip
    (tmp_path / "run" / "study.json").write_text(json.dumps(study))
    for number, verdict in enumerate(("pass", "pass", "fail")):
        (tmp_path / "run" / f"verify-{number}.json").write_text(json.dumps({"verdict": verdict}))
    (tmp_path / "failures").mkdir()
    line = {"case": "bad-flag", "kind": "bad_flag", "right": True, "detail": "no | such flag"}
    (tmp_path / "failures" / "failures.jsonl").write_text(json.dumps(line) + "\n")
    sections = list(page.found(tmp_path))
    text = "\n".join(sections)
    assert [section.splitlines()[0] for section in sections] == ["## run", "## Failures, provoked"]
    assert "+31.3% [+19.1%, +43.5%] over the default" in text
    assert "relaunched 3 times from the exported files: 2 PASS" in text
    assert "**SIMULATED**" in text
    assert "| bad-flag | bad_flag | yes | no \\| such flag |" in text
    spread = next(line for line in text.splitlines() if "output tokens/s | 6 on 2 launches |" in line)
    assert spread.endswith("% |")
    rows = [line for line in text.splitlines() if line.startswith("| vllm") and "? suspect" in line]
    assert rows
    assert all(line.count("|") == 10 for line in rows)


def test_nothing_recorded_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["page.py", str(tmp_path)])
    assert page.main() == 2
    assert "holds no run" in capsys.readouterr().err
