"""The command line: exit status, `error:` and `hint:`, data on stdout and talk on stderr."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name

import pytest

from servetune.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]


def run(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "servetune"), *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_root_help_says_what_the_command_says_of_itself(name: str) -> None:
    said = inspect.getdoc(resolve_name(COMMANDS[name].target)) or ""
    assert COMMANDS[name].about == said.partition("\n")[0]


def test_the_root_help_lists_every_command_in_its_group_and_imports_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for group in ("Measure", "Compare", "Choose", "Deploy"):
        assert f" {group} " in shown
    assert all(f" {name} " in shown for name in COMMANDS)


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"servetune {version('servetune')}\n"


def test_an_unknown_command_is_the_users_to_fix() -> None:
    done = run("benhc")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "benhc" in done.stderr


def test_a_wrong_scenario_gives_error_and_hint_and_status_2(tmp_path: Path) -> None:
    text = (ROOT / "scenarios/demo.yaml").read_text().replace("max_num_seqs:", "max_num_seq:")
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    done = run("plan", str(file))
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"error: {file}:")
    assert lines[1] == "hint: did you mean 'max_num_seqs'?"
    assert "Traceback" not in done.stderr


def test_plan_json_goes_to_stdout_alone() -> None:
    done = run("plan", "scenarios/demo.yaml", "--json", "-")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["points"] == 8
    assert data["launches"] == 4
    assert sum(d["points"] for d in data["dropped"]) == 2
    assert "15.0 GiB" in data["dropped"][0]["reason"]
    assert data["estimated_s"] > 0


def test_plan_counts_launches_not_points(tmp_path: Path) -> None:
    """A grid of 9 server settings x 3 workloads makes 9 launches."""
    text = (ROOT / "scenarios/demo.yaml").read_text()
    text = text.replace("quantization: [none, fp8]", "max_num_batched_tokens: [512, 1024, 2048]")
    text = text.replace("max_num_seqs: [4, 32]", "max_num_seqs: [4, 8, 32]")
    text = text.replace("concurrency: [1, 16]", "concurrency: [1, 8, 16]")
    file = tmp_path / "nine.yaml"
    file.write_text(text)
    data = json.loads(run("plan", str(file), "--json", "-").stdout)
    assert (data["points"], data["launches"]) == (27, 9)


def test_what_is_dropped_is_said_with_its_reason(tmp_path: Path) -> None:
    text = (ROOT / "scenarios/demo.yaml").read_text()
    file = tmp_path / "drop.yaml"
    file.write_text(
        text.replace("workloads:", "rules: [{drop: {quantization: fp8}, because: no fp8 today}]\nworkloads:")
    )
    done = run("plan", str(file))
    assert done.returncode == 0
    assert "no fp8 today" in done.stdout


def test_nothing_left_to_run_is_an_error(tmp_path: Path) -> None:
    text = (ROOT / "scenarios/demo.yaml").read_text()
    file = tmp_path / "none.yaml"
    file.write_text(
        text.replace("workloads:", "rules: [{drop: {engine: sim}, because: none of it}]\nworkloads:")
    )
    done = run("plan", str(file))
    assert done.returncode == 2
    assert "none of it" in done.stderr
