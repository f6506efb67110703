"""Secrets in settings: the engine gets them; no output, no file of a run and no message holds them."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.plan.planning import plan
from bench.records.folder import RunFolder
from bench.scenario import scenariofile
from servetune.cli.main import main
from servetune.deploy.deployable import refusals
from servetune.deploy.diff import changes
from servetune.deploy.spec import SecretRef
from servetune.deploy.specify import SpecRequest, specify
from serving import masking
from serving.config import SECRETS_BY_NAME, ServingConfig
from serving.engine import Command
from serving.engines.vllm import _arguments
from serving.errors import ScenarioError, UserError
from serving.launch import child
from tests.support.report_fixture import build

TOKEN = "hf_" + "Ab3" * 8
PASSWORD = "correct horse"


def made(**more: Any) -> ServingConfig:
    return ServingConfig(engine="vllm", model="org/m", **more)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", "x1"), ("OPENAI_API_KEY", "x1"), ("AWS_SECRET_ACCESS_KEY", "x1"), ("MYTOKEN", "x1"),
        ("DB_PASSWORD", "1234"), ("PGPASSWORD", "1234"), ("GOOGLE_CREDENTIALS", "x1"), ("api-key", "x1"),
        ("--api-key", 123456), ("hf_token", "x1"), ("hf-token", "x1"), ("SECRET_FOR_X", "x1"),
        ("ssl-keyfile-password", "x1"), ("anything", TOKEN), ("URL", "sk-proj-abcdefgh12345678"),
        ("PLAIN", "https://me:pass@host/x"), ("PLAIN", "https://tok3n@host/x"),
        ("speculative-config", '{"model": "m", "hf_token": "x1"}'), ("PLAIN", "https://h/?api_key=x1&a=b"),
        ("PLAIN", "Authorization: Bearer abc12345"), ("PLAIN", "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0." + "s" * 10),
    ],
)  # fmt: skip
def test_what_is_masked(name: str, value: Any) -> None:
    found = masking.shown(name, value)
    secret = str(value)
    assert masking.is_masked(found)
    for part in ("x1", "1234", "pass@", "tok3n", TOKEN, "abcdefgh", "abc12345", "eyJ"):
        assert part not in str(found) or part not in secret
    assert masking.shown(name, found) == found, "masking twice changes nothing"
    assert masking.holds_secret(name, value)
    assert masking.holds_secret(name, found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VLLM_ATTENTION_BACKEND", "FLASHINFER"), ("TOKENIZERS_PARALLELISM", "false"), ("max_tokens", "512"),
        ("long-prefill-token-threshold", 1024), ("max-num-batched-tokens", "8192"), ("tokenizer-mode", "slow"),
        ("return-tokens-as-token-ids", True), ("hf-token", True), ("ssl-keyfile", "/etc/x"), ("HF_TOKEN", ""),
        ("speculative-config", '{"method":"ngram","num_speculative_tokens":4}'), ("api-key", None),
        ("compilation-config", '{"mode": 0, "cudagraph_capture_sizes": [1, 2]}'), ("A", "task-12-disk-34-a-b-c-d"),
        ("url", "http://127.0.0.1:8000"), ("CUDA_VISIBLE_DEVICES", "0,1"), ("A", "a bearer of bad tidings"),
    ],
)  # fmt: skip
def test_what_is_not(name: str, value: Any) -> None:
    assert masking.shown(name, value) == value
    assert not masking.holds_secret(name, value)


def test_the_key_tells_secrets_apart_and_survives_a_round_trip() -> None:
    one, other, same = (made(env={"HF_TOKEN": value}) for value in (TOKEN, TOKEN + "x", TOKEN))
    assert one.key == same.key != other.key
    stored = ServingConfig.model_validate(json.loads(one.model_dump_json(exclude_defaults=True)))
    assert stored.key == one.key
    assert stored.masked == ["env HF_TOKEN"]
    assert one.env["HF_TOKEN"] == TOKEN, "the engine gets it"
    plain = made(env={"A": "b"}, extra_args={"x": 1, "speculative-config": '{"a":1}'})
    assert plain.key == "ae2481258d03", "results from before secrets were masked stay readable"


def test_no_text_of_a_config_holds_it() -> None:
    config = made(
        env={"HF_TOKEN": TOKEN}, extra_args={"--api-key": PASSWORD, "hf-overrides": f'{{"token": "{TOKEN}"}}'}
    )
    texts = [
        repr(config),
        str(config),
        config.label,
        str(config.settings),
        str(config.model_dump()),
        config.model_dump_json(),
    ]
    texts += [str(config.shown(name)) for name in ServingConfig.model_fields]
    for text in texts:
        assert TOKEN not in text
        assert PASSWORD not in text
    assert {PASSWORD, TOKEN} <= {word for part in _arguments(config) for word in part.split('"')}


def test_the_engine_gets_it_and_its_log_does_not_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a variable of its own, by one it inherits, by a flag; printed with and without its name."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    code = "import os,sys; open('got','w').write(repr((dict(os.environ), sys.argv))); print(sys.argv, *os.environ.values())"
    argv = (sys.executable, "-c", code, "--api-key", PASSWORD, "--db-password=p4ss word")
    started = child.start(
        Command(argv, {"VLLM_API_KEY": "from-the-engine"}), tmp_path, 1, {"MY_SECRET": "of-mine"}, gpu=False
    )
    started.held_port = False
    assert started.exit_code(wait_s=20) == 0
    secrets = (TOKEN, PASSWORD, "from-the-engine", "of-mine", "p4ss word")
    got = (tmp_path / "cwd" / "got").read_text()
    assert all(secret in got for secret in secrets)
    assert not [secret for secret in secrets if secret in started.log_text()]
    started.stop()
    kept = (tmp_path / child.LOG).read_text() + (tmp_path / child.COMMAND).read_text()
    assert not [secret for secret in secrets if secret in kept]
    assert kept.count("masked-") >= 8


TEXT = """\
schema: 1
name: tiny
question: is it kept?
device: cpu
model: {{name: tiny, path: llama-3.1-8b, shape: llama-3.1-8b, tokenizer: none}}
engines:
  - engine: sim
    settings: {{max_model_len: 2048, sim: {{gpu: h200, shape: llama-3.1-8b}}}}
    grid: {{env: [{{HF_TOKEN: {token}, PLAIN: here}}, {{HF_TOKEN: {token}2, MY_PASSWORD: "{password}"}}]}}
