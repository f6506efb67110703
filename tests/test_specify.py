"""A spec from a measured run: which point, which facts, and what it says when it must not be deployed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_fixture import build

import servetune
from bench import scenariofile
from bench.outcome import outcomes
from bench.results import RunFolder
from bench.specify import Asked, specify, unwatched
from serving.errors import UserError
from serving.exporters.reading import deployment
from serving.spec import dump, load

IMAGE = "docker.io/vllm/vllm-openai:v0.32.0@sha256:" + "a1" * 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return build(tmp_path_factory.mktemp("runs") / "run", sim=False)


def test_the_best_believable_point_that_holds_is_chosen(folder: RunFolder) -> None:
    scenario = scenariofile.load(folder.path / "scenario.yaml")
    spec = specify(folder, scenario, Asked(image=IMAGE))
    found = {o.key: o for o in outcomes(folder, scenario) if o.run.failure is None}
    chosen = found[spec.metadata.source.partition("/")[2]]
    assert chosen.judgement.verdict == "ok"
    assert chosen.slo == "met"
    rate = "output_token_throughput_per_s"
    others = [o.metrics[rate] or 0 for o in found.values() if o.judgement.verdict == "ok" and o.slo == "met"]
    assert chosen.metrics[rate] == max(others)
    assert spec.engine.version == chosen.run.engine_version
    limits = {(s.metric, s.percentile): s for s in spec.slos}
    assert limits["ttft", 90.0].limit_ms == 600
    assert limits["ttft", 90.0].measured_ms == chosen.metrics["ttft_p90_ms"]
    low, high = limits["ttft", 90.0].interval_ms or [0, 0]
    assert low <= (chosen.metrics["ttft_p90_ms"] or 0) <= high
    assert unwatched(scenario) == ["error_rate<=1%"]


def test_provenance_says_what_was_tried(folder: RunFolder) -> None:
    spec = specify(folder, scenariofile.load(folder.path / "scenario.yaml"), Asked())
    assert spec.parameters["quantization"].provenance == "tuned"
    assert spec.parameters["max_num_seqs"].provenance == "tuned"
    assert spec.parameters["max_model_len"].provenance == "fixed"
    assert spec.parameters["dtype"].provenance == "resolved"
    assert deployment(spec).flags["max-model-len"] == 1024


def test_closed_loop_says_nothing_of_a_safe_rate(folder: RunFolder) -> None:
    spec = specify(folder, scenariofile.load(folder.path / "scenario.yaml"), Asked(image=IMAGE))
    assert spec.capacity.safe_rate_per_s is None
    said = " ".join(spec.refusals)
    assert "no safe rate" in said
    assert "no safetensors" in said
    assert "not verified" in said


def test_same_run_same_bytes(folder: RunFolder, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert servetune.main(["spec", str(folder.path), "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert dump(load(tmp_path / "a")) == (tmp_path / "a").read_text()


def test_a_point_can_be_named(folder: RunFolder) -> None:
    scenario = scenariofile.load(folder.path / "scenario.yaml")
    key = next(
        o.key
        for o in outcomes(folder, scenario)
        if o.run.point.config.engine == "transformers" and not o.run.failure
    )
    spec = specify(folder, scenario, Asked(point=key[:8]))
    assert spec.engine.name == "transformers"
    assert any("no production target" in reason for reason in spec.refusals)
    with pytest.raises(UserError, match="begin with 'zz'"):
        specify(folder, scenario, Asked(point="zz"))


def test_hashes_are_those_of_the_model_folder(tmp_path: Path) -> None:
    model = tmp_path / "m"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    from report_fixture import SCENARIO

    made = build(tmp_path / "run", sim=False, scenario=SCENARIO.replace(".models/smollm2", str(model)))
    spec = specify(made, scenariofile.load(made.path / "scenario.yaml"), Asked())
    assert [f.path for f in spec.model.files] == ["config.json", "model.safetensors"]
    assert spec.model.files[1].size_bytes == 7
    assert not any("safetensors" in reason for reason in spec.refusals)


def test_a_secret_is_named_not_given(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert servetune.main(["spec", str(folder.path), "--secret", "hunter2"]) == 2
    assert "hint: --secret" in capsys.readouterr().err
    assert servetune.main(["spec", str(folder.path), "--secret", "VLLM_API_KEY=keys/api"]) == 0
    assert "name: keys" in capsys.readouterr().out


def test_the_way_back_is_noted(folder: RunFolder, tmp_path: Path) -> None:
    assert servetune.main(["spec", str(folder.path), "-o", str(tmp_path / "old")]) == 0
    asked = ["spec", str(folder.path), "--replaces", str(tmp_path / "old"), "-o", str(tmp_path / "new")]
    assert servetune.main(asked) == 0
    assert load(tmp_path / "new").metadata.parent == load(tmp_path / "old").metadata.id


def test_schema_is_printed(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert servetune.main(["spec", str(folder.path), "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "ServingSpec"
