"""`servetune evaluate` and `servetune gate` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_llm import Llm, served
from test_accuracy_evaluate import gold_llm

import servetune


def test_evaluate_twice_and_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, bad = str(tmp_path / "base"), str(tmp_path / "bad")
    common = ["--model", "fake", "--task", "facts", "--items", "120", "--json", "-"]
    with served(gold_llm()) as endpoint:
        assert servetune.main(["evaluate", "--url", endpoint.url, "--out", base, *common]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["tasks"]["facts"] == {
        "score": 1.0,
        "items": 120,
        "errors": 0,
        "unanswered": 0,
        "chance": 0.25,
        "rejected_at": None,
    }
    with served(gold_llm(0.2)) as endpoint:
        arguments = ["evaluate", "--url", endpoint.url + "/", "--out", bad, "--baseline", base, *common]
        assert servetune.main(arguments) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["tasks"]["facts"]["rejected_at"] < 60
    assert "facts:" in err
    assert servetune.main(["gate", bad, base, "--only", "accuracy"]) == 1
    shown = capsys.readouterr()
    assert "sequential test" in " ".join(shown.out.split())
    assert "gate.html" in shown.err


def test_the_table_and_what_could_not_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(Llm(logprobs=False)) as endpoint:
        common = ["evaluate", "--url", endpoint.url, "--model", "fake", "--items", "4"]
        some = servetune.main([*common, "--out", str(tmp_path / "a"), "--task", "facts", "--task", "answers"])
        assert some == 1
        out = " ".join(capsys.readouterr().out.split())
        assert "refused: facts" in out
        assert "answers accuracy 0.0%" in out
        assert servetune.main([*common, "--out", str(tmp_path / "b"), "--task", "facts"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: facts:")
        assert "hint: choose a task" in err


@pytest.mark.parametrize("wrong", [["--task", "fact"], ["--within", "soon"], ["--items", "0"]])
def test_what_cannot_be_asked_is_the_user_s_to_fix(tmp_path: Path, wrong: list[str]) -> None:
    common = ["evaluate", "--url", "http://127.0.0.1:1", "--model", "m", "--out", str(tmp_path / "e")]
    assert servetune.main([*common, *wrong]) == 2
    assert not (tmp_path / "e").exists()
