"""Engine environments: lock files that pin, installations that are whole or redone, and a soft no."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.errors import ServetuneError, UserError
from serving.install import environments
from serving.install.environment import STAMP, Environment
from serving.install.environments import FLAGS, HALF, LOCKS, UnobtainableError

NAMES = {"lm-eval", "vllm", "transformers", "llmcompressor"}


@pytest.mark.parametrize("lock", sorted(LOCKS.glob("*.txt")), ids=lambda p: p.stem)
def test_locks_pin_and_hash_everything_and_name_no_host(lock: Path) -> None:
    text = lock.read_text()
    pins = re.findall(r"^([a-z0-9][a-z0-9._-]*)==(\S+) \\$", text, re.M)
    assert len(pins) > 40
    assert len({name for name, _ in pins}) == len(pins)
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    for block in re.split(r"\n(?=[a-z0-9])", text)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]
    named = dict(pins)
    assert not {"torchvision", "torchaudio", "torchcodec"} & set(named) or lock.stem.endswith("cuda")
    assert ("torch" in named) == lock.stem.endswith("cuda")
    assert re.search(r"^# torch: (torch==\S+|below|none)$", text, re.M)


def test_every_engine_has_an_environment_for_each_device() -> None:
    found = {(e.name, e.device) for e in environments.environments()}
    assert found >= {(n, d) for n in ("vllm", "transformers") for d in ("cpu", "cuda")}
    assert {e.name for e in environments.environments()} == NAMES
    assert set(environments.PROOF) == NAMES


def test_newest_version_first(tmp_path: Path) -> None:
    for version in ("0.9.2", "0.32.0", "0.24.0"):
        (tmp_path / f"vllm-{version}-cpu.txt").touch()
    (tmp_path / "notes.md").touch()
    found = environments.environments("vllm", root=tmp_path, locks=tmp_path)
    assert [e.version for e in found] == ["0.32.0", "0.24.0", "0.9.2"]
    assert found[0].folder == tmp_path / "vllm-0.32.0"


def tiny(tmp_path: Path, torch: str | None = None) -> Environment:
    lock = tmp_path / "locks" / "tiny-1.0-cpu.txt"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(f"# torch: {torch}\n" if torch else "# nothing\n")
    return Environment("tiny", "1.0", "cpu", tmp_path / "engines" / "tiny-1.0", lock)


@pytest.fixture
def proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    code = "print('  --alpha N  first\\n  --[no-]beta\\n --enable-auto-\\n --no-gamma, --gamma_ray x')"
    monkeypatch.setitem(environments.PROOF, "tiny", ("bin/python", "-c", code))


@pytest.mark.usefixtures("proof")
def test_install_reuse_repair_and_renewal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = tiny(tmp_path)
    assert not environment.installed
    assert environments.flags(environment) == frozenset()
    assert environments.install(environment)
    assert environment.installed
    assert "tiny-1.0: ready" in capsys.readouterr().err
    assert {"--alpha", "--gamma_ray", "--no-gamma"} <= environments.flags(environment)
    assert "--enable-auto-" not in environments.flags(environment)
    started = time.monotonic()
    assert not environments.install(environment)
    assert time.monotonic() - started < 0.2

    environment.lock.write_text("# nothing, but otherwise\n")
    assert not environment.installed
    kept = environment.folder / "kept"
    kept.touch()
    assert environments.install(environment)
    assert kept.exists()

    (environment.folder / STAMP).unlink()
    (environment.folder / HALF).write_text("1")
    assert environments.install(environment)
    assert "cut short" in capsys.readouterr().err
    assert not kept.exists()
    assert not (environment.folder / HALF).exists()
    assert json.loads((environment.folder / STAMP).read_text())["device"] == "cpu"
    assert (environment.folder / FLAGS).exists()


@pytest.mark.usefixtures("proof")
def test_a_proof_that_fails_leaves_no_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(environments.PROOF, "tiny", ("bin/python", "-c", "raise SystemExit('broken')"))
    environment = tiny(tmp_path)
    with pytest.raises(ServetuneError, match="first start failed: broken"):
        environments.install(environment)
    assert not environment.installed
    assert (environment.folder / HALF).exists()


@pytest.mark.usefixtures("proof")
def test_a_torch_that_is_nowhere_is_said_with_the_way_to_get_it(tmp_path: Path) -> None:
    environment = tiny(tmp_path, torch="torch==99.0+cpu")
    with pytest.raises(UnobtainableError) as caught:
        environments.install(environment)
    assert "torch==99.0+cpu" in caught.value.message
    assert "pytorch.org" in caught.value.hint
    assert "make engines" in caught.value.hint
    assert not environment.folder.exists()


@pytest.mark.parametrize(("optional", "status"), [(True, 0), (False, 2)])
def test_only_optional_engines_may_be_left_out(
    optional: bool, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = []

    def refuse(environment: Environment) -> bool:
        tried.append(environment.name)
        raise UnobtainableError("no build", "get it")

    monkeypatch.setattr(environments, "install", refuse)
    monkeypatch.setattr(environments, "OPTIONAL", frozenset({("vllm", "cpu")} if optional else ()))
    assert environments.main(["install", "vllm", "--device", "cpu"]) == status
    assert environments.main(["install", "vllm", "transformers", "--device", "cpu"]) == 2
    assert tried == ["vllm", "vllm", "transformers"]
    said = capsys.readouterr()
    assert "get it" in said.err
    assert not said.out


def test_an_unknown_name_is_the_users_to_fix() -> None:
    assert environments.main(["install", "vlm", "--device", "cpu"]) == UserError.exit_code


def test_cpu_vllm_gets_the_name_its_version_is_found_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = Environment("vllm", "1.2.3", "cpu", tmp_path, tmp_path / "lock")
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    asked = []
    monkeypatch.setattr(environments, "_pip", lambda environment, *arguments: asked.append(arguments))
    environments._mend(environment)
    assert asked == [("uninstall", "--yes", "torchvision", "torchaudio", "torchcodec")]
    code = "from importlib.metadata import version; print(version('vllm'))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r}); {code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "1.2.3+cpu"


def test_the_list_is_quick_and_on_stdout() -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "serving.install.environments", "list"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert time.monotonic() - started < 5
    assert {line.split("\t")[0] for line in done.stdout.splitlines()} == NAMES
    assert not done.stderr
