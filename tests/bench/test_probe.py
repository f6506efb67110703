"""The sampler: what it yields beside a load, and what it says where there is nothing to yield."""

from __future__ import annotations

import itertools
import os
import threading
import time

import pytest

from bench.telemetry import gpuprobe, scrape
from bench.telemetry.gpuprobe import GpuProbe
from bench.telemetry.host import Tree
from bench.telemetry.nvml import Nvml
from bench.telemetry.probe import Sampler
from tests.support.fake_nvml import FakeNvml, FakeNVMLError, card, process
from tests.support.metrics_server import scripted

ME = os.getpid()
INIT = 1
NOBODY = 2**22 + 1
"""No process has it: pid_max is at most 2^22."""


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(scrape, "LONGEST_PAUSE_S", 0.0)
    monkeypatch.setattr(gpuprobe, "_update_periods_s", {"GPU-0000": 0.1, "GPU-1": None})


def names(samples):
    return {sample.name for sample in samples}


def values(samples):
    return {sample.name: sample.value for sample in samples}


def gpu_probe(*cards, gpus=None):
    return GpuProbe(Nvml(FakeNvml(*cards)), Tree(ME), gpus)


def test_memory_of_our_processes_and_the_number_of_others():
    probe = gpu_probe(card(processes=[process(ME, 3 * 2**30), process(INIT, 2**30)]))
    found = values(probe.read())
    assert found["gpu0_memory_bytes"] == 3 * 2**30
    assert found["gpu0_other_processes"] == 1
    assert found["gpu0_energy_update_period_s"] == 0.1
    assert "gpu0_energy_update_period_s" not in values(probe.read())


def test_hidden_memory_is_absent_and_noted():
    probe = gpu_probe(card(processes=[process(ME, None)]))
    found = values(probe.read())
    assert "gpu0_memory_bytes" not in found
    assert found["gpu0_other_processes"] == 0
    assert ["gpu0_memory_bytes" in note for note in probe.notes] == [True]


def test_pids_of_another_namespace_are_not_called_others():
    probe = gpu_probe(card(processes=[process(NOBODY, 2**30)]))
    found = values([*probe.read(), *probe.read()])
    assert not {"gpu0_memory_bytes", "gpu0_other_processes"} & found.keys()
    assert [note for note in probe.notes if "pid namespace" in note] == probe.notes


def test_an_engine_not_yet_on_the_card_leaves_only_others():
    found = values(gpu_probe(card(processes=[process(INIT, 2**30)])).read())
    assert found["gpu0_other_processes"] == 1
    assert "gpu0_memory_bytes" not in found


def test_only_the_cards_of_the_engine_are_watched():
    busy, idle = card(processes=[process(ME, 1)], uuid="GPU-1"), card()
    assert {name[:4] for name in names(gpu_probe(idle, busy).read())} == {"gpu1"}
    assert {name[:4] for name in names(gpu_probe(idle, busy, gpus=[0]).read())} == {"gpu0"}


def test_all_cards_when_the_engine_is_seen_on_none():
    probe = gpu_probe(card(), card(uuid="GPU-1"))
    assert {name[:4] for name in names(probe.read())} == {"gpu0", "gpu1"}
    assert "all 2 are watched" in probe.notes[0]


def test_a_card_asked_for_that_is_not_there():
    probe = gpu_probe(card(), gpus=[0, 3])
    assert probe.notes == ["gpu3 not available: the driver shows [0]"]


def test_a_counter_that_goes_back_is_noted():
    counter = iter([5_000, 6_000, 100, 200])
    probe = gpu_probe(card(energy_mj=lambda: next(counter)))
    energies = [values(probe.read())["gpu0_energy_j"] for _ in range(4)]
    assert energies == [5, 6, 0.1, 0.2]
    assert [note for note in probe.notes if "went back" in note] == probe.notes


def test_unknown_fields_are_noted_at_the_end():
    probe = gpu_probe(card(energy_mj=None, power_mw=0))
    probe.read()
    assert probe.notes == []
    assert not {"gpu0_energy_j", "gpu0_power_w"} & names(probe.read(last=True))
    assert [note.split(":")[0] for note in probe.notes] == [
        "gpu0_energy_j not available",
        "gpu0_power_w not available",
    ]


