"""Conformance of every exporter in the table: same bytes, hostile values, no secret, refusal, round trip."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from servetune.deploy.exporters import EXPORTERS, MANIFEST, render, write
from servetune.deploy.exporters.canary import test_size as size_of_test
from servetune.deploy.exporters.deployment import Deployment, Secret
from servetune.deploy.exporters.safe import SECRET_VALUE
from servetune.deploy.exporters.vllm import arguments, serve
from servetune.deploy.exporters.vllm import settings as settings_of
from servetune.deploy.quoting import LABEL_LIMIT, dns_label, promql_string, yaml_text
from serving.errors import UserError
from tests.support.export_fixture import ALL, CPU, HOSTILE, NASTY, PLAIN

GOLDEN = Path(__file__).parents[1] / "golden" / "exports"
TARGETS = pytest.mark.parametrize("target", EXPORTERS)


def documents(text: str) -> list[Any]:
    return list(yaml.safe_load_all(text))


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [t for k, v in value.items() for t in (str(k), *texts(v))]
    if isinstance(value, list):
        return [t for v in value for t in texts(v)]
    return [value] if isinstance(value, str) else []


@TARGETS
def test_same_deployment_same_bytes(target: str) -> None:
    assert render(PLAIN, target) == render(replace(PLAIN), target)


@TARGETS
@pytest.mark.parametrize("name", ["plain", "cpu"])
def test_golden(target: str, name: str, request: pytest.FixtureRequest) -> None:
    """The files under tests/golden/exports; after a wanted change: SERVETUNE_GOLDEN=write pytest -k golden."""
    import os
    import shutil

    folder = GOLDEN / name / target
    if os.environ.get("SERVETUNE_GOLDEN") == "write":
        shutil.rmtree(folder, ignore_errors=True)
        write(render(ALL[name], target), folder)
    kept = {str(f.relative_to(folder)): f.read_text() for f in folder.rglob("*") if f.is_file()}
    assert kept == render(ALL[name], target)


@TARGETS
@pytest.mark.parametrize("name", ALL)
def test_every_file_parses_and_says_whence(target: str, name: str) -> None:
    deployment = ALL[name]
    for path, text in render(deployment, target, allow_undeployable=True).items():
        head = text if path.endswith(".json") else "\n".join(text.splitlines()[:4])
        assert deployment.name in head, path
        assert ("NOT DEPLOYABLE" in head) == bool(deployment.refusals), path
        if path.endswith(".yaml"):
            assert documents(text)
            assert yaml_text(*documents(text)) == text.split("\n", 1 + len(deployment.refusals))[-1], path
        elif path.endswith(".json"):
            assert json.loads(text)


@TARGETS
def test_manifest_lists_the_hash_of_every_file(target: str, tmp_path: Path) -> None:
    write(render(PLAIN, target), tmp_path / "out")
    run = subprocess.run(
        ["sha256sum", "-c", "--strict", MANIFEST], cwd=tmp_path / "out", capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    files = [f for f in (tmp_path / "out").rglob("*") if f.is_file() and f.name != MANIFEST]
    assert run.stdout.count(": OK") == len(files)


@TARGETS
def test_refuses_what_is_not_deployable(target: str) -> None:
    with pytest.raises(UserError, match="image has no digest") as caught:
        render(replace(PLAIN, refusals=("image has no digest",)), target)
    assert "--allow-undeployable" in caught.value.hint


@TARGETS
def test_refuses_an_engine_without_a_target(target: str) -> None:
    with pytest.raises(UserError, match="transformers"):
        render(replace(PLAIN, engine="transformers"), target)


def test_an_unknown_target_names_the_known() -> None:
    with pytest.raises(UserError) as caught:
        render(PLAIN, "helmfile")
    assert "kubernetes" in caught.value.hint


LEAKS = {
    "flag value": {"flags": {"tokenizer": "hf_" + "A" * 34}},
    "env value": {"env": {"OTHER": "sk-" + "b" * 40}},
    "env name": {"env": {"MY_API_KEY": "short"}},
    "model": {"model": "https://user:ghp_" + "c" * 36 + "@hub"},
}


@TARGETS
@pytest.mark.parametrize("leak", LEAKS)
def test_a_secret_stops_the_export(target: str, leak: str) -> None:
    with pytest.raises(UserError, match="secret"):
        render(replace(PLAIN, **LEAKS[leak]), target)  # type: ignore[arg-type]


@TARGETS
@pytest.mark.parametrize("name", ALL)
def test_no_output_holds_a_secret(target: str, name: str) -> None:
    for path, text in render(ALL[name], target, allow_undeployable=True).items():
        assert SECRET_VALUE.findall(text) == [], path


def test_the_scan_finds_secrets() -> None:
    assert SECRET_VALUE.search("token: hf_" + "x" * 30)
    assert SECRET_VALUE.search("-----BEGIN RSA PRIVATE KEY-----")


OPENINGS = {
    "remote code": {"flags": {"trust-remote-code": True}},
    "its negation": {"flags": {"no-trust-remote-code": True}},
    "a key on the command line": {"flags": {"api-key": "x"}},
    "a flag as a value": {"served_model": "--trust-remote-code"},
    "a flag in a list": {"flags": {"allowed-media-domains": ["a", "--api-key=x"]}},
    "a flag as the model": {"model": "--help"},
    "a name that is none": {"flags": {"max model len\nx": 1}},
    "developer mode": {"env": {"VLLM_SERVER_DEV_MODE": "1"}},
    "a variable that is none": {"env": {"A=1\nB": "1"}},
    "a route with a pattern": {"routes": ("/v1/{x}",)},
    "a revision that is a path": {"revision": "../../x"},
    "a secret name with a path": {"secrets": (Secret("A", "../x", "k"),)},
}


@TARGETS
@pytest.mark.parametrize("opening", OPENINGS)
def test_what_opens_the_server_is_refused(target: str, opening: str) -> None:
    with pytest.raises(UserError, match="cannot be exported"):
        render(replace(PLAIN, **OPENINGS[opening]), target)  # type: ignore[arg-type]


def unpacked(text: str) -> list[str]:
    """Strings in a text that is itself YAML or JSON, such as a ConfigMap's file; none when it is neither."""
    try:
        return texts(json.loads(text))
    except json.JSONDecodeError:
        pass
    try:
        return [t for d in documents(text) if isinstance(d, (dict, list)) for t in texts(d)]
    except yaml.YAMLError:
        return []


