"""The gate over run folders: all five parts, configurations told apart, prices and their absence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.accuracy.evaluation import Evaluation, save_head, save_scores
from bench.accuracy.settings import Accuracy
from bench.evaluation import store
from bench.records.folder import RunFolder
from bench.records.model import Run
from serving.config import ServingConfig
from serving.errors import UserError
from tests.support.compare_fixture import SCENARIO, launches
from tests.support.gate_fixture import half_right, result, run

PRICED = SCENARIO + "price: {per_hour: 2.0, currency: EUR, source: test, date: 2026-11-23}\n"


def stored(path: Path, *sides: tuple[list[Run], dict[str, float]], scenario: str = PRICED) -> Path:
    """A run of one configuration a side, each with measured points and a full evaluation."""
    folder = RunFolder.create(path, {}, scenario.encode())
    good = {str(i): 1.0 for i in range(100)}
    for number, (runs, facts) in enumerate(sides):
        for one in runs:
            folder.save(one)
        tasks = [result("facts", facts), result("wordings", good, measures="stability"),
                 result("canaries", good, measures="security")]  # fmt: skip
        where = path / "accuracy" / str(number)
        where.mkdir(parents=True)
        for task in tasks:
            save_scores(where, task)
        made = Evaluation(where, {}, {task.name: task for task in tasks})
        save_head(made, {task.name: {} for task in tasks}, Accuracy().model_dump(mode="json"), "finished")
        store.record(folder, runs[0].point.config, where)
    return path


def test_five_parts_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, same = half_right()
    a = stored(tmp_path / "a", (launches(4, "a"), base))
    b = stored(tmp_path / "b", (launches(4, "b", slower=0.8, quantization="fp8"), same))
    assert run(str(b), str(a), "--json", "-") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["parts"] == dict.fromkeys(("Cost", "Latency", "Accuracy", "Security", "Stability"), "PASS")
    assert (b / "gate.html").exists()
    slow = stored(tmp_path / "slow", (launches(4, "b", slower=1.4, quantization="fp8"), same))
    assert run(str(slow), str(a), "--json", "-") == 1
    parts = json.loads(capsys.readouterr().out)["parts"]
    assert (parts["Latency"], parts["Cost"], parts["Accuracy"]) == ("FAIL", "FAIL", "PASS")


def test_without_a_price_cost_is_not_shown_and_so_not_passed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, same = half_right()
    a = stored(tmp_path / "a", (launches(4, "a"), base), scenario=SCENARIO)
    b = stored(tmp_path / "b", (launches(4, "b", slower=0.9), same), scenario=SCENARIO)
    assert run(str(b), str(a), "--json", "-") == 3
    parts = json.loads(capsys.readouterr().out)["parts"]
    assert (parts["Cost"], parts["Latency"]) == ("INCONCLUSIVE", "PASS")


def test_configurations_of_one_run_are_named_by_their_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, bad = half_right(losses=200)
    both = (launches(4, "a"), base), (launches(4, "b", quantization="fp8"), bad)
    path = stored(tmp_path / "run", *both)
    keys = [runs[0].point.config.key for runs, _ in both]
    assert run(f"{path}@{keys[1][:6]}", f"{path}@{keys[0]}", "--json", "-") == 1
    claims = {c["name"]: c["verdict"] for c in json.loads(capsys.readouterr().out)["claims"]}
    assert claims["facts"] == "FAIL"
    assert claims["ttft_p50_ms"] == "PASS"
    with pytest.raises(UserError, match="2 configurations") as caught:
        run(str(path), str(path))
    assert all(key[:6] in caught.value.hint for key in keys)
    with pytest.raises(UserError, match="no configuration 'zzz'"):
        run(f"{path}@zzz", str(path))


def test_a_point_and_the_run_s_own_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, bad = half_right(losses=200)
    both = (launches(4, "a"), base), (launches(4, "b", quantization="fp8"), bad)
    path = stored(tmp_path / "run", *both)
    first, second = (runs[0].point for runs, _ in both)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["plan"] = {"accuracy": {"baseline": first.config.key}}
    (path / "manifest.json").write_text(json.dumps(manifest))
    for name in (f"{path}@{second.key}", str(path / "points" / second.key), f"{path}@{second.config.key}"):
        assert run(name, str(path), "--json", "-") == 1
        claims = {c["name"]: c["verdict"] for c in json.loads(capsys.readouterr().out)["claims"]}
        assert claims["facts"] == "FAIL"
    with pytest.raises(UserError, match="2 configurations"):
        run(str(path), str(path))


def test_a_run_without_an_evaluation_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder.create(tmp_path / "plain", {}, PRICED.encode())
    for one in launches(4, "b"):
        folder.save(one)
    a = stored(tmp_path / "a", (launches(4, "a"), half_right()[0]))
    assert run(str(folder.path), str(a)) == 3
    out = capsys.readouterr().out
    assert "plain not evaluated" in " ".join(out.split())
    assert ServingConfig(engine="sim", model="m").label not in out
