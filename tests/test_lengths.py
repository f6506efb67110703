"""`load --input-tokens N` without a tokenizer sends N tokens as the server counts them."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from load_fixture import CLOSED, url

from bench.load.dialect import is_strict
from bench.load.lengths import Counted, fit, fitted
from bench.load.running import measure
from bench.report.load_table import show
from bench.traffic.prompts import prompts
from serving.engine import Endpoint

__all__ = ["url"]


@pytest.mark.parametrize("asked", [32, 128, 2000])
@pytest.mark.parametrize(("model", "kind"), [("pieces:3.3:0", "completions"), ("pieces:1.7:37", "chat")])
def test_the_server_counts_what_was_asked(
    url: str, asked: int, model: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    load = replace(CLOSED, input_tokens=max(asked, 64 if kind == "chat" else 0), requests=40, endpoint=kind)
    run, judgement = measure(Endpoint(url, model, "scripted", "1"), load, prompts(None), (), seed=3)
    told = [r.input_tokens or 0 for r in run.records]
    assert sum(told) / len(told) == pytest.approx(load.input_tokens, rel=0.06, abs=2.5)
    assert "input_length" not in {r.check for r in judgement.reasons}
    assert any("tokens a word" in note for note in run.notes)
    show(run, judgement, ())
    assert f"input tokens a request: {load.input_tokens} asked" in capsys.readouterr().out


def test_a_server_that_counts_words_is_left_alone(url: str) -> None:
    words = prompts(None)
    assert fitted(Endpoint(url, "plain", "scripted", "1"), CLOSED, words) == (words, ())


def test_a_body_that_is_left_open_is_not_waited_for(url: str) -> None:
    server = Endpoint(url, "open_after_done", "scripted", "1")
    begun = monotonic()
    assert not is_strict(server, CLOSED)
    assert fitted(server, CLOSED, prompts(None))[1] == ()
    assert monotonic() - begun < 10


@pytest.mark.parametrize("model", ["no_usage", "broken", "rate_limited", "malformed", "not_http", "redirect"])
def test_a_server_without_a_count_is_told_and_gets_words(url: str, model: str) -> None:
    words = prompts(None)
    made, notes = fitted(Endpoint(url, model, "scripted", "1"), CLOSED, words)
    assert made is words
    assert "in words" in notes[0]


def test_no_room_beside_the_template_is_said(url: str) -> None:
    load = replace(CLOSED, input_tokens=8, endpoint="chat")
    _, judgement = measure(Endpoint(url, "pieces:3:200", "scripted", "1"), load, prompts(None), (), seed=3)
    assert {r.check: r.verdict for r in judgement.reasons}["input_length"] == "invalid"


def test_shared_beginnings_are_in_tokens_too() -> None:
    made = prompts(None).fitted(2.0, 10).make([110, 110], "s", shared=60)
    first, second = (prompt.text.split() for prompt in made)
    assert {len(first), len(second)} <= {50, 51}
    assert first[:25] == second[:25]
    assert first[25:] != second[25:]


@settings(max_examples=200, deadline=None)
@given(per_word=st.floats(0.3, 15), template=st.integers(0, 300), words=st.integers(16, 256))
def test_word_and_template_are_told_apart(per_word: float, template: int, words: int) -> None:
    own = [round(per_word * words) + change for change in (-2, 0, 1, 2)]
    found = fit([Counted(words, template + tokens, template + 2 * tokens) for tokens in own if tokens > 0])
    assert found is not None
    assert found[1] == template
    assert found[0] * words == pytest.approx(per_word * words, abs=2.5)


def test_counts_that_are_not_of_our_words_are_not_used() -> None:
    assert fit([]) is None
    assert fit([Counted(20, 50, 50)]) is None
    assert fit([Counted(20, 50, 40)]) is None
    assert fit([Counted(20, 1, 2)]) is None
    assert fit([Counted(20, 5000, 9000)]) is None


def test_a_word_is_too_large_a_step_for_short_prompts() -> None:
    for tokens in range(8, 60, 3):
        made = prompts(None).fitted(3.4, 0).make([tokens] * 100, "s")
        assert sum(len(p.text.split()) for p in made) / 100 * 3.4 == pytest.approx(tokens, abs=0.1)
