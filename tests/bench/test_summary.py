"""summary.csv and summary.parquet: what pandas reads is what was measured; nothing unknown becomes 0."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bench import summary
from bench.metrics import METRICS, compute
from bench.point import Load
from bench.records.folder import RunFolder
from bench.result import declared_cache_share, outcomes
from bench.scenario import scenariofile
from bench.scenario.price import price_for
from tests.support.report_fixture import build


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return build(tmp_path_factory.mktemp("summary") / "run", requests=80)


@pytest.fixture(scope="module")
def tables(folder: RunFolder) -> tuple[pd.DataFrame, pd.DataFrame]:
    csv, parquet = summary.write(folder)
    return pd.read_csv(csv), pd.read_parquet(parquet)


def test_one_row_a_point_and_every_metric_a_column(
    folder: RunFolder, tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    for table in tables:
        assert list(table["point"]) == [run.point.key for run in folder.runs()]
        assert set(METRICS) <= set(table.columns)


def test_numbers_are_those_of_the_metrics(
    folder: RunFolder, tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    scenario = scenariofile.load(folder.path / "scenario.yaml")
    run = folder.runs()[9]
    expected = compute(run, slos=scenario.slos, price=price_for(scenario, run.point.config))
    for table in tables:
        row = table[table["point"] == run.point.key].iloc[0]
        for name, value in expected.items():
            assert pd.isna(row[name]) if value is None else row[name] == pytest.approx(value), name


def test_a_failed_point_has_no_number_at_all(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    for table in tables:
        failed = table[table["failure"] == "oom_at_launch"]
        assert len(failed) == 4
        assert failed[list(METRICS)].isna().to_numpy().all()
        assert (failed["verdict"] == "invalid").all()


def test_both_files_say_the_same(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    csv, parquet = tables
    assert list(csv.columns) == list(parquet.columns)
    assert (csv.isna().to_numpy() == parquet.isna().to_numpy()).all()


def test_settings_left_to_the_engine_are_empty_and_counts_stay_whole(
    tables: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    parquet = tables[1]
    assert parquet["max_num_seqs"].dtype == "Int64"
    assert parquet.loc[parquet["engine"] == "transformers", "max_num_seqs"].isna().all()
    assert set(parquet["simulated"]) == {True, False}
    assert set(parquet["currency"]) == {"USD"}


def test_percentiles_below_their_floor_say_how_many_they_need(
    tables: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    row = tables[1][tables[1]["engine"] == "vllm"].iloc[0]
    assert pd.isna(row["ttft_p99_ms"])
    assert "ttft_p99_ms: n<662" in row["too_few_samples"]


def test_writing_again_leaves_no_part_behind(folder: RunFolder) -> None:
    before = summary.frame(folder)
    summary.write(folder)
    summary.write(folder)
    assert not list(folder.path.glob("*.part"))
    pd.testing.assert_frame_equal(before, summary.frame(folder))


def test_a_run_without_points_is_an_empty_table(tmp_path: Path) -> None:
    made = build(tmp_path / "run", requests=24)
    (made.path / "events.jsonl").write_text('{"event":"started"}\n')
    assert summary.frame(made).empty
    assert list(outcomes(made, scenariofile.load(made.path / "scenario.yaml"))) == []


def test_the_cache_share_a_workload_declares() -> None:
    assert declared_cache_share(Load("w", 100, 10, concurrency=1)) == 0
    assert declared_cache_share(Load("w", 100, 10, concurrency=1, shared_prefix_tokens=25)) == 0.25
    assert declared_cache_share(Load("w", 100, 10, concurrency=1, turns=3)) == 1
