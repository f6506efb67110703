"""What runs on a GPU machine without a network, rehearsed with stand-ins: parts, models, results brought back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import gpu_machine  # noqa: E402
import gpu_pack  # noqa: E402
from gpu import back, models, payload, tasks  # noqa: E402

from serving.costmodel.shapes import SHAPES, of_folder  # noqa: E402


def packed(folder: Path) -> Path:
    """Parts of a payload with one tiny wheel a group."""
    groups = {}
    for group in payload.GROUPS:
        groups[group] = folder / group
        groups[group].mkdir(parents=True)
        for name in (f"only_{group}", "shared"):
            wheel(groups[group], name)
    gpu_pack.gather(groups, folder / "payload")
    into = folder / "parts"
    into.mkdir()
    gpu_pack.split(folder / "payload", into, folder / "payload.tar")
    return into


def wheel(folder: Path, name: str) -> None:
    import zipfile

    info = f"{name}-1.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", "WHO = 'carried'\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def test_parts_become_two_folders_that_do_not_see_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_pack, "PART_BYTES", 4096)
    parts, work = packed(tmp_path), tmp_path / "work"
    assert len(list(parts.iterdir())) > 2
    work.mkdir()
    payload.install(parts, work)
    says = "import importlib.util as u; print([bool(u.find_spec(n)) for n in ('only_own', 'only_engine', 'shared')])"
    own = [payload.own(work), "-c", says]
    seen = subprocess.run(
        own, env=payload.environment(work), capture_output=True, text=True, check=True, cwd=work
    )
    assert seen.stdout == "[True, False, True]\n"
    engine = subprocess.run(
        [sys.executable, "-c", says], env=payload.environment(work, engine=True), capture_output=True, text=True,
        check=True, cwd=work,
    )  # fmt: skip
    assert engine.stdout == "[False, True, True]\n"
    started = time.monotonic()
    payload.install(tmp_path / "no parts", work)  # whole already: nothing is looked at
    assert time.monotonic() - started < 0.5


def test_servetune_runs_from_the_folder_of_its_own_and_its_children_too(tmp_path: Path) -> None:
    packages = payload.environment_in(tmp_path / "own")
    assert packages.is_dir()
    code = "import serving, sys; print(serving.__file__, sys.prefix != sys.base_prefix)"
    python = str(tmp_path / "own" / "bin" / "python")
    said = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
                          env={"PATH": os.environ["PATH"], "PYTHONSAFEPATH": "1"}).stdout  # fmt: skip
    assert said == f"{ROOT / 'serving' / '__init__.py'} True\n"


def test_a_part_that_is_missing_is_named_before_anything_is_unpacked(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    for number in (0, 2):
        (parts / f"part{number:02d}").write_bytes(b"x")
    with pytest.raises(SystemExit, match="holds part 00, 02"):
        payload.join(parts, tmp_path / "payload")
    assert not (tmp_path / "payload").exists()
    with pytest.raises(SystemExit, match="no whole archive"):
        (parts / "part02").rename(parts / "part01")
        payload.join(parts, tmp_path / "payload")


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen2.5-7b"])
def test_a_dummy_is_its_shape_and_every_token_of_it_is_text(name: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers import models as kinds
    from tokenizers.decoders import ByteLevel, DecodeStream

    small = tmp_path / models.SMALL
    small.mkdir()
    tokenizer = Tokenizer(kinds.BPE({"Ġthe": 0, "a": 1, "Ġ": 2}, []))
    tokenizer.decoder = ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(small / "tokenizer.json"))
    (small / "tokenizer_config.json").write_text("{}")
    folder = models.dummy(SHAPES[name], tmp_path)
    found, _ = of_folder(folder)
    assert found is not None
    for field in ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab", "qkv_bias"):
        assert getattr(found, field) == getattr(SHAPES[name], field)
    longer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert longer.get_vocab_size() == SHAPES[name].vocab
    stream = DecodeStream(skip_special_tokens=True)
    assert stream.step(longer, 0) == " the"
    assert stream.step(longer, 4) == " #4"
    assert stream.step(longer, SHAPES[name].vocab - 1) == f" #{SHAPES[name].vocab - 1}"
    assert longer.token_to_id("<end>") == tokenizer.token_to_id("<end>") == 3
    assert longer.encode("a a").ids == tokenizer.encode("a a").ids


def test_what_is_new_comes_back_each_time_and_the_vital_first(tmp_path: Path) -> None:
    results, out = tmp_path / "work" / "results", tmp_path / "out"
    (results / "run" / "points").mkdir(parents=True)
    (results / "run" / "events.jsonl").write_text("first\n")
    (results / "run" / "points" / "big.parquet").write_bytes(os.urandom(60_000))
    (results / "run" / "points" / "one.parquet").write_bytes(os.urandom(20_000))
    (results / "run" / "report.html").write_text("made again")
    assert (
        back.bring(results, out, piece_bytes=10_000, most=5) == 1
    )  # the big one has no room beside the rest
    assert max(piece.stat().st_size for piece in out.iterdir()) <= 10_000
    first = joined(out, tmp_path / "first")
    assert (first / "run" / "events.jsonl").read_text() == "first\n"
    assert not (first / "run" / "report.html").exists()
    with (results / "run" / "events.jsonl").open("a") as journal:
        journal.write("second\n")
    second = tmp_path / "second call"
    assert back.bring(results, second, piece_bytes=10_000, most=8) == 0
    both = joined(second, first)
    assert (both / "run" / "events.jsonl").read_text() == "first\nsecond\n"
    for name in ("big", "one"):
        file = Path("run", "points", f"{name}.parquet")
        assert (both / file).read_bytes() == (results / file).read_bytes()
    assert back.bring(results, tmp_path / "third", piece_bytes=10_000, most=8) == 0
    assert not (tmp_path / "third").exists()


def joined(pieces: Path, into: Path) -> Path:
    archive = into.parent / "joined.tar.xz"
    archive.write_bytes(b"".join(piece.read_bytes() for piece in sorted(pieces.iterdir())))
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    return into


STUBBORN = "import signal, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def test_out_of_time_a_step_is_interrupted_and_one_that_stays_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_machine, "STOP_S", 0.6)
    polite = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: raise SystemExit(130)"
    started = time.monotonic()
    assert gpu_machine.run([sys.executable, "-c", polite], os.environ, started + 1.6) == 130
    assert time.monotonic() - started < 5
    assert gpu_machine.run([sys.executable, "-c", STUBBORN], os.environ, time.monotonic() + 1.6) == -15
    assert (
        gpu_machine.run([sys.executable, "-c", "raise SystemExit(3)"], os.environ, time.monotonic() + 9) == 3
    )


def test_a_run_that_is_there_is_gone_on_with_and_a_file_is_not_made_twice(tmp_path: Path) -> None:
    step = tasks.bench("scenarios/h200-grid.yaml")
    assert "--resume" not in step.command(tmp_path)
    (tmp_path / "h200-grid").mkdir()
    assert step.command(tmp_path)[-3:] == ["--out", str(tmp_path / "h200-grid"), "--resume"]
    verify = tasks.TASKS["search"].steps[-1]
    assert not verify.done(tmp_path)
    assert not gpu_machine.do(verify, tmp_path, sys.executable, os.environ, time.monotonic() + 600)
    (tmp_path / "h200-search").mkdir()
    (tmp_path / "h200-search" / "verify-5.json").write_text("{}")
    assert gpu_machine.do(verify, tmp_path, sys.executable, os.environ, time.monotonic() + 600)


@pytest.mark.parametrize("name", tasks.TASKS)
def test_every_task_names_what_is_there(name: str) -> None:
    for step in tasks.TASKS[name].steps:
        for part in step.argv:
            if part.endswith((".py", ".yaml")) and "{results}" not in part:
                assert (ROOT / part).is_file()


def test_an_unknown_task_ends_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["gpu_machine.py", "--out", str(tmp_path / "out"), "--task", "smoke=60", "gird"]
    )
    with pytest.raises(SystemExit, match="2"):
        gpu_machine.main()
    assert "no task is called 'gird'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_grid_has_a_hundred_configurations() -> None:
    from bench.plan.expand import expand
    from bench.scenario import scenariofile

    points = {
        point.key
        for name in ("grid", "shape-8b", "shape-7b")
        for point in expand(scenariofile.load(ROOT / "scenarios" / f"h200-{name}.yaml"), "cuda")[0]
    }
    assert len(points) >= 100


def test_what_is_installed_here_is_what_is_carried() -> None:
    own = {pin.partition("==")[0] for pin in gpu_pack.own()}
    assert {"locust", "gevent", "optuna", "huggingface-hub", "numpy", "scipy"} <= own
    assert not {"torch", "vllm", "ray"} & own
    assert json.dumps(sorted(own))
