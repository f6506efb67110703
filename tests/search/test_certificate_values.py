"""A certificate from the floor, the spot check and what is shared: which of them decides."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.evaluation import store
from bench.plan.evaluations import Evaluating
from search.finals.certify import Certificate, _judged, alike, asked
from serving.claims import Claim


def floor(verdict: str = "PASS", *reasons: str) -> Any:
    return SimpleNamespace(verdict=verdict, reasons=list(reasons), worst=None, needed=None, claims=())


SAME = Claim("spot", "PASS", effect=0.0)
OTHER = Claim("spot", "FAIL", effect=0.125)


@pytest.mark.parametrize(
    ("verdict", "spot", "shared", "expected", "why"),
    [
        ("PASS", (), False, "PASS", ""),
        ("PASS", (SAME,), True, "PASS", ""),
        ("PASS", (SAME,), False, "PASS", ""),
        ("PASS", (), True, "INCONCLUSIVE", "its spot check was not asked"),
        (
            "PASS",
            (SAME, OTHER),
            True,
            "FAIL",
            "spot: 12.5% of the answers differ, so that none may be shared",
        ),
        ("PASS", (OTHER,), False, "FAIL", "spot: 12.5% of the answers differ, so that none may be shared"),
        ("FAIL", (), False, "FAIL", "facts; text"),
        ("FAIL", (SAME,), True, "FAIL", "facts; text"),
    ],
)
def test_what_decides(verdict: str, spot: tuple[Claim, ...], shared: bool, expected: str, why: str) -> None:
    found = _judged(floor(verdict, *(["facts", "text"] if verdict == "FAIL" else [])), spot, shared=shared)
    assert (found.verdict, found.why) == (expected, why)
    assert found.passed == (expected == "PASS")


def test_a_certificate_as_json() -> None:
    data = Certificate("PASS", "", floor(), (SAME,)).as_json()
    assert (data["verdict"], data["held_out"], len(data["spot_check"])) == ("PASS", True, 1)
    assert not Certificate("INCONCLUSIVE", "x").as_json()["held_out"]


def test_a_confirming_launch_is_asked_the_certificate_and_where_answers_are_shared_the_spot_check() -> None:
    plan = [Evaluating("l", "c", repeat, ("facts",), 10, 1.0) for repeat in (0, 1)]
    assert [one.repeat for one in asked(plan, shares=False)] == [store.CERTIFICATE]
    assert [one.repeat for one in asked(plan, shares=True)] == [store.CERTIFICATE, store.SPOT]


def test_settings_without_effect_on_an_output_are_not_compared() -> None:
    assert alike({"max_num_seqs": 8, "quantization": "fp8"}) == {"quantization": "fp8"}
