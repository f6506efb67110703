"""verify: a true spec passes; a tampered file, a changed setting and a slow server each fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.records.model import Judgement, Reason
from servetune.cli.main import main
from servetune.deploy import exporters
from servetune.deploy.deployable import dump
from servetune.deploy.evidence import account
from servetune.deploy.exporters import reading
from servetune.deploy.exporters.deployment import ExportedSlo
from servetune.deploy.verify import constraints, scores, verify
from servetune.deploy.verify.constraints import judged
from servetune.deploy.verify.verify import same_files, same_model
from serving.claims import Claim, overall
from serving.engine import Endpoint
from tests.support.sim_process import MODEL, started
from tests.support.spec_fixture import LOAD, simulated, spec_of
from tests.support.synthetic import open_loop


def test_overall() -> None:
    def claims(*verdicts: Any) -> list[Claim]:
        return [Claim("x", v, "") for v in verdicts]

    assert overall(claims("PASS", "PASS")) == "PASS"
    assert overall(claims("PASS", "INCONCLUSIVE")) == "INCONCLUSIVE"
    assert overall(claims("INCONCLUSIVE", "FAIL")) == "FAIL"
    assert overall([]) == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("value", "interval", "unbelieved", "verdict"),
    [
        (100.0, (90.0, 110.0), "", "PASS"),
        (150.0, (140.0, 160.0), "", "FAIL"),
        (130.0, (100.0, 160.0), "", "INCONCLUSIVE"),
        (100.0, (90.0, 110.0), "the client was late", "INCONCLUSIVE"),
        (None, None, "", "INCONCLUSIVE"),
        (150.0, None, "", "FAIL"),
    ],
)
def test_a_latency_is_held_against_the_lower_limit(
    value: float | None, interval: tuple[float, float] | None, unbelieved: str, verdict: str
) -> None:
    claim = judged("ttft_p50_ms", ExportedSlo("ttft", 50, 1.0, 0.1, 0.11), value, interval, unbelieved)
    assert claim.verdict == verdict
    assert claim.threshold == pytest.approx(120)


def test_the_slo_itself_is_the_limit_where_it_is_lower() -> None:
    assert judged("x", ExportedSlo("ttft", 50, 0.105, 0.1, 0.11), 110.0, (108.0, 112.0), "").verdict == "FAIL"


def test_a_tampered_file_fails_and_nothing_is_started(tmp_path: Path) -> None:
    spec = spec_of()
    files = exporters.render(reading.deployment(spec), "vllm")
    exporters.write(files, tmp_path / "f")
    assert same_files(spec, tmp_path / "f").verdict == "PASS"
    script = tmp_path / "f" / "run.sh"
    script.write_text(script.read_text().replace("exec ", "touch started; exec "))
    claims = verify.verify(spec, tmp_path / "logs", tmp_path / "f")
    assert overall(claims) == "FAIL"
    assert "run.sh differs" in claims[0].note
    assert not (tmp_path / "logs").exists()


def test_a_changed_flag_fails_even_with_a_manifest_of_its_own(tmp_path: Path) -> None:
    spec = spec_of()
    exporters.write(exporters.render(reading.deployment(spec), "vllm"), tmp_path / "f")
    serve, manifest = tmp_path / "f" / "serve.yaml", tmp_path / "f" / exporters.MANIFEST
    before = exporters.digest(serve.read_text())
    serve.write_text(serve.read_text().replace("max-num-seqs: 96", "max-num-seqs: 97"))
    manifest.write_text(manifest.read_text().replace(before, exporters.digest(serve.read_text())))
    assert "serve.yaml differs" in same_files(spec, tmp_path / "f").note


def test_a_changed_model_file_fails(tmp_path: Path) -> None:
    from servetune.deploy.evidence.modelfiles import hashed

    (tmp_path / "model.safetensors").write_bytes(b"abc")
    files = [f.model_dump() for f in hashed(tmp_path)]
    spec = spec_of(model={"source": str(tmp_path), "revision": None, "files": files})
    assert same_model(spec).verdict == "PASS"
    (tmp_path / "model.safetensors").write_bytes(b"abd")
    assert same_model(spec).verdict == "FAIL"
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    (tmp_path / "modeling.py").write_text("import os")
    assert "modeling.py is not of the spec" in same_model(spec).note
    assert same_model(spec_of()).verdict == "INCONCLUSIVE"


def test_a_running_server_is_held_against_the_spec(tmp_path: Path) -> None:
    with started(tmp_path) as server:
        true = simulated()
        assert [c.verdict for c in verify.verify_live(true, server.url, None)] == ["PASS"]
        changed = verify.verify_live(simulated(effective={"max_model_len": 4096}), server.url, None)
        assert changed[0].verdict == "FAIL"
        assert "max_model_len: measured 4096, runs 2048" in changed[0].note
        other = verify.verify_live(simulated(model={"source": "x", "served_name": "other"}), server.url, None)
        assert "not other" in other[0].note
        version = verify.verify_live(simulated(engine={"version": "0.32.0"}), server.url, None)
        assert "version: measured 0.32.0" in version[0].note
    assert verify.verify_live(true, server.url, None)[0].verdict == "FAIL"


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other work on this machine makes the client late and its measurements invalid: not the subject here."""
    monkeypatch.setattr("bench.measure_load.judge", lambda *run, **how: Judgement("ok"))


