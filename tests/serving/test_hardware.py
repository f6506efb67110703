"""Devices: figures in one place, with their source, found by the names people and drivers use."""

from __future__ import annotations

import re
from datetime import date

import pytest

from serving.costmodel import hardware
from serving.costmodel.hardware import GIB, HARDWARE


@pytest.mark.parametrize("row", HARDWARE.values(), ids=lambda row: row.name)
def test_every_row_is_complete_and_sourced(row: hardware.Hardware) -> None:
    assert HARDWARE[row.name] is row
    assert re.search(r"NVIDIA .+ data sheet \(|docs/\w+\.md", row.source), (
        "a data sheet, or where the fit is told"
    )
    assert date.fromisoformat(row.date) >= date(2023, 1, 1)
    assert row.memory_bytes > 8 * GIB
    assert row.bandwidth_bytes_per_s > 1e9
    assert 0 < row.reach_bandwidth <= 1
    assert 0 < row.reach_rate <= 1
    assert row.rate_per_s("fp32") is not None
    assert row.layer_eager_s >= row.layer_s
    assert (row.capability is None) == (row.device == "cpu")


def test_peaks_are_dense_as_the_data_sheets_give_them() -> None:
    h200, l4, t4 = HARDWARE["h200"], HARDWARE["l4"], HARDWARE["t4"]
    assert h200.bandwidth_bytes_per_s == 4.8e12
    assert h200.rate_per_s("bf16") == 989.5e12
    assert h200.rate_per_s("fp8") == 1979e12
    assert l4.rate_per_s("bf16") == 121e12
    assert t4.rate_per_s("bf16") is None
    assert HARDWARE["a100-80g"].rate_per_s("fp8") is None


@pytest.mark.parametrize(
    ("name", "row"),
    [("H200", "h200"), ("h100", "h100-sxm"), ("A100", "a100-80g"), (" l4 ", "l4"), ("cpu", "cpu-2core")],
)
def test_names_people_use(name: str, row: str) -> None:
    found = hardware.find(name)
    assert found is not None
    assert found.name == row


def test_an_unknown_name_is_none_and_has_a_neighbour() -> None:
    assert hardware.find("h20") is None
    assert hardware.nearest("h20") == "h200"
    assert hardware.nearest("zzzz") is None


@pytest.mark.parametrize(
    ("driver", "mib", "row"),
    [
        ("NVIDIA H200", 143771, "h200"),
        ("NVIDIA H100 80GB HBM3", 81559, "h100-sxm"),
        ("NVIDIA A100-SXM4-80GB", 81920, "a100-80g"),
        ("NVIDIA L40S", 46068, "l40s"),
        ("NVIDIA L4", 23034, "l4"),
        ("Tesla T4", 15360, "t4"),
        ("NVIDIA H100 PCIe", 81559, None),
        ("NVIDIA H100 NVL", 95830, None),
        ("NVIDIA A100-SXM4-40GB", 40960, None),
        ("NVIDIA GeForce RTX 4090", 24564, None),
    ],
)
def test_names_drivers_use(driver: str, mib: int, row: str | None) -> None:
    found = hardware.of_driver_name(driver, mib * 2**20)
    assert (found.name if found else None) == row
    if found:
        assert found.memory_bytes <= mib * 2**20


def test_the_cpu_takes_the_hosts_memory() -> None:
    assert hardware.cpu(7 * GIB).memory_bytes == 7 * GIB