def test_a_whole_run_on_a_gpu():
    fake = FakeNvml(card(processes=[process(ME, 5)]))
    with (
        scripted(lambda path: (200, "# TYPE q gauge\nq 2\n")) as url,
        Sampler(ME, url, "cuda", interval_s=0.02, nvml=fake) as sampler,
    ):
        assert fake.sessions == 1
        wait_for(lambda: sum(s.name == "server:q" for s in sampler.samples()) >= 4)
    assert fake.sessions == 0
    assert {"cpu_share", "gpu0_power_w", "gpu0_memory_bytes", "server:q", "sampler_cpu_s"} <= names(
        sampler.samples()
    )
    assert names(sampler.samples()) & {"rss_bytes"}
    assert sampler.cpu_s > 0
    assert sampler.elapsed_s > 0.06


def test_times_count_from_the_origin_and_are_in_order():
    with Sampler(ME, None, "cpu", interval_s=0.01) as sampler:
        origin = time.monotonic()
        wait_for(lambda: len(sampler.samples()) >= 12)
    times = [sample.t_s for sample in sampler.samples(origin)]
    assert times == sorted(times)
    assert times[0] < 0 < times[-1]


def test_without_gpu_no_gpu_series_and_the_reason():
    none = FakeNvml(init=FakeNVMLError("Driver Not Loaded"))
    with Sampler(ME, None, "cuda", nvml=none) as sampler:
        pass
    assert not [n for n in names(sampler.samples()) if n.startswith("gpu")]
    assert [n for n in sampler.notes if "GPU series not available" in n and "Driver Not Loaded" in n]


def test_on_cpu_nvml_is_not_asked():
    with Sampler(ME, None, "cpu", nvml=FakeNvml(init=AssertionError())) as sampler:
        pass
    assert "GPU series not available: the engine runs on the CPU" in sampler.notes


def test_a_server_we_did_not_start():
    with scripted(lambda path: (404, "")) as url, Sampler(None, url, "cuda", nvml=FakeNvml()) as sampler:
        pass
    assert names(sampler.samples()) == {"sampler_cpu_s"}
    assert len([n for n in sampler.notes if "not available" in n]) == 2


def test_metrics_can_be_left_out():
    asked = []
    with (
        scripted(lambda path: asked.append(path)) as url,
        Sampler(ME, url, "cpu", metrics=False) as sampler,
    ):
        pass
    assert asked == []
    assert not [n for n in names(sampler.samples()) if n.startswith("server:")]


def test_a_server_that_hangs_does_not_hold_up_the_machine_readings():
    released = threading.Event()
    first = itertools.count()

    def answer(path):
        if next(first) == 2:  # the first during the load; two are taken before it
            released.wait(30)
        return 200, "# TYPE q gauge\nq 2\n"

    with scripted(answer) as url:
        sampler = Sampler(ME, url, "cpu", interval_s=0.01)
        with sampler:
            wait_for(lambda: sum(s.name == "cpu_share" for s in sampler.samples()) >= 5)
            assert sum(s.name == "server:q" for s in sampler.samples()) == 2
            released.set()


def test_a_fault_of_ours_is_not_swallowed(monkeypatch):
    sampler = Sampler(ME, None, "cpu", interval_s=0.01)
    broke = threading.Event()

    def read(last=False):
        if not last:
            broke.set()
            raise ZeroDivisionError
        return []

    sampler.__enter__()
    monkeypatch.setattr(sampler._machine[0], "read", read)
    assert broke.wait(10)
    with pytest.raises(ZeroDivisionError):
        sampler.__exit__(None, None, None)


def test_an_error_of_the_load_comes_first_and_nothing_stays_open():
    fake = FakeNvml(card())
    before = threading.active_count()
    with pytest.raises(KeyError), Sampler(ME, None, "cuda", nvml=fake):
        raise KeyError
    assert fake.sessions == 0
    assert threading.active_count() == before


def wait_for(condition, timeout_s=20.0):
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)