SLOW = {"time_scale": 8.0}
"""Steps of some 40 ms: what else runs on the machine is small beside them."""


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
def test_a_slowed_server_fails_and_the_same_server_passes(tmp_path: Path) -> None:
    slo = {"metric": "tpot", "percentile": 50.0, "limit_ms": 2000.0}
    (tmp_path / "a").mkdir()
    with started(tmp_path / "a", sim=SLOW) as server:
        endpoint = Endpoint(server.url, MODEL, "vllm", "1")
        first = constraints.performance(simulated(slos=[slo]), endpoint)[0]
        assert first.verdict == "PASS", first
        assert first.interval is not None
        assert first.effect is not None
        # The upper end is put at twice the value, so that a busy machine cannot look like a slower server.
        measured = {**slo, "measured_ms": first.effect, "interval_ms": [first.interval[0], 2 * first.effect]}
        again = constraints.performance(simulated(slos=[measured]), endpoint)[0]
        assert again.verdict == "PASS", again
    (tmp_path / "b").mkdir()
    with started(tmp_path / "b", fault="slow_after:0", sim=SLOW) as server:
        slowed = constraints.performance(
            simulated(slos=[measured]), Endpoint(server.url, MODEL, "vllm", "1")
        )[0]
    assert slowed.verdict == "FAIL", slowed
    assert (slowed.effect or 0) > 5 * first.effect


def test_an_invalid_measurement_is_repeated_and_then_inconclusive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Judgement("invalid", (Reason("client_cpu", "invalid", "the client was busy", "free a core"),))
    verdicts = [bad, Judgement("ok"), bad, bad, bad]
    monkeypatch.setattr("bench.measure_load.judge", lambda *run, **how: verdicts.pop(0))
    slo = {"metric": "tpot", "percentile": 50.0, "limit_ms": 2000.0}
    load = {**LOAD, "duration_s": 1.0}
    spec = simulated(slos=[slo], evidence=[{"key": "a", "verdict": "ok", "slo": "met", "load": load}])
    with started(tmp_path) as server:
        endpoint = Endpoint(server.url, MODEL, "vllm", "1")
        constraints.performance(spec, endpoint)
        assert len(verdicts) == 3
        claim = constraints.performance(spec, endpoint)[0]
    assert not verdicts
    assert claim.verdict == "INCONCLUSIVE"
    assert "the client was busy" in claim.note