def whole(text: str) -> bool:
    """Whether hostile text is one whole value, escaped for its reader, or lies whole inside a nested file."""
    text = text.replace("$$", "$")
    if text == NASTY or not any(opening in text for opening in ("$(", "${HOME", "{{ .", "</script")):
        return True
    inside = unpacked(text)
    return bool(inside) and all(map(whole, inside))


@TARGETS
def test_hostile_values_stay_values(target: str) -> None:
    """Names are harmless letters, PromQL is escaped, and everything else is the whole value."""
    for path, text in render(HOSTILE, target, allow_undeployable=True).items():
        if path.endswith((".yaml", ".json")):
            for found in texts(documents(text)):
                said = found.startswith(HOSTILE.name) and "\n" not in found  # a banner, on one line
                assert said or whole(found), (path, found)


def expanded_by_the_kubelet(value: Any) -> list[str]:
    """Arguments and environment values anywhere in an object."""
    if isinstance(value, list):
        return [t for v in value for t in expanded_by_the_kubelet(v)]
    if not isinstance(value, dict):
        return []
    lists = [value.get(key) for key in ("args", "command", "extraArgs")]
    found = [t for given_ in lists if isinstance(given_, list) for t in texts(given_)]
    found += [e["value"] for e in value.get("env", []) if isinstance(e, dict) and "value" in e]
    return found + [t for v in value.values() for t in expanded_by_the_kubelet(v)]


