"""What a search does when the disk fills up, its log is torn, or somebody else is in its folder."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from search.resume import NAME, StudyLog
from servetune.cli.main import COMMANDS, main
from serving.errors import BrokenRunError
from tests.support.search_fixture import Known, loop

ROOT = Path(__file__).parents[2]


def test_a_full_disk_ends_the_search_and_room_lets_it_go_on(tmp_path: Path) -> None:
    made = loop(tmp_path, 8)
    looks = made.evaluator.measure
    full = 0

    def measure(settings, fidelity):  # type: ignore[no-untyped-def]
        nonlocal full
        full += 1
        if full == 5:
            (tmp_path / NAME).rename(tmp_path / "kept")
            (tmp_path / NAME).symlink_to("/dev/full")
        return looks(settings, fidelity)

    made.evaluator.measure = measure  # type: ignore[method-assign]
    with pytest.raises(OSError, match="No space left") as raised:
        made.run()
    assert raised.value.errno == errno.ENOSPC
    (tmp_path / NAME).unlink()
    (tmp_path / "kept").rename(tmp_path / NAME)
    before = len(StudyLog(tmp_path).history())
    assert before >= 4
    loop(tmp_path, 8).run()
    trials = StudyLog(tmp_path).trials()
    assert len(trials) == 8
    assert sum(one.attempts for one in trials) == 9, "only the trial in flight was asked twice"


def no_room() -> int:
    raise OSError(errno.ENOSPC, "No space left on device", "results/x/study.jsonl")


def test_the_command_says_what_is_full_and_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, "search", replace(COMMANDS["search"], target=f"{__name__}:no_room"))
    assert main(["search"]) == 2
    told = capsys.readouterr().err
    assert "error: No space left on device for results/x/study.jsonl" in told
    assert "--resume" in told


@pytest.mark.parametrize("cut", [2, 7, 30])
def test_a_torn_last_line_costs_what_it_said_and_nothing_else(tmp_path: Path, cut: int) -> None:
    loop(tmp_path, 4).run()
    whole = (tmp_path / NAME).read_bytes()
    lines = whole.splitlines()
    (tmp_path / NAME).write_bytes(whole[:-cut])
    log = StudyLog(tmp_path)
    kept = len(list(log.events()))
    assert kept == len(lines) - 1
    log.append("resumed")
    assert len(list(log.events())) == kept + 1
    assert len(list(StudyLog(tmp_path).events())) == kept + 1
    loop(tmp_path, 4).run()
    assert len(StudyLog(tmp_path).trials()) == 4


def test_other_damage_is_an_error_with_its_place(tmp_path: Path) -> None:
    loop(tmp_path, 3).run()
    lines = (tmp_path / NAME).read_bytes().splitlines(keepends=True)
    (tmp_path / NAME).write_bytes(b"".join([lines[0], b"{broken\n", *lines[1:]]))
    with pytest.raises(BrokenRunError, match=f"at byte {len(lines[0])}"):
        list(StudyLog(tmp_path).events())


def test_reading_again_reads_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop(tmp_path, 6).run()
    log = StudyLog(tmp_path)
    log.history()
    parsed = 0
    real = json.loads

    def counted(text, *rest, **more):  # type: ignore[no-untyped-def]
        nonlocal parsed
        parsed += 1
        return real(text, *rest, **more)

    monkeypatch.setattr(json, "loads", counted)
    log.append("interrupted")
    log.trials(), log.history()
    assert parsed == 1


def test_a_second_search_on_the_same_device_is_refused_by_name(tmp_path: Path) -> None:
    scenario = ROOT / "scenarios" / "search-sim.yaml"
    code = (
        "import sys, time; from serving.lock import device_lock\n"
        "with device_lock('cpu', 'servetune search, first'):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        if holder.stdout.readline() != "held\n":
            holder.stdin.close()
            pytest.skip("another run holds the device")
        command = [sys.executable, "-m", "servetune", "search", str(scenario), "--out", str(tmp_path / "s")]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        holder.stdin.close()
    assert second.returncode == 2
    assert "servetune search, first" in second.stderr
    assert str(holder.pid) in second.stderr
    assert not (tmp_path / "s").exists(), "nothing was begun"


def test_an_engine_that_dies_is_a_trial_with_its_class(tmp_path: Path) -> None:
    made = loop(tmp_path, 12, sampler="random", seed=5)
    made.run()
    assert isinstance(made.evaluator, Known)
    broken = [o for o in made.log.history() if o.config.get("quantization") == "broken"]
    assert broken
    assert {o.failure for o in broken} == {"oom_at_launch"}
    states = {t.user_attrs.get("failure"): t.state.name for t in made.study.optuna.get_trials()}
    assert states["oom_at_launch"] == "PRUNED"


def test_an_engine_that_never_starts_ends_the_whole_command_early(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a driver that is too old does: six launches, not a night, and an answer that says so."""
    text = (ROOT / "scenarios" / "search-sim.yaml").read_text()
    scenario = tmp_path / "broken.yaml"
    scenario.write_text(text.replace("time_scale: 1}", "time_scale: 1, fault: crash_at_launch}"))
    study = tmp_path / "study"
    assert main(["search", str(scenario), "--trials", "30", "--out", str(study)]) == 1
    told = " ".join(capfd.readouterr().out.split())
    assert "the search ended: 6 configurations all ended alike, none ran: crash: [sim] RuntimeError" in told
    written = json.loads((study / "study.json").read_text())
    assert written["winner"] is None
    assert written["trials"] == 6
    assert set(written["failures"]) == {"crash"}
