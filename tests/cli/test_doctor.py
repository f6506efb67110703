"""Each check of the doctor is provoked by facts that are given to it; none by the machine it runs on."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

from bench.machine import checks, fitness, readiness
from bench.machine.fitness import GIB, MachineCheck, MachineFacts
from bench.scenario import scenariofile
from bench.telemetry.gpus import Inventory, inventory
from servetune.cli import doctor
from serving.errors import UserError
from tests.support.fake_nvml import FakeNvml, FakeNVMLError, card, process

GOOD = {
    "python": {"version": "3.11.7"},
    "os": {"clock_source": "tsc"},
    "cpu": {
        "usable_cores": 8.0,
        "logical_cores": 8,
        "model": "Fast CPU",
        "quota_cores": None,
        "governors": ["performance"],
        "load_average_1min": 0.1,
    },
    "memory": {"available_bytes": 30 * GIB, "usable_bytes": 32 * GIB, "limit_bytes": None},
    "limits": {"open_files": [65536, 65536], "ephemeral_ports": [32768, 60999]},
}
FACTS = MachineFacts(environment=GOOD, gpus=Inventory((), "no driver"), shm_bytes=8 * GIB)


def facts(**changes):
    """FACTS with changes; `cpu__governors=[...]` reaches into the environment."""
    environment = {part: dict(values) for part, values in GOOD.items()}
    plain = {}
    for name, value in changes.items():
        if "__" in name:
            part, key = name.split("__")
            environment[part][key] = value
        else:
            plain[name] = value
    return replace(FACTS, environment=environment, **plain)


def by_name(checks):
    return {check.name: check for check in checks}


def test_a_good_machine_has_nothing_to_say():
    assert [c for c in fitness.machine_checks(FACTS) if c.level != "ok" or c.hint] == []


PROVOKED = [
    ("python", "failed", {"python": (3, 10)}, "3.10"),
    ("cpu", "warning", {"cpu__governors": ["performance", "powersave"]}, "powersave"),
    ("cpu", "warning", {"cpu__usable_cores": 1.0, "cpu__quota_cores": 1.0}, "share one core"),
    ("cpu idle", "warning", {"busy_share": 0.6, "busiest": ["train.py 7: 180%"]}, "train.py"),
    ("memory", "failed", {"memory__available_bytes": 2 * GIB}, "2.0 GiB free"),
    (
        "memory",
        "failed",
        {"memory__usable_bytes": GIB, "memory__limit_bytes": GIB},
        "limited by the container",
    ),
    ("memory", "warning", {"memory__available_bytes": 5 * GIB}, "vLLM on CPU"),
    ("open files", "warning", {"limits__open_files": [256, None], "concurrency": 512}, "512 requests"),
    ("open files", "failed", {"limits__open_files": [64, 64]}, "too few"),
    ("ports", "warning", {"limits__ephemeral_ports": [60000, 60999]}, "1000 local ports"),
    ("ports", "warning", {"concurrency": 20000, "limits__open_files": [None, None]}, "20000 requests"),
    ("shared memory", "warning", {"shm_bytes": 64 * 2**20}, "little for vLLM"),
    ("shared memory", "warning", {"shm_bytes": None}, "no /dev/shm"),
    ("clock", "warning", {"os__clock_source": "acpi_pm"}, "acpi_pm"),
    ("compiler", "warning", {"missing_tools": ["g++"]}, "no g++"),
    ("gpu", "warning", {"nvidia_device": True}, "cannot be asked"),
]


@pytest.mark.parametrize(("name", "level", "changes", "text"), PROVOKED)
def test_each_check_is_provoked_alone(name, level, changes, text):
    found = by_name(fitness.machine_checks(facts(**changes)))
    assert found[name].level == level
    assert text in found[name].found
    assert found[name].hint
    assert [c.name for c in found.values() if c.level != "ok"] == [name]


def test_a_hard_limit_changes_the_hint():
    possible = fitness.open_files(facts(limits__open_files=[256, 4096], concurrency=1000))
    assert possible.hint == "ulimit -n 4096"
    held = fitness.open_files(facts(limits__open_files=[256, 256], concurrency=1000))
    assert "--ulimit nofile=1256" in held.hint


def test_proxies_are_said_and_are_no_fault():
    found = fitness.proxies(facts(proxies=["HTTPS_PROXY"]))
    assert (found.level, "HTTPS_PROXY" in found.found) == ("ok", True)


def gpu_check(**changes):
    (found,) = fitness.gpus(facts(gpus=inventory(FakeNvml(card(**changes)))))
    return found


def test_a_healthy_gpu():
    found = gpu_check(reasons=0x1)
    assert (found.name, found.level, found.hint) == ("gpu 0", "ok", "")
    assert found.found == "NVIDIA H200, 139 GiB, driver 580.95.05, CUDA 13.0, capability 9.0"


@pytest.mark.parametrize(
    ("changes", "text", "hint"),
    [
        ({"ecc_errors": 3}, "3 uncorrected memory errors", "-q -d ECC"),
        ({"processes": [process(1, 2)]}, "1 other processes", "--query-compute-apps"),
        ({"reasons": 0x40}, "hardware thermal slowdown", "PERFORMANCE"),
        ({"temperature": 85}, "85 degrees", "TEMPERATURE"),
        ({"persistence": 0}, "persistence mode off", "-pm 1"),
        ({"pcie_width": 4}, "PCIe x4 of x16", "Link Width"),
    ],
)
def test_each_state_of_a_gpu_is_provoked(changes, text, hint):
    found = gpu_check(**changes)
    assert found.level == "warning"
    assert text in found.found
    assert hint in found.hint


def test_a_gpu_that_tells_nothing_is_no_alarm():
    unknown = ("ecc_errors", "processes", "reasons", "temperature", "persistence", "pcie_width", "memory")
    assert gpu_check(**dict.fromkeys(unknown)).level == "ok"


def test_no_driver_is_no_alarm_and_says_why():
    found = fitness.gpus(facts(gpus=inventory(FakeNvml(init=FakeNVMLError("Driver Not Loaded")))))
    assert [(c.name, c.level) for c in found] == [("gpu", "ok")]
    assert "Driver Not Loaded" in found[0].found


def lock(tmp_path, text):
    (tmp_path / "requirements.lock").write_text(textwrap.dedent(text))
    return readiness.packages(tmp_path)


def test_packages_against_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(readiness, "_version", {"numpy": "2.4.6", "extra-tool": "1"}.get)
    monkeypatch.setattr(readiness, "_needed", lambda: {"numpy", "scipy"})
    assert readiness.packages(tmp_path).level == "ok"
    elsewhere = "numpy==2.4.6 \\\n    --hash=x\nelsewhere==1 ; sys_platform == 'win32' \\\n"
    assert lock(tmp_path, elsewhere).level == "ok"
    by_python = "numpy==2.4.6 ; python_version < '3.12' \\\nnumpy==2.5.5 ; python_version >= '3.12' \\\n"
    assert lock(tmp_path, by_python).level == "ok"
    found = lock(tmp_path, "numpy==2.4.7 \\\n")
    assert (found.level, found.found) == ("warning", "not as locked: numpy 2.4.6 (locked: 2.4.7)")
    found = lock(tmp_path, "numpy==2.4.6 \\\nscipy==1 \\\nof-the-tests==1 \\\n")
    assert (found.level, found.found, found.hint) == ("failed", "not installed: scipy", "make setup")


SCENARIO = """\
schema: 1
name: small
question: does it run?
model: {{name: m, path: {path}, tokenizer: none, checkpoints: {{w8a8: {w8a8}, w4a16: nowhere}}}}
engines: [{{engine: vllm, grid: {{quantization: [none, w8a8]}}}}]
workloads: [{{name: chat, concurrency: 4, requests: 8}}]
"""


def scenario(tmp_path, path, w8a8):
    file = tmp_path / "small.yaml"
    file.write_text(SCENARIO.format(path=path, w8a8=w8a8))
    return scenariofile.load(file)


def test_weights_there_to_be_made_to_be_downloaded_or_missing(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.json").write_text("{}")
    (tmp_path / "m/model.safetensors").write_bytes(bytes(10**7))
    there, made = readiness.model(scenario(tmp_path, tmp_path / "m", ".models/none-such-w8a8"))
    assert (there.level, "0.01 GiB" in there.found) == ("ok", True)
    assert (made.name, made.level, made.hint) == ("weights w8a8", "warning", "make variants")
    hub, missing = readiness.model(scenario(tmp_path, "some/model", tmp_path / "gone"))
    assert (hub.level, "from the hub" in hub.found) == ("ok", True)
    assert (missing.level, "no folder" in missing.found) == ("failed", True)
    (tmp_path / "m/config.json").unlink()
    assert readiness.model(scenario(tmp_path, tmp_path / "m", "a/b"))[0].level == "failed"


@pytest.mark.parametrize(
    ("free", "set_up", "level"),
    [
        (GIB // 8, True, "failed"),
        (GIB // 2, True, "warning"),
        (4 * GIB, True, "ok"),
        (4 * GIB, False, "failed"),
        (20 * GIB, False, "ok"),
    ],
)
def test_disk(tmp_path, monkeypatch, free, set_up, level):
    asked = []

    class Usage:
        def __init__(self, place):
            asked.append(place)
            self.free = free

    monkeypatch.setattr(readiness.shutil, "disk_usage", Usage)
    assert readiness.disk(tmp_path / "not/yet", set_up).level == level
    assert asked == [tmp_path]


def test_engines_say_their_version_or_why_not():
    ok, gone = readiness.engines({"vllm": "0.32.0"}, {"vllm": [], "transformers": ["is not installed"]})
    assert (ok.level, ok.found) == ("ok", "0.32.0")
    assert (gone.level, gone.found, gone.hint) == ("warning", "is not installed", "make engines")


def test_engine_processes_of_a_run_and_those_left_behind(tmp_path, monkeypatch):
    folder = tmp_path / ".engines/vllm-1/bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    assert readiness.leftovers(tmp_path).level == "ok"
    waiting = [str(folder / "python"), "-c", "print(flush=True); input()"]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as engine:
        engine.stdout.readline()
        of_a_run = readiness.leftovers(tmp_path)
        monkeypatch.setattr(readiness, "_of_a_run", lambda process: False)
        left = readiness.leftovers(tmp_path)
        engine.communicate(b"\n")
    assert (of_a_run.level, "in progress" in of_a_run.found) == ("warning", True)
    assert (left.level, left.hint) == ("warning", f"kill {engine.pid}")
    assert readiness.leftovers(tmp_path).level == "ok"


def test_a_process_of_init_is_of_no_run():
    assert not readiness._of_a_run(psutil.Process(1))


def show(monkeypatch, *checks, capsys, json_to=None):
    monkeypatch.setattr(doctor, "checks", lambda file: list(checks))
    status = doctor.doctor(None, json_to)
    return status, capsys.readouterr()


FINE = MachineCheck("cpu", "ok", "8 cores")
WARNED = MachineCheck("disk", "warning", "nearly full [red]", "df -h")
FAILED = MachineCheck("memory", "failed", "1 GiB", "buy some")


def test_exit_status_and_table(monkeypatch, capsys):
    status, said = show(monkeypatch, FINE, WARNED, capsys=capsys)
    assert status == 0
    assert "nearly full [red]" in said.out
    assert "df -h" in said.out
    status, said = show(monkeypatch, FINE, FAILED, capsys=capsys)
    assert status == 1
    assert "cannot run here" in said.out


def test_json(monkeypatch, capsys, tmp_path):
    status, said = show(monkeypatch, FINE, WARNED, capsys=capsys, json_to="-")
    data = json.loads(said.out)
    assert (status, data["ok"]) == (0, True)
    assert data["checks"][1] == {
        "name": "disk", "ok": True, "level": "warning", "found": "nearly full [red]", "hint": "df -h"
    }  # fmt: skip
    status, said = show(monkeypatch, FAILED, capsys=capsys, json_to=str(tmp_path / "d.json"))
    assert json.loads((tmp_path / "d.json").read_text())["ok"] is False
    assert "memory" in said.out


def test_a_plan_with_nothing_left_is_failed_only_once_engines_are_installed(tmp_path):
    def nothing(scenario):
        raise UserError("nothing is left to run", "servetune doctor says what is missing")

    asked = scenario(tmp_path, "a/b", "a/b")
    assert readiness.job(asked, nothing, set_up=True).level == "failed"
    first = readiness.job(asked, nothing, set_up=False)
    assert (first.level, first.hint) == ("warning", "make bench")


def planned(engine, *reasons):
    launches = [
        SimpleNamespace(config=SimpleNamespace(engine=engine, quantization=kind)) for kind in ("none", "w8a8")
    ]
    dropped = [SimpleNamespace(reason=reason) for reason in reasons]
    return SimpleNamespace(launches=launches, points=range(8), dropped=dropped, estimated_s=300)


def test_a_plan_says_what_runs_and_what_is_left_out(tmp_path):
    asked = scenario(tmp_path, "a/b", "a/b")
    found = readiness.job(asked, lambda _: planned("vllm", "no kernel", "no kernel"), set_up=True)
    assert (found.name, found.level) == ("scenario small", "ok")
    assert found.found == "8 points in 2 launches, about 5 min (vllm: none, w8a8); left out: no kernel"
    other = readiness.job(asked, lambda _: planned("transformers"), set_up=True)
    assert (other.level, "nothing of vllm" in other.found) == ("warning", True)


def test_looking_takes_under_two_seconds_and_yields_facts():
    looked = checks.facts(None)
    assert 0 <= looked.busy_share <= 1
    assert looked.environment["cpu"]["logical_cores"] >= 1
    assert fitness.machine_checks(looked)