@pytest.mark.parametrize("target", ["kubernetes", "kserve", "ray", "production-stack"])
def test_the_kubelet_expands_nothing_of_ours(target: str) -> None:
    files = render(HOSTILE, target, allow_undeployable=True)
    found = [
        t
        for p, text in files.items()
        if p.endswith(".yaml")
        for t in expanded_by_the_kubelet(documents(text))
    ]
    assert any("$$(touch" in t for t in found)
    assert not [t for t in found if re.search(r"(?<!\$)\$\(", t)]


def test_hostile_run_script_passes_every_value_whole(tmp_path: Path) -> None:
    """The script is run for real, with a program in vllm's place that writes down what it was given."""
    write(render(HOSTILE, "vllm", allow_undeployable=True), tmp_path / "out")
    spy = tmp_path / "spy"
    spy.write_text(
        '#!/bin/sh\nprintf "%s\\0" "$@" > "$SPY_OUT.args"\nprintf "%s" "$CUSTOM" > "$SPY_OUT.env"\n'
    )
    spy.chmod(0o755)
    env = {"PATH": "/usr/bin:/bin", "VLLM": str(spy), "SPY_OUT": str(tmp_path / "said")}
    run = subprocess.run([str(tmp_path / "out" / "run.sh")], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    given = (tmp_path / "said.args").read_bytes().decode().split("\0")
    assert given[:2] == ["serve", NASTY]
    assert (tmp_path / "said.env").read_bytes().decode() == NASTY
    assert not Path("/tmp/pwned").exists()


def test_run_script_reads_the_key_from_a_file(tmp_path: Path) -> None:
    write(render(CPU, "vllm"), tmp_path / "out")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "key").write_text("abc\n")
    spy = tmp_path / "spy"
    spy.write_text('#!/bin/sh\necho "$VLLM_API_KEY|$*"\n')
    spy.chmod(0o755)
    env = {"PATH": "/usr/bin:/bin", "VLLM": str(spy), "MODEL_DIR": str(tmp_path / "model"), "PORT": "8123"}
    script = str(tmp_path / "out" / "run.sh")
    run = subprocess.run(
        [script], env=env | {"API_KEY_FILE": str(tmp_path / "key")}, capture_output=True, text=True
    )
    key, _, said = run.stdout.partition("|")
    assert key == "abc"
    assert "abc" not in said
    assert shlex.split(said)[:2] == ["serve", str(tmp_path / "model")]
    assert shlex.split(said)[-2:] == ["--port", "8123"]
    (tmp_path / "key").write_text("")
    empty = subprocess.run(
        [script], env=env | {"API_KEY_FILE": str(tmp_path / "key")}, capture_output=True, text=True
    )
    assert empty.returncode == 2
    assert "empty" in empty.stderr


