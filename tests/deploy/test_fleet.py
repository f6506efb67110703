"""capacity and diff: arithmetic by hand, risk classes, what cannot be told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servetune.cli.main import main
from servetune.deploy.deployable import dump
from servetune.deploy.diff import changes
from servetune.deploy.fleet.price import fleet
from tests.support.sim_process import MODEL, started
from tests.support.spec_fixture import GOLDEN, simulated, spec_of

PRICED = spec_of(cost={"replica_hour": 3.0, "currency": "USD", "source": "example", "date": "2026-06-17"})


def test_replicas_and_money_by_hand() -> None:
    found = fleet(PRICED, 40.0)
    assert found.replicas == 7  # 40 / 6.25 = 6.4
    assert found.gpus == 7
    assert found.cost_per_hour == 21.0
    assert found.cost_per_million_output_tokens == pytest.approx(21 / (40 * 3600 * 128) * 1e6)
    assert found.cost_per_million_total_tokens == pytest.approx(21 / (40 * 3600 * 640) * 1e6)
    assert fleet(PRICED, 40.0, spare=1).replicas == 8


def test_an_exact_multiple_needs_no_replica_more() -> None:
    assert fleet(PRICED, 62.5).replicas == 10


@given(st.floats(0.001, 1e5))
def test_the_fleet_holds_the_rate_and_is_the_smallest(rate: float) -> None:
    found = fleet(PRICED, rate)
    assert found.replicas * 6.25 >= rate * (1 - 1e-8)
    assert (found.replicas - 1) * 6.25 < rate
    assert fleet(PRICED, rate, spare=1).replicas == found.replicas + 1


def test_without_a_price_no_money() -> None:
    assert fleet(spec_of(), 40.0).cost_per_hour is None


def test_capacity_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(dump(PRICED))
    assert main(["capacity", str(file), "--rate", "40", "--json", "-"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["replicas"] for row in said["rows"]] == [7, 8]
    assert main(["capacity", str(file), "--rate", "-1"]) == 2
    file.write_text(dump(spec_of(capacity={"safe_rate_per_s": None})))
    assert main(["capacity", str(file), "--rate", "40"]) == 2
    assert "no safe rate" in capsys.readouterr().err


def test_no_change_between_equal_specs() -> None:
    assert changes(spec_of(), spec_of(metadata={"source": "another"})) == []


@pytest.mark.parametrize(
    ("part", "name", "risk"),
    [
        ({"model": {"served_name": "x"}}, "model.served_name", "api"),
        (
            {"parameters": {"max_model_len": {"value": 4096, "provenance": "fixed"}}},
            "parameters.max_model_len",
            "api",
        ),
        ({"model": {"revision": "f" * 40}}, "model.revision", "quality"),
        (
            {"parameters": {"quantization": {"value": "none", "provenance": "tuned"}}},
            "parameters.quantization",
            "quality",
        ),
        ({"engine": {"image": None}}, "engine.image", "security"),
        (
            {"parameters": {"max_num_seqs": {"value": 8, "provenance": "tuned"}}},
            "parameters.max_num_seqs",
            "capacity",
        ),
        ({"native": {"seed": 3}}, "native.seed", "capacity"),
        ({"env": {"A": "b"}}, "env.A", "restart"),
        ({"effective": {"kv_cache_tokens": 3}}, "effective.kv_cache_tokens", "record"),
    ],
)
def test_each_change_has_its_risk(part: dict[str, Any], name: str, risk: str) -> None:
    found = changes(spec_of(), spec_of(**part))
    assert [(c.name, c.risk) for c in found] == [(name, risk)]


def test_the_gravest_comes_first() -> None:
    other = spec_of(model={"served_name": "x"}, env={"A": "b"}, engine={"version": "0.33.0"})
    assert [c.risk for c in changes(spec_of(), other)] == ["api", "quality", "restart"]


def test_diff_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(dump(spec_of(env={"A": "x\n\x1b[31mred"})))
    assert main(["diff", str(GOLDEN), str(file)]) == 0
    said = capsys.readouterr().out
    assert "restart   env.A: (not there) -> x [31mred" in said


def test_diff_against_a_running_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "spec.yaml"
    with started(tmp_path) as server:
        file.write_text(dump(simulated()))
        assert main(["diff", str(file), server.url]) == 0
        same = capsys.readouterr().out
        changed = {"model": {"served_name": "other"}, "effective": {"max_model_len": 4096, "block_size": 99}}
        file.write_text(dump(simulated(**changed)))
        assert main(["diff", str(file), server.url + "/v1", "--json", "-"]) == 0
        found = {c["name"]: c for c in json.loads(capsys.readouterr().out)["changes"]}
    assert "engine.version" not in same
    assert found["model.served_name"]["after"] == MODEL
    assert found["parameters.max_model_len"]["risk"] == "api"
    assert found["parameters.max_model_len"]["after"] == 2048
    assert found["parameters.block_size"]["risk"] == "capacity"
    assert main(["diff", str(file), server.url]) == 2
    assert "does not answer" in capsys.readouterr().err
