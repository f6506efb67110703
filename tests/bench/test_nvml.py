"""NVML answers field by field: what is known is a number with its unit, what is not is absent."""

from __future__ import annotations

import hashlib
import itertools

import pynvml
import pytest

from bench.telemetry.gpus import gpus_visible, inventory
from bench.telemetry.nvml import SLOWDOWNS, THROTTLE_REASONS, UnavailableError, session, throttle_text
from tests.support.fake_nvml import CONSTANTS, OTHERS, QUESTIONS, FakeNvml, FakeNVMLError, card, process


@pytest.mark.parametrize("name", [*QUESTIONS, *OTHERS, *CONSTANTS, "NVMLError"])
def test_the_fake_has_only_what_pynvml_has(name):
    assert hasattr(pynvml, name)


def test_throttle_bits_are_those_of_nvml():
    real = {getattr(pynvml, n) for n in dir(pynvml) if n.startswith("nvmlClocksEventReason")}
    single = {bit for bit in real if bit and bit & (bit - 1) == 0}
    assert single == set(THROTTLE_REASONS)
    assert SLOWDOWNS & pynvml.nvmlClocksEventReasonHwThermalSlowdown
    assert not SLOWDOWNS & pynvml.nvmlClocksEventReasonGpuIdle
    assert throttle_text(0x44) == "power cap, hardware thermal slowdown"
    assert throttle_text(0) == "none"
    assert throttle_text(0x1000) == "0x1000"


def test_units():
    with session(FakeNvml(card(energy_mj=2_500))) as nvml:
        found = nvml.read(0, nvml.handle(0))
    assert found == {
        "memory_total_used_bytes": 40 * 2**30,
        "power_w": 312.5,
        "energy_j": 2.5,
        "utilization_share": 0.87,
        "sm_clock_mhz": 1980,
        "temperature_c": 54,
        "throttle_reasons": 0,
    }


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("memory", "memory_total_used_bytes"),
        ("power_mw", "power_w"),
        ("energy_mj", "energy_j"),
        ("utilization", "utilization_share"),
        ("clock", "sm_clock_mhz"),
        ("temperature", "temperature_c"),
        ("reasons", "throttle_reasons"),
    ],
)
def test_each_field_may_be_unknown_alone(field, name):
    with session(FakeNvml(card(**{field: None}))) as nvml:
        found = nvml.read(0, nvml.handle(0))
        assert name not in found
        assert len(found) == 6
        assert nvml.missing == {f"gpu0_{name}": "Not Supported"}


@pytest.mark.parametrize(
    ("field", "name"), [("power_mw", "power_w"), ("energy_mj", "energy_j"), ("clock", "sm_clock_mhz")]
)
def test_zero_means_unknown(field, name):
    with session(FakeNvml(card(**{field: 0}))) as nvml:
        assert name not in nvml.read(0, nvml.handle(0))
        assert "unknown" in nvml.missing[f"gpu0_{name}"]


def test_zero_utilization_is_a_reading():
    idle = card()
    idle["utilization"].gpu = 0
    with session(FakeNvml(idle)) as nvml:
        assert nvml.read(0, nvml.handle(0))["utilization_share"] == 0


def test_throttle_reasons_under_their_old_name():
    with session(FakeNvml(card(reasons=None, old_reasons=0x4))) as nvml:
        assert nvml.read(0, nvml.handle(0))["throttle_reasons"] == 4
        assert nvml.missing == {}


def test_processes_with_hidden_memory_and_mps_clients():
    one = card(processes=[process(10, None), process(11, 5)], mps_processes=[process(12, 7)])
    with session(FakeNvml(one)) as nvml:
        assert nvml.processes(0, nvml.handle(0)) == {10: None, 11: 5, 12: 7}


def test_processes_unknown_is_not_none_there():
    with session(FakeNvml(card(processes=FakeNVMLError("Insufficient Permissions")))) as nvml:
        assert nvml.processes(0, nvml.handle(0)) is None


def test_update_period_is_that_of_the_steps(monkeypatch):
    clock = itertools.count(0, 0.01)
    now = [0.0]

    def tick(_seconds):
        now[0] = next(clock)

    monkeypatch.setattr("bench.telemetry.nvml.time.sleep", tick)
    monkeypatch.setattr("bench.telemetry.nvml.time.monotonic", lambda: now[0])
    moving = card(energy_mj=lambda: 1000 + int(now[0] / 0.1))
    still, unknown = card(energy_mj=5), card(energy_mj=None)
    with session(FakeNvml(moving, still, unknown)) as nvml:
        periods = nvml.energy_update_periods_s(list(nvml.handles().values()))
    assert periods[0] == pytest.approx(0.1, abs=0.011)
    assert periods[1:] == [None, None]


def test_no_driver():
    none = FakeNvml(init=FakeNVMLError("Driver Not Loaded"))
    with pytest.raises(UnavailableError, match="Driver Not Loaded"), session(none):
        pass
    found = inventory(none)
    assert found.gpus == ()
    assert "Driver Not Loaded" in found.reason
    assert gpus_visible(none) == []


def test_inventory_of_two_cards():
    fake = FakeNvml(
        card(processes=[process(1, 1)]), card(name="NVIDIA L4", uuid="GPU-1", mig=None, ecc=[0, 1])
    )
    first, second = gpus_visible(fake)
    assert (first.name, first.index, first.compute_capability, first.cuda) == (
        "NVIDIA H200",
        0,
        "9.0",
        "13.0",
    )
    assert (first.memory_bytes, first.power_limit_w, first.processes) == (139 * 2**30, 700.0, 1)
    assert (first.mig, first.ecc, first.persistence) == (False, True, True)
    assert (second.index, second.mig, second.ecc) == (1, None, False)
    assert first.digest == hashlib.sha256(b"GPU-0000").hexdigest()[:8]
    assert first.state["ecc_uncorrected_errors"] == 0
    assert fake.sessions == 0


def test_a_lost_card_does_not_hide_the_others():
    found = inventory(FakeNvml(card(lost=True), card()))
    assert [gpu.index for gpu in found.gpus] == [1]
    assert "lost" in inventory(FakeNvml(card(lost=True))).reason


def test_the_session_is_closed_after_an_error():
    fake = FakeNvml(card())
    with pytest.raises(RuntimeError), session(fake):
        raise RuntimeError
    assert fake.sessions == 0
