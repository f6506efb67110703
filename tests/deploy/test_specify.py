"""A spec from a measured run: which point, which facts, and what it says when it must not be deployed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.records.folder import RunFolder
from bench.records.model import Run
from bench.result import outcomes
from bench.scenario import scenariofile
from servetune.cli.main import main
from servetune.deploy.deployable import dump, refusals
from servetune.deploy.evidence.modelfiles import model_files
from servetune.deploy.exporters.reading import deployment
from servetune.deploy.spec import load
from servetune.deploy.specify import SpecRequest, _parameters, specify, unwatched
from serving.config import ServingConfig
from serving.errors import UserError
from tests.support.report_fixture import build

IMAGE = "docker.io/vllm/vllm-openai:v0.32.0@sha256:" + "a1" * 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return build(tmp_path_factory.mktemp("runs") / "run", sim=False)


def test_the_best_believable_point_that_holds_is_chosen(folder: RunFolder) -> None:
    scenario = scenariofile.load(folder.path / "scenario.yaml")
    spec = specify(folder, scenario, SpecRequest(image=IMAGE))
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
    spec = specify(folder, scenariofile.load(folder.path / "scenario.yaml"), SpecRequest())
    assert spec.parameters["quantization"].provenance == "tuned"
    assert spec.parameters["max_num_seqs"].provenance == "tuned"
    assert spec.parameters["max_model_len"].provenance == "fixed"
    assert spec.parameters["dtype"].provenance == "resolved"
    assert deployment(spec).flags["max-model-len"] == 1024


def test_what_is_best_left_to_the_engine_is_not_set() -> None:
    tried = [ServingConfig(engine="vllm", model="m", max_num_seqs=n) for n in (None, 8)]
    assert "max_num_seqs" not in _parameters(tried[0], tried, {})
    assert _parameters(tried[0], tried, {"max_num_seqs": 128})["max_num_seqs"].provenance == "resolved"
    assert _parameters(tried[1], tried, {})["max_num_seqs"].provenance == "tuned"


def test_closed_loop_says_nothing_of_a_safe_rate(folder: RunFolder) -> None:
    spec = specify(folder, scenariofile.load(folder.path / "scenario.yaml"), SpecRequest(image=IMAGE))
    assert spec.capacity.safe_rate_per_s is None
    said = " ".join(refusals(spec))
    assert "no safe rate" in said
    assert "no safetensors" in said
    assert "not verified" in said


def test_same_run_same_bytes(folder: RunFolder, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert main(["spec", str(folder.path), "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert dump(load(tmp_path / "a")) == (tmp_path / "a").read_text()


def test_a_point_can_be_named(folder: RunFolder) -> None:
    scenario = scenariofile.load(folder.path / "scenario.yaml")
    key = next(
        o.key
        for o in outcomes(folder, scenario)
        if o.run.point.config.engine == "transformers" and not o.run.failure
    )
    spec = specify(folder, scenario, SpecRequest(point=key[:8]))
    assert spec.engine.name == "transformers"
    assert any("no production target" in reason for reason in refusals(spec))
    with pytest.raises(UserError, match="begin with 'zz'"):
        specify(folder, scenario, SpecRequest(point="zz"))


def test_hashes_are_those_of_the_model_folder(tmp_path: Path) -> None:
    model = tmp_path / "m"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    from tests.support.report_fixture import SCENARIO

    made = build(tmp_path / "run", sim=False, scenario=SCENARIO.replace(".models/smollm2", str(model)))
    spec = specify(made, scenariofile.load(made.path / "scenario.yaml"), SpecRequest())
    assert [f.path for f in spec.model.files] == ["config.json", "model.safetensors"]
    assert spec.model.files[1].size_bytes == 7
    assert not any("safetensors" in reason for reason in refusals(spec))


def test_a_secret_is_named_not_given(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spec", str(folder.path), "--secret", "hunter2"]) == 2
    assert "hint: --secret" in capsys.readouterr().err
    assert main(["spec", str(folder.path), "--secret", "VLLM_API_KEY=keys/api"]) == 0
    assert "name: keys" in capsys.readouterr().out


def test_the_way_back_is_noted(folder: RunFolder, tmp_path: Path) -> None:
    assert main(["spec", str(folder.path), "-o", str(tmp_path / "old")]) == 0
    asked = ["spec", str(folder.path), "--replaces", str(tmp_path / "old"), "-o", str(tmp_path / "new")]
    assert main(asked) == 0
    assert load(tmp_path / "new").rollback.spec_id == load(tmp_path / "old").metadata.id


def test_schema_is_printed(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spec", str(folder.path), "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "ServingSpec"


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_files_of_a_hub_model_are_hashed_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert model_files("owner/name", COMMIT) == (
        [],
        f"owner/name at {COMMIT} is not in the hub cache here: its files were not hashed",
    )
    place = tmp_path / "models--owner--name"
    (place / "blobs").mkdir(parents=True)
    (place / "blobs" / "x").write_bytes(b"weights")
    (place / "snapshots" / COMMIT).mkdir(parents=True)
    (place / "snapshots" / COMMIT / "model.safetensors").symlink_to("../../blobs/x")
    found, why = model_files("owner/name", COMMIT)
    assert why is None
    assert [(f.path, f.size_bytes) for f in found] == [("model.safetensors", 7)]
    assert found[0].sha256 == hashlib.sha256(b"weights").hexdigest()
    assert model_files("owner/name", "main") == ([], None)  # refused: it is not pinned


def answered(folder: RunFolder, **changes: object) -> list[str]:
    """Gives the run the answer of a search: the slowest fit configuration is the winner. Config keys."""
    scenario = scenariofile.load(folder.path / "scenario.yaml")
    fit = [o for o in outcomes(folder, scenario) if not o.run.failure and o.slo == "met"
           and o.judgement.verdict == "ok" and o.run.point.config.engine == "vllm"]  # fmt: skip
    rate = {o.run.point.config.key: o.metrics["output_token_throughput_per_s"] or 0.0 for o in fit}
    keys = sorted(rate, key=lambda key: rate[key])

    def finalist(key: str, value: float) -> dict[str, object]:
        points = [o.key for o in fit if o.run.point.config.key == key]
        return {"config_key": key, "points": points, "feasible": True, "value": value}

    finalists = [finalist(key, float(place)) for place, key in enumerate(keys)]
    study = {
        "goal": [{"metric": "cost", "direction": "minimize"}],
        "winner": finalists[0],
        "baseline": finalists[-1],
        "finalists": finalists,
        **changes,
    }
    (folder.path / "study.json").write_text(json.dumps(study))
    return keys


def test_the_winner_of_a_search_is_taken_and_the_next_is_its_fallback(tmp_path: Path) -> None:
    made = build(tmp_path / "run", sim=False)
    keys = answered(made)
    assert len(keys) >= 3
    scenario = scenariofile.load(made.path / "scenario.yaml")
    assert specify(made, scenario, SpecRequest()).metadata.name.endswith(keys[0])
    assert specify(made, scenario, SpecRequest(fallback=True)).metadata.name.endswith(keys[1])
    for name in ("a", "b"):
        assert main(["spec", str(made.path), "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    answered(made, winner=None, verdict="not_settled", unsettled={"why": "it may be better"})
    with pytest.raises(UserError, match="not settled, so there is no winner yet: it may be better"):
        specify(made, scenario, SpecRequest())
    answered(made, winner=None)
    with pytest.raises(UserError, match="no configuration that keeps every promise"):
        specify(made, scenario, SpecRequest())
    (made.path / "study.json").unlink()
    (made.path / "study.jsonl").write_text("")
    with pytest.raises(UserError, match="has not ended"):
        specify(made, scenario, SpecRequest())


def test_without_a_second_finalist_there_is_no_fallback(tmp_path: Path) -> None:
    made = build(tmp_path / "run", sim=False)
    keys = answered(made)
    study = json.loads((made.path / "study.json").read_text())
    study["finalists"] = study["finalists"][:1]
    (made.path / "study.json").write_text(json.dumps(study))
    scenario = scenariofile.load(made.path / "scenario.yaml")
    with pytest.raises(UserError, match="no measured fallback"):
        specify(made, scenario, SpecRequest(fallback=True))
    assert keys


def test_the_fallback_is_noted_by_its_id(folder: RunFolder, tmp_path: Path) -> None:
    assert main(["spec", str(folder.path), "--fallback", "-o", str(tmp_path / "f")]) == 0
    asked = ["spec", str(folder.path), "--fallback-spec", str(tmp_path / "f"), "-o", str(tmp_path / "s")]
    assert main(asked) == 0
    spec, other = load(tmp_path / "s"), load(tmp_path / "f")
    assert spec.rollback.fallback_id == other.metadata.id
    assert spec.metadata.source != other.metadata.source


def test_repeats_widen_the_promise_to_what_launches_differ_by(tmp_path: Path) -> None:
    def slower(run: Run) -> Run:
        """The second and third repeat are a tenth and a fifth slower."""
        factor = 1 + 0.1 * run.point.repeat
        stretched = [replace(r, first_s=r.sent_s + factor * (r.first_s - r.sent_s))
                     if r.first_s is not None and r.sent_s is not None else r for r in run.records]  # fmt: skip
        return replace(run, records=tuple(stretched))

    one = build(tmp_path / "one", sim=False, requests=300)
    three = build(tmp_path / "three", sim=False, requests=300, repeats=3, change=slower)
    found = {}
    for made in (one, three):
        spec = specify(made, scenariofile.load(made.path / "scenario.yaml"), SpecRequest())
        slo = next(s for s in spec.slos if s.metric == "ttft")
        assert slo.interval_ms is not None
        assert slo.measured_ms is not None
        assert slo.interval_ms[0] <= slo.measured_ms <= slo.interval_ms[1]
        found[made.path.name] = slo.interval_ms[1] - slo.interval_ms[0]
    assert found["three"] > 2 * found["one"]
