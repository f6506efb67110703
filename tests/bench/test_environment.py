"""The facts of a manifest: read right, null where unknown, and naming nobody."""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from bench.machine import cgroup, environment
from bench.telemetry.gpus import Inventory, inventory
from tests.support.fake_nvml import FakeNvml, card


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = {
    "proc/self/cgroup": "0::/kubepods/pod1/box\n",
    "sys/fs/cgroup/kubepods/pod1/box/cpu.max": "max 100000\n",
    "sys/fs/cgroup/kubepods/pod1/cpu.max": "250000 100000\n",
    "sys/fs/cgroup/kubepods/cpu.max": "800000 100000\n",
    "sys/fs/cgroup/kubepods/pod1/box/memory.max": "2147483648\n",
    "sys/fs/cgroup/kubepods/memory.max": "max\n",
}
V1 = {
    "proc/self/cgroup": "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
    "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "9223372036854771712\n",
}
OPEN = {
    "proc/self/cgroup": "2:cpu:/\n1:memory:/\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
}


@pytest.mark.parametrize(
    ("files", "cores", "size"), [(V2, 2.5, 2**31), (V1, 1.5, 2**30), (OPEN, None, None), ({}, None, None)]
)
def test_limits_of_control_groups(tmp_path, files, cores, size):
    root = write(tmp_path, files)
    assert cgroup.cpu_limit_cores(root) == cores
    assert cgroup.memory_limit_bytes(root) == size


def test_inside_a_container_the_host_path_is_not_there(tmp_path):
    """Its own group is mounted at the top, while /proc/self/cgroup may name the path on the host."""
    root = write(tmp_path, {"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"})
    assert cgroup.cpu_limit_cores(root) == 1.0


def test_usable_is_cut_by_the_limits(tmp_path, monkeypatch):
    root = write(tmp_path, V2)
    monkeypatch.setattr(environment, "_affinity", lambda: [0, 1, 2, 3])
    assert environment.usable_cores(root) == 2.5
    assert environment.usable_memory_bytes(root) == min(2**31, environment.usable_memory_bytes())
    monkeypatch.setattr(environment, "_affinity", lambda: [3])
    assert environment.usable_cores(root) == 1.0


MACHINE = V2 | {
    "proc/cpuinfo": "model name\t: Fast CPU\nflags\t\t: avx2 amx_bf16 hypervisor\n\nprocessor\t: 1\n",
    "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "1\n",
    "sys/devices/system/cpu/smt/active": "1\n",
    "sys/devices/system/node/node0/x": "",
    "sys/devices/system/node/node1/x": "",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "run/.containerenv": "",
}


def test_facts_of_a_machine(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    facts = environment.environment(write(tmp_path, MACHINE), Inventory((), "no driver"))
    cpu = facts["cpu"]
    assert (cpu["model"], cpu["flags"], cpu["virtual"]) == ("Fast CPU", ["avx2", "amx_bf16"], True)
    assert (cpu["governors"], cpu["turbo"], cpu["smt"]) == (["performance", "powersave"], False, True)
    assert (cpu["numa_nodes"], cpu["quota_cores"]) == (2, 2.5)
    assert (facts["os"]["clock_source"], facts["os"]["container"]) == ("hpet", "podman")
    assert (facts["memory"]["limit_bytes"], facts["memory"]["huge_pages"]) == (2**31, "madvise")
    assert facts["limits"]["ephemeral_ports"] == [32768, 60999]
    assert (facts["gpus"], facts["gpus_reason"]) == ([], "no driver")
    assert facts["packages"]["numpy"]


def test_a_machine_that_tells_nothing_gives_nulls(tmp_path):
    facts = environment.environment(tmp_path, Inventory(()))
    unknown = ("model", "quota_cores", "numa_nodes", "smt", "turbo", "virtual")
    assert {facts["cpu"][name] for name in unknown} == {None}
    assert facts["limits"]["ephemeral_ports"] is None


def test_gpus_are_described_without_their_serial(tmp_path):
    facts = environment.environment(tmp_path, inventory(FakeNvml(card())))
    (gpu,) = facts["gpus"]
    assert (gpu["name"], gpu["driver"], gpu["cuda"]) == ("NVIDIA H200", "580.95.05", "13.0")
    assert "GPU-0000" not in json.dumps(facts)


def test_nothing_names_a_person_or_a_place(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "/home/someone/lib/libtcmalloc.so:/opt/b.so")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    text = json.dumps(environment.environment(found=Inventory(())))
    assert "libtcmalloc.so:b.so" in text
    for private in ("someone", "hf_secret", str(Path.home()), str(environment.PROJECT)):
        assert private not in text
    host = socket.gethostname()
    if len(host) > 3:  # a shorter one is part of other words
        assert f'"{host}"' not in text
    assert f'"{getpass.getuser()}"' not in text


def test_git_state(tmp_path):
    def git(*arguments):
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            check=True,
            capture_output=True,
        )

    assert environment.git_state(tmp_path) == {"commit": None, "dirty": None}
    git("init", "-q")
    assert environment.git_state(tmp_path) == {"commit": None, "dirty": False}
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "one")
    clean = environment.git_state(tmp_path)
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "file").write_text("2")
    assert environment.git_state(tmp_path) == {"commit": clean["commit"], "dirty": True}
    (tmp_path / "inner").mkdir()
    assert environment.git_state(tmp_path / "inner") == {"commit": None, "dirty": None}


def test_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.git_state(environment.PROJECT) == {"commit": None, "dirty": None}


def test_affinity_is_that_of_this_process():
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system has no affinity")
    assert set(environment.environment(found=Inventory(()))["cpu"]["affinity"]) == os.sched_getaffinity(0)
