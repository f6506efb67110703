"""Quantization support: every row is reachable, every answer has a reason, versions bound what they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.costmodel import quantization
from serving.costmodel.support import CHECKPOINTS, METHODS, ONLINE, SUPPORT, SupportRow, find, supported

VERSIONS = ("0.24.0", "0.27.9", "0.28.0", "0.32.0+cpu", "5.23.0")


@pytest.mark.parametrize("row", SUPPORT, ids=lambda r: f"{r.engine}-{r.device}-{r.method}-{r.since or ''}")
def test_a_row_is_found_in_its_versions_and_not_outside(row: SupportRow) -> None:
    assert row.method in METHODS
    assert row.reason
    inside = [v for v in VERSIONS if find(row.engine, v, row.device, row.method) is row]
    assert inside
    if row.until is not None:
        assert find(row.engine, row.until, row.device, row.method) is not row
    if row.since is not None:
        assert find(row.engine, row.since, row.device, row.method) is row


@given(
    st.sampled_from(("vllm", "transformers")),
    st.sampled_from(VERSIONS),
    st.sampled_from(("cpu", "cuda")),
    st.sampled_from(METHODS),
)
def test_at_most_one_row_applies(engine: str, version: str, device: str, method: str) -> None:
    applying = [row for row in SUPPORT if find(engine, version, device, method) is row]
    assert len(applying) <= 1
    reason = supported(engine, version, device, method)
    assert (reason is None) == bool(applying and applying[0].status != "fails")


def test_what_was_seen_to_fail_on_the_cpu_says_why() -> None:
    assert "0 layers" in str(supported("vllm", "0.32.0", "cpu", "int8"))
    assert "kernel" in str(supported("vllm", "0.32.0", "cpu", "w8a16"))
    assert supported("vllm", "0.32.0", "cpu", "w8a8") is None


def test_bitsandbytes_left_vllm_at_0_28() -> None:
    assert supported("vllm", "0.24.0", "cuda", "bitsandbytes") is None
    assert "0.28" in str(supported("vllm", "0.28.0", "cuda", "bitsandbytes"))
    assert supported("transformers", "5.23.0", "cpu", "bnb-4bit") is None


def test_a_method_of_another_engine_lists_what_this_one_has() -> None:
    reason = str(supported("transformers", "5.23.0", "cpu", "w8a8"))
    assert "bnb-4bit" in reason


def test_untested_is_not_unsupported() -> None:
    row = find("vllm", "0.32.0", "cpu", "awq")
    assert row is not None
    assert row.status == "untested"
    assert supported("vllm", "0.32.0", "cpu", "awq") is None


def test_an_unknown_method_names_the_nearest() -> None:
    assert "'bnb-4bit'" in str(supported("transformers", "5.23.0", "cpu", "bnb_4bit"))


def test_capability_is_checked_where_it_is_known() -> None:
    assert "7.5" in str(supported("vllm", "0.32.0", "cuda", "fp8", capability=70))
    assert supported("vllm", "0.32.0", "cuda", "fp8", capability=90) is None
    assert supported("vllm", "0.32.0", "cuda", "fp8", capability=None) is None


def test_every_method_has_a_known_size() -> None:
    assert ONLINE.isdisjoint(CHECKPOINTS)
    for method in METHODS:
        assert quantization.find(method) is not None, method
