"""The page of a study: the answer first, hostile names as text, figures that draw, and what an unfinished one says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.records.folder import RunFolder
from search.explain import explained
from search.result import Settings, TrialResult
from search.resume import NAME
from servetune.report import study
from tests.support.chromium import tab
from tests.support.page_fixture import EVIL, check, write
from tests.support.report_fixture import build
from tests.support.search_fixture import CONSTRAINTS, GOAL, SPACE

SLO = "ttft:p50<=200ms"


def looks(name: str) -> list[TrialResult]:
    found = []
    for number in range(14):
        settings: Settings = {"engine": "one", "max_num_seqs": 2 ** (number % 5), "quantization": name}
        value, missed = 10.0 - number % 5, {SLO: 0.2 if number % 5 == 4 else -0.3}
        found.append(TrialResult(settings, "screen" if number % 3 else "full", value, 0.04, missed))
    found.append(
        TrialResult({"engine": "one"}, "screen", None, failure="oom_at_launch", detail=f"no room {name}")
    )
    found.append(TrialResult({"engine": "one"}, "screen", None, failure="does_not_fit", detail=name))
    return found


def made(folder: RunFolder, *, name: str = "fp8", ended: bool = True) -> RunFolder:
    """A study over a run that was measured otherwise: the page asks no more of it than its two files."""
    seen = looks(name)
    events = [
        {"event": "outcome", "trial": n, "outcome": o.as_json(), "last": True} for n, o in enumerate(seen)
    ]
    lines = [json.dumps(event) for event in events]
    (folder.path / NAME).write_text("\n".join([*lines, '{"event":"outc']))
    if not ended:
        return folder
    gain = {"estimate": 0.31, "low": 0.19, "high": 0.43}
    accuracy = {"verdict": "PASS", "why": "", "items": 1200}
    checks = [
        {"condition": "20% more load", "verdict": "PASS", "why": ""},
        {"condition": "other prompts", "verdict": "INCONCLUSIVE", "why": name},
    ]
    plain = {"gain": None, "accuracy": None, "robust": [], "failures": [], "points": [], "departures": 0}
    base = {**plain, "settings": {"engine": "one"}, "value": 10.0, "feasible": True}
    best = {**base, "settings": {"engine": "one", "quantization": name}, "value": 6.9, "gain": gain,
            "accuracy": accuracy, "robust": checks, "departures": 1}  # fmt: skip
    answer = {
        "goal": [{"metric": "cost_per_million_good_tokens", "direction": "minimize"}],
        "verdict": "winner", "confidence": 0.95, "rounds": 4, "missed_at_most": 0.02, "simulated": False,
        "winner": best, "baseline": base, "finalists": [base, best], "trials": 16, "launches": 20,
        "ended": name, "cost": 0.5, "ledger": {"launch": 50.0, "measure": 50.0, "total": 100.0},
        "explained": explained(SPACE, GOAL, CONSTRAINTS, seen, {"engine": "one", "quantization": name}),
    }  # fmt: skip
    (folder.path / study.ANSWER).write_text(json.dumps(answer))
    return folder


def test_the_answer_stands_first_with_its_interval(tmp_path: Path) -> None:
    text = write(made(build(tmp_path / "run", requests=60))).read_text()
    said = text[text.index("What the search says") : text.index("Every candidate, ranked")]
    for part in ("+31.0% [+19.0%, +43.0%] over the default", "1,200 held-out items", "1 of 2 PASS",
                 "more than 2.0% better", "oom_at_launch", "1 not launched", "16 trials, 20 launches"):  # fmt: skip
        assert part in said, part


def test_an_unfinished_study_says_so_and_shows_what_there_is(tmp_path: Path) -> None:
    text = write(made(build(tmp_path / "run", requests=60), ended=False)).read_text()
    assert "The search has not ended" in text
    assert "Told when the search has ended" in text
    assert "oom_at_launch" in text


def test_a_run_without_a_study_has_no_such_part(tmp_path: Path) -> None:
    folder = build(tmp_path / "run", requests=60)
    assert study.read(folder) is None
    assert "What the search says" not in write(folder).read_text()


def test_no_configuration_and_the_default_are_answers_too(tmp_path: Path) -> None:
    folder = made(build(tmp_path / "run", requests=60))
    answer = json.loads((folder.path / study.ANSWER).read_text())
    for changed, part in (
        ({"winner": None, "verdict": "none_feasible"}, "No configuration kept every promise"),
        ({"winner": answer["baseline"], "verdict": "default_is_best"}, "The default is best"),
        (
            {
                "winner": None,
                "verdict": "not_settled",
                "unsettled": {
                    "why": "it may be",
                    "of": None,
                    "more_rounds": {"estimate": 40, "low": 9, "high": None},
                },
            },
            "Not settled: it may be. About 40 more rounds would settle it (9 to more than can be named).",
        ),
        ({"default_breaks": ["ttft"]}, "one quantization=fp8: named because the default surely breaks ttft"),
    ):
        (folder.path / study.ANSWER).write_text(json.dumps(answer | changed))
        found = study.read(folder)
        assert found is not None
        assert found["headline"].startswith(part)


@pytest.mark.parametrize("width", [390, 1440])
def test_it_draws_and_fits_and_hostile_names_stay_text(tmp_path: Path, width: int) -> None:
    file = write(made(build(tmp_path / "run", requests=60), name=EVIL))
    with tab(tmp_path / "profile") as browser:
        browser.open(file, width)
        check(browser)
        assert browser.evaluate("document.title") != "owned"
        assert (
            browser.evaluate("document.querySelectorAll('#study-history .scatterlayer .trace').length") == 3
        )
        lines = "document.querySelectorAll('#study-parallel .scatterlayer .trace').length"
        assert browser.evaluate(lines) == (14 if width > 640 else 0)
