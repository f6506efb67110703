"""compare: pairing, verdicts, honesty about what it has not seen, and the command over real run folders."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from bench.compare.comparison import compare_all
from bench.compare.pairing import pair
from bench.records.folder import RunFolder
from bench.records.model import Run
from servetune.cli.compare import as_json, share
from servetune.cli.main import main
from serving.errors import UserError
from tests.support.compare_fixture import SCENARIO, compare, launches
from tests.support.synthetic import ar1, failed, open_loop


def test_a_slower_side_fails_and_the_same_passes():
    a = launches(4, "a")
    assert compare(a, launches(4, "b"), "ttft_p50_ms").verdict == "PASS"
    worse = compare(a, launches(4, "b", slower=1.2), "ttft_p50_ms")
    assert (worse.verdict, worse.different) == ("FAIL", True)
    assert worse.ratio == pytest.approx(1.2, rel=0.03)
    assert worse.interval.low < worse.ratio < worse.interval.high
    assert worse.threshold == 1.05
    better = compare(a, launches(4, "b", slower=0.8), "ttft_p50_ms")
    assert (better.verdict, better.different) == ("PASS", True)


def test_higher_is_better_turns_the_verdict_round():
    found = compare(launches(4, "a"), launches(4, "b", slower=1.2), "output_token_throughput_per_s")
    assert (found.verdict, found.threshold) == ("FAIL", 0.95)
    assert found.ratio == pytest.approx(1 / 1.2, rel=0.03)


def test_a_metric_that_is_neither_must_stay_the_same():
    longer = compare(launches(4, "a"), launches(4, "b", slower=1.2), "concurrency_mean")
    assert longer.verdict == "PASS"
    assert compare(launches(4, "a"), launches(4, "b", slower=1.2), "offered_rate_per_s").verdict == "FAIL"


def test_noisy_launches_are_inconclusive():
    found = compare(launches(3, "a", spread=0.2), launches(3, "b", spread=0.2), "ttft_p50_ms")
    assert found.verdict == "INCONCLUSIVE"
    assert found.between > 0.05
    assert found.within < 0.05


def test_one_launch_a_side_is_allowed_and_said_aloud():
    found = compare(launches(1, "a"), launches(1, "b", slower=1.3), "ttft_p50_ms")
    assert found.verdict == "FAIL"
    assert found.launches == (1, 1)
    assert found.between is None
    assert any("one launch a side" in note for note in found.notes)
    unnamed = [replace(run, launch="") for run in launches(3, "a")]
    assert compare(unnamed, launches(1, "b"), "ttft_p50_ms").launches == (1, 1), (
        "no launch named: maybe one server"
    )


def test_equals_are_rarely_different_whole_runs():
    """60 A/A comparisons of whole runs with restart spread and autocorrelated requests."""

    def shared_fate(rng: np.random.Generator, n: int) -> np.ndarray:
        return 0.1 * float(np.exp(rng.normal(0, 0.02))) * np.exp(0.3 * ar1(rng, n, 0.9))

    different = 0
    for trial in range(60):
        sides = [
            [replace(open_loop(200, seed=1000 * trial + 10 * s + i, ttft_s=shared_fate), launch=f"{s}-{i}")
             for i in range(3)]
            for s in (0, 1)
        ]  # fmt: skip
        different += compare(*sides, "ttft_p50_ms").different
    assert different <= 8  # 3 of 60, and three standard deviations


def test_equals_on_one_launch_each_are_rarely_different():
    different = 0
    for trial in range(60):
        a, b = launches(1, "a", seed=trial, spread=0.02), launches(1, "b", seed=trial, spread=0.02)
        different += compare(a, b, "ttft_p50_ms").different
    assert different <= 8


def test_invalid_runs_are_left_out_aloud():
    broken = [replace(run, records=tuple(failed(r) for r in run.records)) for run in launches(2, "b")]
    found = compare(launches(2, "a"), broken, "ttft_p50_ms")
    assert (found.verdict, found.ratio) == ("INCONCLUSIVE", None)
    assert any("B: left out, invalid" in note for note in found.notes)
    assert any("no believable run" in note for note in found.notes)


def test_a_number_below_its_floor_is_inconclusive():
    found = compare(launches(2, "a"), launches(2, "b"), "ttft_p99_ms")
    assert found.verdict == "INCONCLUSIVE"
    assert any("too few samples" in note for note in found.notes)


def test_points_pair_by_content_without_what_differs():
    a = launches(2, "a", max_num_seqs=8) + launches(2, "a", max_num_seqs=16)
    b = launches(2, "b", max_num_seqs=8, quantization="fp8") + launches(
        2, "b", max_num_seqs=16, quantization="fp8"
    )
    pairs, left = pair(a, b)
    assert [p.label for p in pairs] == ["max_num_seqs=16", "max_num_seqs=8"]
    assert all(len(p.a) == len(p.b) == 2 for p in pairs)
    assert left == []
    lonely = launches(1, "b", max_num_seqs=8, quantization="fp8")
    lonely = [
        replace(r, point=replace(r.point, load=replace(r.point.load, input_tokens=999))) for r in lonely
    ]
    pairs, left = pair(a, b + lonely)
    assert len(pairs) == 2
    assert left == ["1 point only in B: not compared"]


def test_a_side_with_several_settings_for_one_point_is_not_mixed():
    a = launches(1, "a", quantization="none")
    b = launches(1, "b", quantization="fp8") + launches(1, "b", quantization="int8")
    pairs, left = pair(a, b)
    assert pairs == []
    assert "several settings" in left[0]


def test_several_claims_widen_every_interval():
    a, b = launches(3, "a"), launches(3, "b")
    alone = compare(a, b, "ttft_p50_ms").interval
    claims, _ = compare_all(a, b, ["ttft_p50_ms", "tpot_p50_ms", "e2e_p50_ms"])
    assert claims[0][1].interval.low < alone.low < alone.high < claims[0][1].interval.high
    assert claims[0][1].interval.confidence == pytest.approx(1 - 0.05 / 3)


def test_overall_verdict():
    passed = compare(launches(4, "a"), launches(4, "b"), "ttft_p50_ms")
    lost = compare(launches(4, "a"), launches(4, "b", slower=1.3), "ttft_p50_ms")
    open_ = compare(launches(2, "a"), launches(2, "b"), "ttft_p99_ms")
    for claims, verdict in (
        ([passed, passed], "PASS"),
        ([passed, open_], "INCONCLUSIVE"),
        ([passed, open_, lost], "FAIL"),
    ):
        assert as_json([("all", claim) for claim in claims], [])["verdict"] == verdict
    data = as_json([("all", lost)], ["1 point only in A: not compared"])
    assert set(data) == {"verdict", "claims", "not_compared"}
    assert {"name", "verdict", "effect", "interval", "threshold"} <= set(data["claims"][0])


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("0.05", 0.05), ("0", 0.0)])
def test_margin(text, value):
    assert share(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["five", "-1%", "100%", "", "nan"])
def test_margin_refused(text):
    with pytest.raises(UserError, match="margin"):
        share(text)


def stored(path, runs: list[Run]):
    folder = RunFolder.create(path, {}, SCENARIO.encode())
    for run in runs:
        folder.save(run)
    return path


def test_the_command_reads_run_folders(tmp_path, capsys):
    a, same = stored(tmp_path / "a", launches(3, "a")), stored(tmp_path / "same", launches(3, "b"))
    slow = stored(tmp_path / "slow", launches(3, "b", slower=1.4))
    assert main(["compare", str(a), str(slow), "--json", "-"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["verdict"] == "FAIL"
    assert [c["name"] for c in data["claims"]] == [
        "all: output_token_throughput_per_s", "all: ttft_p50_ms", "all: tpot_p50_ms"
    ]  # fmt: skip
    assert main(["compare", str(a), str(same), "--margin", "30%"]) == 0
    shown = capsys.readouterr().out
    assert "PASS" in shown
    assert "3/3 launches" in shown
    assert main(["compare", str(a), str(same), "--metric", "ttft_p99_ms"]) == 3
    assert main(["compare", str(a), str(same), "--metric", "ttft_p5_ms"]) == 2
    assert "ttft_p50_ms" in capsys.readouterr().err


def test_folders_without_a_point_in_common_are_the_users_to_fix(tmp_path, capsys):
    a = stored(tmp_path / "a", launches(1, "a"))
    other = [
        replace(r, point=replace(r.point, load=replace(r.point.load, output_tokens=7)))
        for r in launches(1, "b")
    ]
    assert main(["compare", str(a), str(stored(tmp_path / "b", other))]) == 2
    assert "no point in common" in capsys.readouterr().err