def test_every_attempt_draws_afresh_and_says_with_which_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured with arrivals that happened to be kind is not confirmed by the same arrivals."""
    seeds: list[int] = []

    def measure(server: Endpoint, load: object, words: object, slos: object, *, seed: int) -> object:
        seeds.append(seed)
        return open_loop(), Judgement("invalid" if len(seeds) % 2 else "ok")

    monkeypatch.setattr("servetune.deploy.verify.constraints.measure", measure)
    slo = {"metric": "tpot", "percentile": 50.0, "limit_ms": 2000.0}
    load = {**LOAD, "arrivals": "poisson", "rate_per_s": 5.0, "concurrency": None}
    spec = simulated(slos=[slo], evidence=[{"key": "a", "verdict": "ok", "slo": "met", "load": load}])
    endpoint = Endpoint("http://127.0.0.1:1", MODEL, "vllm", "1")
    claims = [constraints.performance(spec, endpoint)[0] for _ in range(2)]
    assert len(set(seeds)) == 4
    assert [f"seed {seed}" in claim.note for seed, claim in zip(seeds[1::2], claims, strict=True)] == [
        True
    ] * 2


def test_the_load_of_the_source_is_repeated_when_none_has_a_rate() -> None:
    closed = {"workload": "chat", "input_tokens": 32, "output_tokens": 16, "arrivals": "closed"}
    evidence = [
        {"key": key, "verdict": "ok", "slo": "met", "load": {**closed, "concurrency": users}}
        for key, users in (("aa", 2), ("bb", 8), ("cc", 4))
    ]
    spec = simulated(evidence=evidence, metadata={"source": "run/bb"})
    load = constraints.loaded(spec)
    assert load is not None
    assert load.concurrency == 8


FACT = {"task": "facts", "score": 0.6, "interval": [0.5, 0.7], "items": 100, "baseline": 0.6}


@pytest.mark.parametrize(
    ("score", "interval", "items", "verdict"),
    [
        (0.60, (0.50, 0.70), 100, "PASS"),
        (0.57, (0.47, 0.67), 100, "PASS"),
        (0.55, (0.45, 0.65), 100, "INCONCLUSIVE"),  # below 0.95 of the baseline, within the noise
        (0.30, (0.20, 0.40), 100, "FAIL"),
        (0.60, (0.40, 0.80), 20, "INCONCLUSIVE"),
    ],
)
def test_a_score_is_held_against_its_interval_and_floor(
    score: float, interval: tuple[float, float], items: int, verdict: str
) -> None:
    spec = simulated(accuracy={"facts": [FACT], "floor": 0.95, "verdict": "PASS"})
    claim = scores.judged(spec.accuracy.facts[0], spec.accuracy, score, interval, items)
    assert claim.verdict == verdict, claim
    assert claim.threshold == pytest.approx(0.57)


@pytest.mark.slow
def test_scores_are_asked_again_of_the_server(tmp_path: Path) -> None:
    """The simulated engine answers at random: what it scored it scores again, and no more than that."""
    from bench.accuracy import settings
    from bench.accuracy.evaluate import evaluate
    from bench.accuracy.tasks import tasks
    from servetune.deploy.evidence.scores import facts

    with started(tmp_path, tokenizer="none") as server:
        endpoint = Endpoint(server.url, MODEL, "vllm", "1")
        rules = settings.Accuracy(tasks=("facts",), items=60)
        made = evaluate(endpoint, tasks(["facts"]), rules, tmp_path / "first", 4)
        known = [fact.model_dump() for fact in facts(made, None)]
        assert known[0]["items"] == 60
        spec = simulated(accuracy={"facts": known, "floor": None, "verdict": None, "split": "all"})
        claims = scores.accuracy(spec, endpoint, tmp_path / "again")
        assert [c.verdict for c in claims] == ["PASS"], claims
        assert claims[0].effect == pytest.approx(known[0]["score"])
        better = {**known[0], "score": 0.99, "interval": [0.97, 1.0]}
        spec = simulated(accuracy={"facts": [better], "floor": None, "verdict": None, "split": "all"})
        claims = scores.accuracy(spec, endpoint, tmp_path / "better")
        assert [c.verdict for c in claims] == ["FAIL"], claims
        gone = simulated(accuracy={"facts": [{**better, "task": "mine.jsonl"}], "split": "all"})
        assert scores.accuracy(gone, endpoint, tmp_path / "gone")[0].verdict == "INCONCLUSIVE"


def test_the_fingerprint_of_the_verified_start_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Endpoint("http://127.0.0.1:9", MODEL, "vllm", "1")
    said: list[str | None] = ["vllm-0.32.0-aaaaaaaa"]
    monkeypatch.setattr("servetune.deploy.evidence.account.asked_fingerprint", lambda spec, server: said[0])

    def verdict(known: str | None) -> list[str]:
        effective = {account.FINGERPRINT: known} if known else {}
        return [c.verdict for c in account.fingerprint(simulated(effective=effective), server)]

    assert verdict("vllm-0.32.0-aaaaaaaa") == ["PASS"]
    assert verdict(None) == ["PASS"]
    assert verdict("vllm-0.32.0-bbbbbbbb") == ["INCONCLUSIVE"]
    assert verdict("vllm-0.31.0-aaaaaaaa") == ["FAIL"]
    assert verdict("vllm-0.32.0-tp2-aaaaaaaa") == ["FAIL"]
    said[0] = None
    assert verdict("vllm-0.32.0-aaaaaaaa") == ["INCONCLUSIVE"]
    assert verdict(None) == []


def test_cache_sizes_may_differ_by_what_memory_was_free(tmp_path: Path) -> None:
    with started(tmp_path) as server:
        _, said = account.said_of(simulated(), server.url, None)
        blocks = said["num_gpu_blocks"]
        assert isinstance(blocks, int)
        for factor, verdict in ((1.01, "PASS"), (1.2, "FAIL"), (0.8, "FAIL")):
            effective = {"num_gpu_blocks": round(blocks * factor)}
            claim = account.settings(
                simulated(effective=effective), Endpoint(server.url, MODEL, "vllm", "1+simulated"), ""
            )
            assert claim.verdict == verdict, claim


def test_exit_statuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "spec.yaml"
    with started(tmp_path) as server:
        for effective, status, verdict in (
            ({"max_model_len": 2048}, 0, "PASS"),
            ({"max_model_len": 4096}, 1, "FAIL"),
            ({}, 3, "INCONCLUSIVE"),
        ):
            file.write_text(dump(simulated(effective=effective)))
            assert main(["verify", str(file), "--live", server.url, "--json", "-"]) == status
            assert json.loads(capsys.readouterr().out)["verdict"] == verdict.lower()
        assert main(["verify", str(file), "--live", server.url, "-o", "x"]) == 2
