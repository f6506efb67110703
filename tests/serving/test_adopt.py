"""An engine that is installed already is found, proven and started like one of our own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from serving.errors import ServetuneError, UserError
from serving.install import adopt, environments


def site_with(folder: Path, version: str, program: str) -> Path:
    info = folder / f"vllm-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    (folder / "bin").mkdir()
    (folder / "bin" / "vllm").write_text(program)
    return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = site_with(
        tmp_path / "a site", "0.24.0", "import sys\nprint('--max-num-seqs --dtype', *sys.argv[1:])\n"
    )
    monkeypatch.syspath_prepend(str(made))
    return made


def test_what_is_adopted_counts_as_installed_and_knows_its_flags(site: Path, tmp_path: Path) -> None:
    found = adopt.adopt("vllm", str(site), root=tmp_path / "engines")
    assert found.installed
    assert (found.version, found.device) == ("0.24.0", "cuda")
    assert {"--max-num-seqs", "--dtype"} <= environments.flags(found)
    assert found in environments.environments("vllm", root=tmp_path / "engines")
    said = subprocess.run(
        [found.program("vllm"), "serve", "--x=a b"], capture_output=True, text=True, check=True
    ).stdout
    assert said == "--max-num-seqs --dtype serve --x=a b\n"


def test_a_version_without_a_lock_file_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = site_with(tmp_path / "site", "0.1.2", "")
    monkeypatch.syspath_prepend(str(made))
    with pytest.raises(UserError, match=r"vllm 0\.1\.2 on cuda has no lock file"):
        adopt.adopt("vllm", str(made), root=tmp_path / "engines")


def test_one_that_does_not_start_is_not_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = site_with(tmp_path / "site", "0.24.0", "raise SystemExit('no driver')")
    monkeypatch.syspath_prepend(str(made))
    with pytest.raises(ServetuneError, match="no driver"):
        adopt.adopt("vllm", str(made), root=tmp_path / "engines")
    assert not any(e.installed for e in environments.environments("vllm", root=tmp_path / "engines"))


def test_what_is_adopted_is_known_again_until_it_changes(site: Path, tmp_path: Path) -> None:
    root = tmp_path / "engines"
    assert not adopt.adopted("vllm", str(site), root=root)
    adopt.adopt("vllm", str(site), root=root)
    assert adopt.adopted("vllm", str(site), root=root)
    assert not adopt.adopted("vllm", str(tmp_path / "another site"), root=root)


def test_vllm_without_flashinfer_is_told_not_to_import_it(site: Path, tmp_path: Path) -> None:
    variable = "VLLM_USE_FLASHINFER_SAMPLER"
    (site / "bin" / "vllm").write_text(f"import os\nprint('--x', os.environ.get({variable!r}))\n")
    found = adopt.adopt("vllm", str(site), root=tmp_path / "engines")
    run = [found.program("vllm")]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "--x 0\n"
    (site / "flashinfer.py").write_text("")
    assert not adopt.adopted("vllm", str(site), root=tmp_path / "engines")
    adopt.adopt("vllm", str(site), root=tmp_path / "engines")
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "--x None\n"


def test_an_engine_is_found_in_its_own_folder_alone(tmp_path: Path) -> None:
    made = site_with(tmp_path / "apart", "0.24.0", "print('--x')")
    assert adopt.adopt("vllm", str(made), root=tmp_path / "engines").installed
    with pytest.raises(UserError, match="has no vllm"):
        adopt.adopt("vllm", str(tmp_path / "empty"), root=tmp_path / "engines")
