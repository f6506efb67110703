"""docs/deploying.md, followed word for word: its file is written, its commands are run in their order."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

from bench.records.model import Judgement
from servetune.cli.main import main
from servetune.deploy.deployable import dump, refusals
from servetune.deploy.spec import load
from serving.install import environments
from tests.support.spec_fixture import spec_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line) for line in re.findall(r"^ *\$ (.+)$", PAGE, re.MULTILINE)]
AFTER = next(i for i, words in enumerate(COMMANDS) if words[1] == "verify") + 1
"""From here on the commands need a verified spec and no engine."""


def scenario() -> str:
    found = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return textwrap.dedent(found[1].rstrip(" "))


def follow(words: list[str]) -> int:
    if words[0] == "servetune":
        return main(words[1:])
    return subprocess.run(words, capture_output=True).returncode


def test_the_page_has_every_step() -> None:
    steps = [words[1] for words in COMMANDS if words[0] == "servetune"]
    assert steps[:4] == ["bench", "spec", "spec", "verify"]
    assert {"capacity", "export", "sign", "diff"} <= set(steps[4:])
    assert not [words for words in COMMANDS if words[0] not in ("servetune", "openssl")]


def test_every_step_after_the_verification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the example spec in the place of the verified one; what reads the run itself is left out."""
    if shutil.which("openssl") is None:
        pytest.skip("not checked: openssl is not installed")
    monkeypatch.chdir(tmp_path)
    fallback = spec_of(metadata={"name": "smollm2-fallback"})
    verified = spec_of(rollback={"fallback_id": fallback.metadata.id})
    Path("fallback.yaml").write_text(dump(fallback))
    Path("verified.yaml").write_text(dump(verified))
    Path("next.yaml").write_text(dump(spec_of(rollback={"spec_id": verified.metadata.id})))
    Path("results/deploy").mkdir(parents=True)
    Path("results/deploy/events.jsonl").write_text("{}")
    for words in COMMANDS[AFTER:]:
        if words[1] != "spec":
            assert follow(words) == 0, words
    asked = ["verify", "verified.yaml", "--signature", "verified.yaml.sig.json", "--public-key", "key.pub"]
    assert " ".join(asked) in PAGE
    assert Path("deploy/kubernetes/fallback/base/deployment.yaml").is_file()
    assert Path("deploy/next/rollback/run.sh").is_file()


@pytest.mark.engine
def test_the_whole_page_with_real_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = environments.find("vllm", "0.32.0", "cpu")
    model = ROOT / ".models" / "smollm2-135m-instruct"
    if environment is None or not environment.installed or not model.is_dir():
        pytest.skip("not checked: vllm 0.32.0 for the CPU or the model is not here (make engines model)")
    # Whether a busy machine's numbers may be believed is not the subject: every step has to work.
    for place in ("bench.checks.judge", "bench.measure_load.judge"):
        monkeypatch.setattr(place, lambda *run, **how: Judgement("ok"))
    monkeypatch.chdir(tmp_path)
    Path("deploy.yaml").write_text(scenario())
    Path(".models").symlink_to(ROOT / ".models")
    for words in COMMANDS:
        status = follow(words)
        if words[1] == "verify" and status == 3:
            pytest.skip("not followed to the end: the machine is too busy for a latency to be told")
        assert status == 0, words
    verified = load(Path("verified.yaml"))
    assert verified.status.verified
    assert "system_fingerprint" in verified.effective
    assert [f.task for f in verified.accuracy.facts] == ["facts"]
    assert refusals(verified) == ["the image has no digest (engine.image: registry/name:tag@sha256:...)"]
    assert load(Path("next.yaml")).rollback.spec_id == verified.metadata.id