def test_write_refuses_a_folder_with_files(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        write(render(PLAIN, "vllm"), tmp_path)


def test_every_target_carries_the_same_configuration() -> None:
    """One hash: the file that vLLM reads is the same text in each target that mounts it."""
    settings = yaml_text(serve(PLAIN))
    assert render(PLAIN, "vllm")["serve.yaml"].endswith(settings)
    assert render(PLAIN, "compose")["serve.yaml"].endswith(settings)
    assert render(PLAIN, "kubernetes")["base/serve.yaml"].endswith(settings)
    config = documents(render(PLAIN, "kserve")["llminferenceservice.yaml"])[0]
    assert config["data"]["serve.yaml"] == settings
    ray = documents(render(PLAIN, "ray")["serve_config.yaml"])[0]["applications"][0]["args"]["llm_configs"][0]
    assert {k.replace("_", "-") for k in ray["engine_kwargs"]} <= set(settings_of(PLAIN))
    assert ray["engine_kwargs"]["max_num_seqs"] == PLAIN.max_num_seqs


def test_what_is_off_is_written_so_that_vllm_reads_it() -> None:
    """`x: false` in the file is dropped by `vllm serve`; the engine test holds this against its parser."""
    written = serve(PLAIN)
    assert "enable-prefix-caching" not in written
    assert written["no-enable-prefix-caching"] is True
    assert False not in [v for v in written.values() if isinstance(v, bool)]


def test_slo_limits_are_histogram_bounds() -> None:
    found = serve(PLAIN)["custom-histogram-buckets"]
    assert isinstance(found, dict)
    assert 0.3 in found["time_to_first_token"]
    assert 0.03 in found["inter_token_latency"]
    for bounds in found.values():
        assert all(a < b for a, b in pairwise(bounds))


def test_no_custom_bounds_for_versions_without_the_flag() -> None:
    assert "custom-histogram-buckets" not in serve(replace(PLAIN, version="0.30.0"))


@given(st.text())
def test_any_text_survives_yaml(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    written = yaml_text({"value": text, "list": [text]})
    assert yaml.safe_load(written) == {"value": text, "list": [text]}


@given(st.text(min_size=1))
def test_any_text_becomes_a_label(text: str) -> None:
    label = dns_label(text)
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", label)
    assert len(label) <= LABEL_LIMIT


def test_different_titles_have_different_labels() -> None:
    assert len({dns_label(t) for t in ("a b", "a-b", "a_b", "A-B", "ä", "ö", "x" * 90, "x" * 91)}) == 8


@given(st.text())
def test_promql_strings_hold_no_template_and_no_variable(text: str) -> None:
    quoted = promql_string(text)
    assert not re.search(
        r'[${}\n\\"]', re.sub(r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8}", "", quoted[1:-1])
    )


@pytest.mark.parametrize("budget", [0.001, 0.01, 0.05, 0.1, 0.5])
def test_canary_tests_have_the_promised_size_and_power(budget: float) -> None:
    from scipy.stats import binom

    test = size_of_test(budget)
    worse = min(3 * budget, (1 + budget) / 2)
    assert binom.sf(test.allowed, test.requests, budget) <= 0.05
    assert binom.sf(test.allowed, test.requests, worse) >= 0.8
    assert test.requests < 20_000


def test_drain_and_startup_are_computed_from_the_measurement() -> None:
    pod = documents(render(PLAIN, "kubernetes")["base/deployment.yaml"])[0]["spec"]["template"]["spec"]
    probe = pod["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 2 * PLAIN.cold_start_s
    stop = serve(PLAIN)["shutdown-timeout"]
    assert isinstance(stop, int)
    assert PLAIN.worst_request_s < stop < pod["terminationGracePeriodSeconds"]


def test_longer_requests_get_longer_to_finish() -> None:
    def grace(d: Deployment) -> int:
        pod = documents(render(d, "kubernetes")["base/deployment.yaml"])[0]["spec"]["template"]["spec"]
        return int(pod["terminationGracePeriodSeconds"])

    assert grace(replace(PLAIN, worst_request_s=500.0)) - grace(PLAIN) == round(1.5 * (500 - 52))


def test_arguments_are_those_vllm_makes_of_its_file() -> None:
    given_ = {"a": True, "b": False, "c": [1, "x"], "d": {"k": 1}, "e": 0.5}
    assert arguments(given_) == ["--a", "--no-b", "--c", "1", "x", "--d", '{"k": 1}', "--e", "0.5"]


def test_digests() -> None:
    files = render(PLAIN, "vllm")
    line = next(row for row in files[MANIFEST].splitlines() if row.endswith("  serve.yaml"))
    assert line.split()[0] == hashlib.sha256(files["serve.yaml"].encode()).hexdigest()


def test_kserves_preset_and_ours_make_one_handler() -> None:
    """The preset of KServe 0.20 has an exec; the API refuses a preStop of two kinds."""
    service = documents(render(PLAIN, "kserve")["llminferenceservice.yaml"])[1]
    ours = service["spec"]["template"]["containers"][0]["lifecycle"]["preStop"]
    preset = {"exec": {"command": ["/bin/sh", "-c", "sleep 1"]}}
    assert list({**preset, **ours}) == ["exec"]
    assert ours["exec"]["command"] == ["/bin/sleep", "15"]


def test_no_metrics_is_no_reason_for_fewer_replicas() -> None:
    scaled = documents(render(PLAIN, "delivery")["scaledobject.yaml"])[0]["spec"]
    assert scaled["fallback"]["behavior"] == "currentReplicasIfHigher"
