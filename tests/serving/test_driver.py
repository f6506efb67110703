"""A driver too old for the CUDA of a lock is refused by doctor, by the installer and by a plan, with a way out."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.machine import fitness
from bench.telemetry.gpus import Gpu, inventory
from serving.config import ServingConfig
from serving.engines.vllm import Vllm
from serving.install import driver, environments
from serving.install.driver import GpuDriver, refusal, runtime
from serving.install.environment import STAMP, Environment
from serving.install.environments import LOCKS
from tests.support.fake_nvml import FakeNvml, card

OLD, TWELVE, NEW = (
    GpuDriver("470.82", (11, 4)),
    GpuDriver("550.54.15", (12, 4)),
    GpuDriver("580.95.05", (13, 0)),
)


def lock(folder: Path, *lines: str, name: str = "vllm-9.9-cuda.txt") -> Path:
    file = folder / name
    file.write_text("# a lock\n" + "".join(f"{line} \\\n    --hash=sha256:00\n" for line in lines))
    return file


@pytest.mark.parametrize(
    ("lines", "needed"),
    [
        (["nvidia-cuda-runtime==13.0.96", "nvidia-cublas==13.1.0.3", "torch==2.11.0"], (13, 0)),
        (["nvidia-cuda-runtime-cu12==12.8.90", "nvidia-nvtx-cu12==12.8.90", "torch==2.9.0"], (12, 8)),
        (["torch==2.10.0+cu129", "nvidia-cuda-runtime-cu12==12.8.90"], (12, 9)),
        (["torch==2.7.1+cu118"], (11, 8)),
        (["cuda-toolkit==14.1.0", "torch==3.0.0"], (14, 1)),
        (["nvidia-nccl-cu13==2.28.9", "torch==2.11.0"], (13, 0)),
        (["torch==2.13.0+cpu", "nvidia-ml-py==13.615.71"], None),
        (["numpy==2.3.0"], None),
    ],
)
def test_the_cuda_of_a_lock_is_read_from_its_packages(
    tmp_path: Path, lines: list[str], needed: tuple[int, int] | None
) -> None:
    assert runtime(lock(tmp_path, *lines)) == needed


def test_the_head_of_a_lock_may_name_the_build_of_torch(tmp_path: Path) -> None:
    file = tmp_path / "x-1-cuda.txt"
    file.write_text("# x\n# torch: torch==2.10.0+cu126\n")
    assert runtime(file) == (12, 6)


@pytest.mark.parametrize("file", sorted(LOCKS.glob("*.txt")), ids=lambda p: p.stem)
def test_every_cuda_lock_tells(file: Path) -> None:
    assert (runtime(file) is not None) == file.stem.endswith("-cuda")


@pytest.mark.parametrize(
    ("needed", "has", "runs"),
    [
        ((13, 0), TWELVE, False), ((13, 0), OLD, False), ((13, 0), NEW, True),
        ((12, 9), TWELVE, True),  # minor-version compatibility: 12.4's driver runs 12.9
        ((12, 9), GpuDriver("525.60.13", (12, 0)), True), ((12, 0), OLD, False), ((12, 8), NEW, True),
        ((13, 1), NEW, True), ((14, 0), NEW, False),
        ((13, 0), GpuDriver("550.54.15", (13, 0)), True),  # with the forward-compatibility package
        ((13, 0), GpuDriver("575.57.08", None), False), ((13, 0), GpuDriver("580.65.06", None), True),
        ((12, 4), GpuDriver("520.61", None), False), ((12, 4), GpuDriver("525.60.13", None), True),
        ((14, 0), GpuDriver("580.65.06", None), True), ((13, 0), GpuDriver(None, None), True),  # nobody knows
        (None, OLD, True), ((13, 0), None, True),
    ],
)  # fmt: skip
def test_the_rules_of_minor_version_compatibility(needed: Any, has: GpuDriver | None, runs: bool) -> None:
    found = refusal("vllm 9.9", needed, has)
    assert (found is None) == runs
    if found:
        assert f"CUDA {needed[0]}.{needed[1]}" in found[0]
        assert "make engines DEVICE=cpu" in found[1]
        assert f"cuda-compat-{needed[0]}-{needed[1]}" in found[1]


def gpu(cuda: str, version: str) -> Gpu:
    return Gpu(
        0, "NVIDIA H100 80GB HBM3", "x", 85 * 10**9, version, cuda, "9.0", persistence=True, processes=0
    )


def test_doctor_does_not_call_it_ok() -> None:
    """With the locks of this checkout, as `servetune doctor` looks at them."""
    found = fitness.gpu(gpu("12.4", "550.54.15"))
    assert found.level == "failed"
    assert "built for CUDA 13.0; driver 550.54.15 runs CUDA up to 12.x" in found.found
    assert found.hint.startswith("install a driver of 580 or newer")
    assert fitness.gpu(gpu("11.4", "470.82")).level == "failed"
    assert fitness.gpu(gpu("13.0", "580.95.05")).level == "ok"


def test_only_the_engines_that_are_to_run_count(tmp_path: Path) -> None:
    twelve = lock(tmp_path, "torch==2.9.0+cu128", name="vllm-0.12.0-cuda.txt")
    thirteen = lock(tmp_path, "torch==2.11.0+cu130")
    levels = [
        fitness.gpu(gpu("12.4", "550.54.15"), locks).level for locks in ([], [twelve], [twelve, thirteen])
    ]
    assert levels == ["ok", "ok", "warning"]


def test_the_installer_refuses_before_it_fetches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "here", lambda: TWELVE)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("something was started"))
    made = Environment("vllm", "9.9", "cuda", tmp_path / "vllm-9.9", lock(tmp_path, "torch==2.11.0+cu130"))
    monkeypatch.setattr(environments, "environments", lambda *a, **k: [made])
    assert environments.main(["install", "vllm", "--device", "cuda"]) == 2
    said = capsys.readouterr().err
    assert "error: vllm 9.9 is built for CUDA 13.0; driver 550.54.15" in said
    assert "hint: install a driver of 580 or newer" in said
    assert not made.folder.exists()


def test_a_plan_refuses_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Environment("vllm", "9.9", "cuda", tmp_path / "vllm-9.9", lock(tmp_path, "torch==2.11.0+cu130"))
    made.folder.mkdir()
    monkeypatch.setattr(environments, "find", lambda *a, **k: made)
    config = ServingConfig(engine="vllm", model="org/m", device="cuda")

    def refused(by: GpuDriver, stamp: str = "{}") -> list[str]:
        (made.folder / STAMP).write_text(stamp)
        monkeypatch.setattr(driver, "here", lambda: by)
        return [text for text in Vllm().problems(config) if "built for CUDA" in text]

    assert refused(NEW) == []
    assert len(refused(TWELVE)) == 1
    assert refused(TWELVE, '{"adopted": "/usr/bin/python3"}') == []


def test_the_driver_is_read_by_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    fake = FakeNvml(card())
    for name in ("nvmlInit", "nvmlShutdown", "nvmlDeviceGetCount", "nvmlSystemGetDriverVersion",
                 "nvmlSystemGetCudaDriverVersion_v2"):  # fmt: skip
        monkeypatch.setattr(pynvml, name, getattr(fake, name))
    driver.here.cache_clear()
    try:
        (seen,) = inventory(fake).gpus
        found = driver.here()
        assert found is not None
        assert (found.version, "{}.{}".format(*(found.cuda or ()))) == (seen.driver, seen.cuda)
    finally:
        driver.here.cache_clear()
