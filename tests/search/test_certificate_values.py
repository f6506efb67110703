"""A certificate from the floor, the spot check and what is shared: which of them decides."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.evaluation import store
from bench.plan.evaluations import Evaluating
from search.evaluator import Certificate
from search.finals import certify
from search.finals.certify import _judged, alike, asked
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


# --- from what is stored --------------------------------------------------------------------------


def stored(monkeypatch: pytest.MonkeyPatch, base: Any, mine: dict[str, Any], spots: dict[str, Any] | None = None,
           shared: bool = False) -> list[dict[str, Any]]:  # fmt: skip
    """The store as it would be; what is handed to the floor is noted."""
    asked_of: list[dict[str, Any]] = []

    def of_repeat(folder: Any, key: str, repeat: int) -> Any:
        if repeat == store.SPOT:
            return (spots or {}).get(key)
        return base if key == "base" else mine.get(key)

    def certified(distinct: dict[str, Any], theirs: Any, settings: Any) -> dict[str, Any]:
        asked_of.append(distinct)
        assert theirs is base
        return {name: floor("PASS") for name in distinct}

    monkeypatch.setattr(store, "of_repeat", of_repeat)
    monkeypatch.setattr(store, "shares", lambda folder, key: shared)
    monkeypatch.setattr(store, "evaluations", lambda folder, key: [])
    monkeypatch.setattr(certify, "certified", certified)
    monkeypatch.setattr(certify.cache, "spot_check", lambda one, again, noise=0.0: [again])
    return asked_of


def kept(folder: str, failure: Any = None) -> Any:
    return SimpleNamespace(folder=folder, failure=failure)


DIED = SimpleNamespace(kind="crash", detail="gone")


def of(finalists: list[str]) -> dict[str, tuple[str, str]]:
    asked_for: Any = SimpleNamespace(accuracy=object())
    folder: Any = None
    return {
        key: (c.verdict, c.why)
        for key, c in certify.certificates(folder, asked_for, finalists, "base").items()
    }


def test_each_finalist_by_its_held_out_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two share their answers and are one test; one died, one was not asked."""
    mine = {"a": kept("1"), "b": kept("1"), "c": kept("2"), "d": kept("3", DIED)}
    tests = stored(monkeypatch, kept("0"), mine)
    assert of(["a", "b", "c", "d", "e"]) == {
        "a": ("PASS", ""), "b": ("PASS", ""), "c": ("PASS", ""), "d": ("INCONCLUSIVE", "crash: gone"),
        "e": ("INCONCLUSIVE", "it was not asked"),
    }  # fmt: skip
    assert [set(one) for one in tests] == [{"1", "2"}]


def test_without_the_baselines_answers_nothing_is_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    stored(monkeypatch, None, {"a": kept("1")})
    assert of(["a"]) == {"a": ("INCONCLUSIVE", "the baseline's held-out answers are missing")}
    stored(monkeypatch, kept("0", DIED), {"a": kept("1")})
    assert of(["a"]) == {"a": ("INCONCLUSIVE", "the baseline's held-out answers are missing: gone")}


def test_shared_answers_are_spot_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    stored(monkeypatch, kept("0"), {"a": kept("1"), "b": kept("1")}, {"a": SAME}, shared=True)
    assert {key: verdict for key, (verdict, _) in of(["a", "b"]).items()} == {
        "a": "PASS",
        "b": "INCONCLUSIVE",
    }
    stored(monkeypatch, kept("0"), {"a": kept("1")}, {"a": OTHER})
    assert of(["a"])["a"][0] == "FAIL"


def test_how_far_the_baseline_disagrees_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    folder: Any = None
    for both, share in (([], 0.0), (["x"], 0.0), (["x", "y"], 0.25), (["x", "y", "z"], 0.25)):
        monkeypatch.setattr(store, "evaluations", lambda folder, key, both=both: both)
        monkeypatch.setattr(certify.cache, "spot_check", lambda one, other: [
            Claim(one + other, "PASS", effect=0.25), Claim("b", "PASS", effect=None), Claim("c", "PASS", effect=0.125),
        ])  # fmt: skip
        assert certify.disagreement(folder, "base") == share
