"""The way back: rendered by the same exporters, with commands that fit the files, for every target."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from servetune.cli.main import main
from servetune.deploy.deployable import dump
from servetune.deploy.exporters import EXPORTERS, MANIFEST, render, write
from servetune.deploy.exporters.rollback import COMMANDS, FALLBACK, ROLLBACK, RUNBOOK, files
from servetune.deploy.exporters.safe import SECRET_VALUE
from tests.support.export_fixture import CPU, HOSTILE, PLAIN
from tests.support.spec_fixture import spec_of

EARLIER = replace(PLAIN, spec_id="aaaaaaaaaaaa", flags={**PLAIN.flags, "max-num-seqs": 64})
OTHER = replace(CPU, spec_id="bbbbbbbbbbbb")


def test_every_target_that_runs_something_has_a_way_back() -> None:
    assert set(COMMANDS) == set(EXPORTERS) - {"bom"}
    assert files(PLAIN, "bom", EARLIER, OTHER) == {}


@pytest.mark.parametrize("target", COMMANDS)
def test_the_earlier_files_are_those_of_the_same_exporter(target: str) -> None:
    found = files(PLAIN, target, EARLIER, OTHER)
    for folder, other in ((ROLLBACK, EARLIER), (FALLBACK, OTHER)):
        inside = {p.partition("/")[2]: t for p, t in found.items() if p.startswith(f"{folder}/")}
        made = render(other, target)
        if target == "delivery":  # with the engine that it delivers, which the target itself finds there
            assert {"config.yaml", "deployment.yaml"} <= set(inside) - set(made)
            inside = {p: x for p, x in inside.items() if p in made}
            del inside[MANIFEST], made[MANIFEST]
        assert inside == made
    assert found == files(PLAIN, target, EARLIER, OTHER)


@pytest.mark.parametrize("target", COMMANDS)
def test_commands_name_files_that_are_there(target: str, tmp_path: Path) -> None:
    """Every path of the commands that lies in the folders is one that was written."""
    found = files(PLAIN, target, EARLIER, OTHER)
    write({**render(PLAIN, target), **found}, tmp_path / "out")
    blocks = re.findall(r"```\n(.*?)```", found[RUNBOOK], re.DOTALL)
    assert len(blocks) == 2
    for line in "".join(blocks).splitlines():
        words = shlex.split(line.replace("(", " ").replace(")", " "))
        for word in words:
            if word.startswith((ROLLBACK, FALLBACK)):
                assert (tmp_path / "out" / word).exists(), line
        checked = subprocess.run(["sh", "-n", "-c", line], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
    if target in ("vllm", "compose"):
        assert "max-num-seqs: 64" in (tmp_path / "out" / ROLLBACK / "serve.yaml").read_text()


def test_another_name_takes_the_first_away() -> None:
    said = files(PLAIN, "kubernetes", None, OTHER)[RUNBOOK]
    assert "kubectl delete -k overlays/production" in said
    assert "Nothing ran before" in said
    same = files(PLAIN, "kubernetes", EARLIER, None)[RUNBOOK]
    assert "kubectl delete -k" not in same
    assert f"--namespace {PLAIN.name}-production" in same


@pytest.mark.parametrize("target", COMMANDS)
def test_hostile_names_reach_no_command(target: str) -> None:
    found = files(HOSTILE, target, replace(HOSTILE, spec_id="x"), None)
    blocks = "".join(re.findall(r"```\n(.*?)```", found[RUNBOOK], re.DOTALL))
    assert "touch /" not in blocks
    assert "$(" not in blocks
    assert "{{" not in blocks
    assert all(not SECRET_VALUE.search(text) for text in found.values())


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, other, new = tmp_path / "old.yaml", tmp_path / "other.yaml", tmp_path / "new.yaml"
    earlier, fallback = spec_of(metadata={"name": "earlier"}), spec_of(metadata={"name": "slower"})
    old.write_text(dump(earlier))
    other.write_text(dump(fallback))
    ids = {"spec_id": earlier.metadata.id, "fallback_id": fallback.metadata.id}
    new.write_text(dump(spec_of(rollback=ids)))
    asked = ["export", str(new), "--to", "vllm", "--rollback", str(old), "--fallback", str(other)]
    assert main([*asked, "-o", str(tmp_path / "out"), "--json", "-"]) == 0
    listed = {row["path"] for row in json.loads(capsys.readouterr().out)["files"]}
    assert {"ROLLBACK.md", "rollback/run.sh", "fallback/run.sh", "run.sh"} <= listed
    swapped = ["export", str(new), "--to", "vllm", "--rollback", str(other), "-o", str(tmp_path / "no")]
    assert main(swapped) == 2
    assert "names" in capsys.readouterr().err
    sums = ["sha256sum", "-c", "--strict", "MANIFEST.sha256"]
    assert subprocess.run(sums, cwd=tmp_path / "out" / "rollback", capture_output=True).returncode == 0
