"""The spec file: round trip, its id, what makes it undeployable, and the export command over it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from servetune.cli.main import main
from servetune.deploy.deployable import dump, refusals, with_id
from servetune.deploy.exporters import EXPORTERS
from servetune.deploy.exporters.reading import deployment
from servetune.deploy.exporters.vllm import settings
from servetune.deploy.quoting import yaml_text
from servetune.deploy.spec import ServingSpec, json_schema, load
from serving.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden" / "spec.yaml"


def content(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load(GOLDEN.read_text())
    body["metadata"]["id"] = ""
    for place, value in changes.items():
        *parents, last = place.split("__")
        inside = body
        for name in parents:
            inside = inside[name]
        inside[last] = value
    return body


def made(**changes: Any) -> ServingSpec:
    return with_id(ServingSpec.model_validate(content(**changes)))


def test_golden_is_read_and_written_the_same() -> None:
    spec = load(GOLDEN)
    assert dump(spec) == GOLDEN.read_text()
    assert refusals(spec) == []


def test_a_changed_file_is_found_out(tmp_path: Path) -> None:
    changed = tmp_path / "spec.yaml"
    changed.write_text(GOLDEN.read_text().replace("value: 96", "value: 97"))
    with pytest.raises(UserError, match="changed"):
        load(changed)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model__revision": "main"}, "not pinned to a commit"),
        ({"engine__image": "vllm/vllm-openai:v0.32.0"}, "no digest"),
        ({"engine__simulated": True}, "simulated"),
        ({"engine__name": "transformers"}, "no production target"),
        ({"status__verified": False}, "not verified"),
        ({"slos": []}, "no SLO"),
        ({"capacity__safe_rate_per_s": None}, "no safe rate"),
        ({"model__files": []}, "no safetensors"),
        ({"evidence": [{"key": "abc", "verdict": "invalid"}]}, "abc"),
        ({"parameters__quantization": {"value": "bitsandbytes", "provenance": "tuned"}}, "vllm-bnb-plugin"),
        ({"status__noted": ["drifted"]}, "drifted"),
        ({"accuracy__verdict": "FAIL"}, "floor was not shown to be kept"),
        ({"accuracy__verdict": "INCONCLUSIVE"}, "floor was not shown to be kept"),
    ],
)
def test_what_makes_a_spec_undeployable(changes: dict[str, Any], reason: str) -> None:
    spec = made(**changes)
    assert any(reason in said for said in refusals(spec))
    written = yaml.safe_load(dump(spec))["status"]
    assert written["deployable"] is False
    assert written["reasons"] == refusals(spec)


def test_a_file_that_calls_itself_deployable_is_not_believed(tmp_path: Path) -> None:
    body = content(engine__simulated=True)
    lie = ServingSpec.model_validate(body)
    lie = lie.model_copy(update={"metadata": lie.metadata.model_copy(update={"id": lie.content_id})})
    file = tmp_path / "spec.yaml"
    file.write_text(yaml_text(lie.model_dump(mode="json")))
    found = load(file)
    assert found.status.deployable is True
    assert refusals(found) == ["the numbers are simulated"]
    assert main(["export", str(file), "--to", "vllm", "-o", str(tmp_path / "o")]) == 2


def test_the_schema_has_the_status_that_follows() -> None:
    fields = json_schema()["$defs"]["SpecStatus"]["properties"]
    assert {"deployable", "reasons", "warnings", "verified"} <= set(fields)
    assert fields["deployable"]["type"] == "boolean"
    assert made().status.deployable is True
    assert made().status.reasons == []


def test_pickled_weights_are_named() -> None:
    files = [*content()["model"]["files"], {"path": "pytorch_model.bin", "size_bytes": 1, "sha256": "0" * 64}]
    assert any("pytorch_model.bin" in said for said in refusals(made(model__files=files)))


def test_remote_code_cannot_be_written_down() -> None:
    with pytest.raises(ValueError):
        made(model__trust_remote_code=True)


def test_unknown_keys_are_refused_with_their_place(tmp_path: Path) -> None:
    body = content()
    body["engine"]["imgae"] = "x"
    wrong = tmp_path / "spec.yaml"
    wrong.write_text(yaml_text(body))
    with pytest.raises(UserError, match=r"engine\.imgae"):
        load(wrong)


def test_parameters_become_flags_by_provenance() -> None:
    found = settings(deployment(load(GOLDEN)))
    assert found["max-num-seqs"] == 96
    assert found["enable-prefix-caching"] is False
    assert found["quantization"] == "fp8"
    assert "max-num-batched-tokens" not in found  # resolved by the engine, and left to it


def test_a_parameter_without_a_flag_is_no_silent_loss() -> None:
    wrong = {"value": True, "provenance": "tuned"}
    with pytest.raises(UserError, match="continuous_batching"):
        deployment(made(parameters__continuous_batching=wrong))


def test_schema_is_published_and_accepts_the_golden_file() -> None:
    import jsonschema

    golden = yaml.safe_load(GOLDEN.read_text())
    jsonschema.validate(golden, json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**golden, "parameters": "none"}, json_schema())


@pytest.mark.parametrize("target", EXPORTERS)
def test_export_writes_and_lists(target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(GOLDEN), "--to", target, "-o", str(tmp_path / "o"), "--json", "-"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["deployable"] is True
    assert {f["path"] for f in said["files"]} == {
        str(f.relative_to(tmp_path / "o")) for f in (tmp_path / "o").rglob("*") if f.is_file()
    }


def test_export_refuses_and_says_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(dump(made(engine__simulated=True)))
    asked = ["export", str(file), "--to", "vllm", "-o", str(tmp_path / "o")]
    assert main(asked) == 2
    assert "--allow-undeployable" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
    assert main([*asked, "--allow-undeployable"]) == 0
    assert "NOT DEPLOYABLE: the numbers are simulated" in (tmp_path / "o" / "run.sh").read_text()
