"""The load client against a server whose timings are known: every case it can get wrong, with a tolerance."""

from __future__ import annotations

import pytest

from bench.proof.conformance import EXPECTED, CaseResult, check, scripted_server
from bench.testservers.cases import CASES


@pytest.fixture(scope="module")
def url():  # type: ignore[no-untyped-def]
    with scripted_server() as found:
        yield found


def test_every_case_has_an_expectation() -> None:
    assert set(EXPECTED) == set(CASES)


@pytest.mark.parametrize("name", EXPECTED)
def test_case(url: str, name: str) -> None:
    outcome: CaseResult = check(url, name)
    assert not outcome.wrong, "; ".join(outcome.wrong)
