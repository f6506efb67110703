"""verify: a true spec passes; a tampered file, a changed setting and a slow server each fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from sim_process import MODEL, started

import servetune
from bench import verify
from bench.verify import Claim, judged, overall, same_files, same_model
from serving import exporters
from serving.engine import Endpoint
from serving.exporters import reading
from serving.exporters.deployment import Slo
from serving.spec import ServingSpec, dump

GOLDEN = Path(__file__).parent / "golden" / "spec.yaml"
LOAD = {"workload": "chat", "input_tokens": 32, "output_tokens": 16, "arrivals": "constant", "rate_per_s": 8.0,
        "duration_s": 8.0, "warmup_requests": 1}  # fmt: skip


def spec_of(**parts: Any) -> ServingSpec:
    body = yaml.safe_load(GOLDEN.read_text())
    for name, value in parts.items():
        body[name] = {**body[name], **value} if isinstance(value, dict) and name != "effective" else value
    body["metadata"]["id"] = ""
    return ServingSpec.model_validate(body).with_id()


def simulated(**parts: Any) -> ServingSpec:
    """A spec that a simulated server of the same settings answers to."""
    body = {"model": {"source": MODEL, "revision": None, "served_name": MODEL, "files": []},
            "engine": {"version": "1+simulated"}, "effective": {"max_model_len": 2048},
            "evidence": [{"key": "a", "verdict": "ok", "slo": "met", "load": LOAD}]}  # fmt: skip
    return spec_of(**{**body, **parts})


def test_overall() -> None:
    def claims(*verdicts: Any) -> list[Claim]:
        return [Claim("x", v, "") for v in verdicts]

    assert overall(claims("pass", "pass")) == "pass"
    assert overall(claims("pass", "inconclusive")) == "inconclusive"
    assert overall(claims("inconclusive", "fail")) == "fail"
    assert overall([]) == "inconclusive"


@pytest.mark.parametrize(
    ("value", "interval", "believed", "verdict"),
    [
        (100.0, (90.0, 110.0), True, "pass"),
        (150.0, (140.0, 160.0), True, "fail"),
        (130.0, (100.0, 160.0), True, "inconclusive"),
        (100.0, (90.0, 110.0), False, "inconclusive"),
        (None, None, True, "inconclusive"),
        (150.0, None, True, "fail"),
    ],
)
def test_a_latency_is_held_against_the_lower_limit(
    value: float | None, interval: tuple[float, float] | None, believed: bool, verdict: str
) -> None:
    claim = judged("ttft_p50_ms", Slo("ttft", 50, 1.0, 0.1, 0.11), value, interval, believed)
    assert claim.verdict == verdict
    assert claim.threshold == pytest.approx(120)


def test_the_slo_itself_is_the_limit_where_it_is_lower() -> None:
    assert judged("x", Slo("ttft", 50, 0.105, 0.1, 0.11), 110.0, (108.0, 112.0), True).verdict == "fail"


def test_a_tampered_file_fails_and_nothing_is_started(tmp_path: Path) -> None:
    spec = spec_of()
    files = exporters.render(reading.deployment(spec), "vllm")
    exporters.write(files, tmp_path / "f")
    assert same_files(spec, tmp_path / "f").verdict == "pass"
    script = tmp_path / "f" / "run.sh"
    script.write_text(script.read_text().replace("exec ", "touch started; exec "))
    claims = verify.verify(spec, tmp_path / "logs", tmp_path / "f")
    assert overall(claims) == "fail"
    assert "run.sh differs" in claims[0].text
    assert not (tmp_path / "logs").exists()


def test_a_changed_flag_fails_even_with_a_manifest_of_its_own(tmp_path: Path) -> None:
    spec = spec_of()
    exporters.write(exporters.render(reading.deployment(spec), "vllm"), tmp_path / "f")
    serve, manifest = tmp_path / "f" / "serve.yaml", tmp_path / "f" / exporters.MANIFEST
    before = exporters.digest(serve.read_text())
    serve.write_text(serve.read_text().replace("max-num-seqs: 96", "max-num-seqs: 97"))
    manifest.write_text(manifest.read_text().replace(before, exporters.digest(serve.read_text())))
    assert "serve.yaml differs" in same_files(spec, tmp_path / "f").text


def test_a_changed_model_file_fails(tmp_path: Path) -> None:
    from bench.specify import _files

    (tmp_path / "model.safetensors").write_bytes(b"abc")
    files = [f.model_dump() for f in _files(tmp_path)]
    spec = spec_of(model={"source": str(tmp_path), "revision": None, "files": files})
    assert same_model(spec).verdict == "pass"
    (tmp_path / "model.safetensors").write_bytes(b"abd")
    assert same_model(spec).verdict == "fail"
    assert same_model(spec_of()).verdict == "inconclusive"


def test_a_running_server_is_held_against_the_spec(tmp_path: Path) -> None:
    with started(tmp_path) as server:
        true = simulated()
        assert [c.verdict for c in verify.verify_live(true, server.url, None)] == ["pass"]
        changed = verify.verify_live(simulated(effective={"max_model_len": 4096}), server.url, None)
        assert changed[0].verdict == "fail"
        assert "max_model_len: measured 4096, runs 2048" in changed[0].text
        other = verify.verify_live(simulated(model={"source": "x", "served_name": "other"}), server.url, None)
        assert "not other" in other[0].text
        version = verify.verify_live(simulated(engine={"version": "0.32.0"}), server.url, None)
        assert "version: measured 0.32.0" in version[0].text
    assert verify.verify_live(true, server.url, None)[0].verdict == "fail"


@pytest.mark.slow
def test_a_slowed_server_fails_and_the_same_server_passes(tmp_path: Path) -> None:
    slo = {"metric": "tpot", "percentile": 50.0, "limit_ms": 100.0}
    (tmp_path / "a").mkdir()
    with started(tmp_path / "a") as server:
        endpoint = Endpoint(server.url, MODEL, "vllm", "1")
        first = verify.performance(simulated(slos=[slo]), endpoint)[0]
        assert first.verdict == "pass"
        assert first.interval is not None
        measured = {**slo, "measured_ms": first.effect, "interval_ms": list(first.interval)}
        again = verify.performance(simulated(slos=[measured]), endpoint)[0]
        assert again.verdict in ("pass", "inconclusive")
    (tmp_path / "b").mkdir()
    with started(tmp_path / "b", fault="slow_after:0") as server:
        slowed = verify.performance(simulated(slos=[measured]), Endpoint(server.url, MODEL, "vllm", "1"))[0]
    assert slowed.verdict == "fail"
    assert (slowed.effect or 0) > 3 * (first.effect or 0)


def test_exit_statuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "spec.yaml"
    with started(tmp_path) as server:
        for effective, status, verdict in (
            ({"max_model_len": 2048}, 0, "pass"),
            ({"max_model_len": 4096}, 1, "fail"),
            ({}, 3, "inconclusive"),
        ):
            file.write_text(dump(simulated(effective=effective)))
            assert servetune.main(["verify", str(file), "--live", server.url, "--json", "-"]) == status
            assert json.loads(capsys.readouterr().out)["verdict"] == verdict
        assert servetune.main(["verify", str(file), "--live", server.url, "-o", "x"]) == 2
