"""The table in the terminal: readable at 80 columns, nothing said by colour alone, hostile text is text."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.records.folder import RunFolder
from bench.result import PointResult, outcomes
from bench.scenario import scenariofile
from bench.scenario.model import Scenario
from servetune.cli.report import report
from servetune.report import terminal
from servetune.report.ranking import jobs
from tests.support.report_fixture import build


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return build(tmp_path_factory.mktemp("terminal") / "run", requests=200)


@pytest.fixture(scope="module")
def stored(folder: RunFolder) -> tuple[Scenario, list[PointResult]]:
    scenario = scenariofile.load(folder.path / "scenario.yaml")
    return scenario, list(outcomes(folder, scenario))


def text(scenario: Scenario, found: list[PointResult], width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False)
    terminal.show_run(scenario, found, jobs(found), Path("results/run"), console)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_line_is_wider_than_the_terminal(stored: tuple[Scenario, list[PointResult]], width: int) -> None:
    lines = text(*stored, width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(max(lines, key=len).rstrip()) > 60


def test_the_best_stands_first_with_its_verdict_in_words(stored: tuple[Scenario, list[PointResult]]) -> None:
    lines = text(*stored, 80).splitlines()
    first = next(line for line in lines if line.startswith(" 1 "))
    assert "✓ ok" in first
    assert "vllm w8a8" in first
    assert any("– SLO missed" in line for line in lines)
    assert any("✗ invalid" in line for line in lines)


def test_percentiles_without_samples_say_so(stored: tuple[Scenario, list[PointResult]]) -> None:
    row = next(
        line for line in text(*stored, 120).splitlines() if "? suspect  " in line and "points" not in line
    )
    assert "n<64" in row
    assert "44 points: ✓ ok 19  ? suspect 2  – SLO missed 10  ~ simulated 6  ✗ invalid 2  ! failed 5" in text(
        *stored, 120
    )


def test_failures_have_kind_cause_and_hint(stored: tuple[Scenario, list[PointResult]]) -> None:
    said = " ".join(text(*stored, 80).split())
    assert "! oom_at_launch transformers bnb-4bit (4 points): the process was ended by the kernel" in said
    assert "hint: use a smaller quantization" in said


def test_simulated_figures_are_said_loudly(stored: tuple[Scenario, list[PointResult]]) -> None:
    scenario, found = stored
    assert text(scenario, found, 80).lstrip().startswith("SIMULATED")
    assert "8 of 44 points" in text(scenario, found, 80)
    real = [o for o in found if not o.run.simulated]
    assert "SIMULATED" not in text(scenario, real, 80)


def test_markup_in_names_is_shown_not_obeyed(stored: tuple[Scenario, list[PointResult]]) -> None:
    scenario, found = stored
    hostile = scenario.model_copy(update={"question": "[bold]x[/] [/nonsense] [link=http://a]y"})
    assert "[bold]x[/] [/nonsense]" in text(hostile, found, 80)


def test_what_to_do_next_is_said(stored: tuple[Scenario, list[PointResult]]) -> None:
    said = text(*stored, 80)
    assert "open results/run/report.html" in said
    assert "servetune compare results/run" in said
    assert "--resume" in text(stored[0], [], 80)


def test_report_prints_data_on_stdout_and_paths_on_stderr(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(folder.path, None) == 0
    out, err = capsys.readouterr()
    assert "engines-compared" in out
    assert [Path(line.removeprefix("wrote ")).name for line in err.splitlines()] == [
        "summary.csv", "summary.parquet", "report.html",
    ]  # fmt: skip


def test_json_is_the_contract(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(folder.path, "-") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["run"] == str(folder.path)
    assert len(data["points"]) == 44
    assert {"key", "engine", "settings", "verdict", "failure", "metrics"} <= data["points"][0].keys()
    failed = [p for p in data["points"] if p["failure"]]
    assert {p["failure"]["kind"] for p in failed} == {"oom_at_launch", "hang"}
    assert all(p["metrics"]["ttft_p50_ms"] is None for p in failed)


def test_a_run_of_which_nothing_may_be_believed_is_a_failure(tmp_path: Path) -> None:
    made = build(tmp_path / "run", requests=24, change=lambda run: replace(run, records=()))
    assert report(made.path, str(tmp_path / "out.json")) == 1
    assert {p["verdict"] for p in json.loads((tmp_path / "out.json").read_text())["points"]} == {"invalid"}