workloads:
  - {{name: chat, input_tokens: 64, output_tokens: 8, concurrency: 2, requests: 8}}
# a comment that holds {token}
"""


def everything(folder: Path) -> str:
    return "".join(f.read_bytes().decode("latin-1") for f in sorted(folder.rglob("*")) if f.is_file())


def test_a_run_leaves_it_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """plan, bench, report, resume: every byte that is printed or written."""
    file, out = tmp_path / "tiny.yaml", tmp_path / "run"
    file.write_text(TEXT.format(token=TOKEN, password=PASSWORD))
    said = ""
    for command in (
        ["plan", str(file)], ["plan", str(file), "--json", "-"], ["plan", str(file), "--gpu", "h200"],
        ["bench", str(file), "--out", str(out), "--json", "-"],
        ["bench", str(file), "--out", str(out), "--resume"], ["report", str(out), "--json", "-"],
        ["compare", str(out), str(out)],
    ):  # fmt: skip
        status = main(command)
        printed = capfd.readouterr()
        said += printed.out + printed.err
        assert status in (0, 3) or command[0] == "compare", said
    written = everything(out)
    for secret in (TOKEN, PASSWORD):
        assert secret not in said
        assert secret not in written
    assert masking.mask(TOKEN) in said
    assert "PLAIN" in said
    folder = RunFolder.open(out)
    assert len({run.point.config.key for run in folder.runs()}) == 2
    assert sum(event["event"] == "launch" for event in folder.events()) == 2, "nothing was measured again"
    kept = out / "scenario.yaml"
    assert scenariofile.load(kept).sha256 == scenariofile.load(file).sha256
    with pytest.raises(UserError, match="env HF_TOKEN is masked here"):
        plan(scenariofile.load(kept))


def test_a_document_without_secrets_stays_as_it_is() -> None:
    raw = b"# note\nengines: [{settings: {env: {A: b}, max_num_batched_tokens: 8}}]  # more\n"
    assert masking.document(raw, SECRETS_BY_NAME) is raw
    assert masking.document(b"", SECRETS_BY_NAME) == b""


@pytest.mark.parametrize(
    "written",
    [
        "env: {HF_TOKEN: 'it''s'}",
        'env: {HF_TOKEN: "\\x61b"}',
        "env: {HF_TOKEN: e}",
        "env:\n  A_KEY: >\n    a\n    b",
    ],
)
def test_a_secret_that_is_written_in_another_way_is_found_too(written: str) -> None:
    raw = f"name: tester\n{written}\n".encode()
    before, after = yaml.safe_load(raw), yaml.safe_load(masking.document(raw, SECRETS_BY_NAME))
    assert after["name"] == before["name"]
    assert all(masking.is_masked(value) for value in after["env"].values())
    assert masking.document(masking.document(raw, SECRETS_BY_NAME), SECRETS_BY_NAME) == masking.document(
        raw, SECRETS_BY_NAME
    )


def test_errors_do_not_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "s.yaml"
    good = TEXT.format(token=TOKEN, password=PASSWORD)
    for bad in (
        "{HF_TOKEN: 482913557}",
        f"[{TOKEN}]",
        f"{{HF_TOKEN: [{TOKEN}]}}",
        f"{{HF_TOKEN: x, HF_TOKEN: {TOKEN}}}",
    ):
        lines = [line for line in good.splitlines() if "grid:" not in line]
        file.write_text("\n".join(lines).replace("settings: {", f"settings: {{env: {bad}, "))
        with pytest.raises(ScenarioError) as refused:
            scenariofile.load(file)
        text = f"{refused.value.message} {refused.value.hint}"
        assert TOKEN not in text
        assert "482913557" not in text


def test_a_spec_holds_none_and_says_what_is_missing(tmp_path: Path) -> None:
    def with_secrets(run: Any) -> Any:
        config = run.point.config
        if config.engine != "vllm":
            return run
        env, flags = {"HF_TOKEN": TOKEN, "PLAIN": "x"}, {"hf-token": TOKEN, "seed": 1}
        secret = config.model_copy(update={"env": env, "extra_args": flags})
        return replace(run, point=replace(run.point, config=secret))

    folder = build(tmp_path / "run", sim=False, change=with_secrets)
    scenario = scenariofile.load(folder.path / "scenario.yaml")
    spec = specify(folder, scenario, SpecRequest())
    assert (spec.env, spec.native) == ({"PLAIN": "x"}, {"seed": 1})
    assert any("--secret HF_TOKEN=OBJECT/KEY" in reason for reason in refusals(spec))
    assert any("extra_args hf-token held a secret" in reason for reason in refusals(spec))
    named = specify(
        folder, scenario, SpecRequest(secrets=(SecretRef(env="HF_TOKEN", name="hub", key="token"),))
    )
    assert not any("--secret" in reason for reason in refusals(named))
    by_hand = spec.model_copy(update={"env": {"HF_TOKEN": TOKEN}})
    assert TOKEN not in str(changes(spec, by_hand))


def test_masking_is_quick_enough_for_large_texts() -> None:
    hide = masking.hiding({"HF_TOKEN": TOKEN}, ["x"])
    log = f"INFO 12:00 GET http://127.0.0.1:8000/v1 key=value {'a' * 2000} {TOKEN}\n" * 2000
    began = time.monotonic()
    assert TOKEN not in hide(log)
    masking.text("a" * 100_000 + ":" + "/" * 100_000)
    assert time.monotonic() - began < 5
