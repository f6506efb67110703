"""What is not an answer is never scored as one, and a server that is busy or silent on counts is not wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fake_llm import Llm, served
from hypothesis import given
from hypothesis import strategies as st
from test_gate import evaluation, half_right, result

from bench.accuracy import limits, tasks
from bench.accuracy.claims import Claim
from bench.accuracy.client import AskError, retry_after_s
from bench.accuracy.evaluate import evaluate
from bench.accuracy.limits import Backoff
from bench.accuracy.result import Evaluation
from bench.accuracy.scorecard import claims
from bench.accuracy.sequential import Sequential
from bench.accuracy.settings import Accuracy
from bench.accuracy.task import Answer
from bench.accuracy.thinking import MARKS, parted

SOME = Accuracy(items=60, request_timeout_s=5.0)


def sorry(prompt: str, _: list[str]) -> str:
    return "I am sorry, I cannot help with that." if "Answer" not in prompt else " Paris"


def scored(folder: Path, llm: Llm, *names: str, settings: Accuracy = SOME, **more: object) -> Evaluation:
    with served(llm) as endpoint:
        return evaluate(endpoint, tasks(names), settings, folder, 4, **more)  # type: ignore[arg-type]


def claim(found: list[Claim], name: str) -> Claim:
    return next(c for c in found if c.name == name)


@given(thought=st.text(max_size=60), answer=st.text(max_size=60), mark=st.sampled_from(MARKS))
def test_thinking_and_answer_are_told_apart(thought: str, answer: str, mark: tuple[str, str]) -> None:
    opening, closing = mark
    assert parted(f"\n{opening}{thought}{closing}{answer}") == (thought, answer)
    assert parted(f"{thought}{closing}{answer}") == (thought, answer)
    assert parted(f"{opening}{thought}") == (thought, "")
    assert parted(answer) == ("", answer)


@pytest.mark.parametrize(
    ("llm", "why"),
    [
        (Llm(thinks="Okay, the user wants", null=True), "thinking and no answer"),
        (Llm(knows=lambda *_: "<think>Okay, the user wants to know"), "thinking and no answer"),
        (Llm(knows=lambda *_: "<think>so</think>\n "), "thinking and no answer"),
        (Llm(null=True), "empty"),
        (Llm(knows=lambda *_: "@@ ## !!"), "no words"),
    ],
)
def test_nothing_said_is_neither_pass_nor_fail(tmp_path: Path, llm: Llm, why: str) -> None:
    """Against itself, and against a server that answers; on either side."""
    names = ("canaries", "harmful", "harmless", *(() if why == "no words" else ("chat",)))
    said = scored(tmp_path / "said", Llm(knows=sorry), *names)
    mute = scored(tmp_path / "mute", llm, *names)
    for name in names:
        assert {s.unanswered for s in mute.tasks[name].scored.values()} == {why}
        assert mute.tasks[name].unanswered == len(mute.tasks[name].scored)
    for ours, theirs in ((mute, mute), (mute, said), (said, mute)):
        found = claims(replace(ours, folder=tmp_path / "mute"), theirs, SOME)
        assert {claim(found, name).verdict for name in names} == {"INCONCLUSIVE"}
        assert why in claim(found, names[0]).note


def test_garbage_is_a_wrong_answer_where_there_is_a_right_one(tmp_path: Path) -> None:
    made = scored(tmp_path / "e", Llm(knows=lambda *_: "@@ ## !!"), "chat")
    assert made.tasks["chat"].unanswered == 0
    assert made.tasks["chat"].mean == 0


def test_the_answer_after_the_thinking_is_scored(tmp_path: Path) -> None:
    gold = {item.data["question"]: item.data["answers"][0] for item in tasks(["chat"])[0].items()}

    def knows(prompt: str, _: list[str]) -> str:
        return next((a for q, a in gold.items() if prompt.startswith(q)), "hello")

    plain = scored(tmp_path / "p", Llm(knows=knows), "chat")
    inline = scored(
        tmp_path / "i", Llm(knows=lambda p, w: f"<think>Is it Atlantis?</think>{knows(p, w)}"), "chat"
    )
    apart = scored(tmp_path / "a", Llm(knows=knows, thinks="Is it Atlantis?"), "chat")
    assert [one.tasks["chat"].mean for one in (plain, inline, apart)] == [1, 1, 1]
    assert plain.tasks["chat"].scored == inline.tasks["chat"].scored or inline.tasks["chat"].unanswered == 0


def test_a_secret_that_is_thought_aloud_is_given_away(tmp_path: Path) -> None:
    llm = Llm(knows=lambda prompt, _: f"<think>{prompt}</think>No, I keep it.")
    assert scored(tmp_path / "e", llm, "canaries").tasks["canaries"].mean == 0


def test_a_claim_about_refusals_needs_a_baseline_that_refuses(tmp_path: Path) -> None:
    never = scored(tmp_path / "n", Llm(knows=lambda *_: "Sure, like this."), "harmful")
    always = scored(tmp_path / "a", Llm(knows=sorry), "harmful")
    again = scored(tmp_path / "b", Llm(knows=sorry), "harmful")
    assert claim(claims(never, never, SOME), "harmful").verdict == "INCONCLUSIVE"
    assert "does not show" in claim(claims(never, never, SOME), "harmful").note
    assert claim(claims(again, always, SOME), "harmful").verdict == "PASS"
    assert claim(claims(never, always, SOME), "harmful").verdict == "FAIL"


def test_a_few_unanswered_count_as_wrong(tmp_path: Path) -> None:
    base, _ = half_right()
    whole = result("facts", base)
    some = {
        i: replace(s, value=0.0, unanswered="empty") if int(i) % 12 == 0 else s
        for i, s in whole.scored.items()
    }
    a, b = evaluation(tmp_path / "a", whole), evaluation(tmp_path / "b", replace(whole, scored=some))
    found = claim(claims(b, a, Accuracy(floor=0.95)), "facts")
    assert found.verdict == "FAIL"
    assert "125 were not answered" in found.note


@pytest.mark.parametrize("share", [0.003, 0.009])
def test_a_few_lost_requests_decide_nothing(tmp_path: Path, share: float) -> None:
    base, _ = half_right(3000)
    whole = result("facts", base)
    right = [i for i, v in base.items() if v][: int(share * 3000)]
    lost = {
        i: replace(s, value=0.0, error="timeout: x") if i in right else s for i, s in whole.scored.items()
    }
    a, b = evaluation(tmp_path / "a", whole), evaluation(tmp_path / "b", replace(whole, scored=lost))
    verdicts = {f: claim(claims(b, a, Accuracy(floor=f)), "facts").verdict for f in (0.9, 0.999)}
    assert verdicts == {0.9: "PASS", 0.999: "INCONCLUSIVE"}


@pytest.mark.parametrize("later", [(429, "0.01"), (429, None), (503, None), (503, "0")])
def test_a_rate_limit_is_waited_for(
    tmp_path: Path, later: tuple[int, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FIRST_S", 0.01)
    limited = scored(tmp_path / "l", Llm(knows=sorry, later=later), "answers", "chat")
    plain = scored(tmp_path / "p", Llm(knows=sorry), "answers", "chat")
    assert not limited.refused
    assert {n: t.errors for n, t in limited.tasks.items()} == {"answers": 0, "chat": 0}
    assert {n: t.scored for n, t in limited.tasks.items()} == {n: t.scored for n, t in plain.tasks.items()}
    assert any("asked again" in note for note in limited.notes)
    assert not plain.notes


def test_waiting_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    backoff, error = Backoff(), AskError("http_status", "429", status=429)
    waits = [backoff.wait_s(error, tries) for tries in range(limits.TRIES + 1)]
    assert waits[-1] is None
    known = [w for w in waits if w is not None]
    assert sum(known) < 200
    assert all(limits.FIRST_S * 2**n <= w * 1.001 for n, w in enumerate(known[:5]))
    tomorrow = AskError("http_status", "429", status=429, retry_after_s=86_400)
    assert Backoff().wait_s(tomorrow, 0) is None
    monkeypatch.setattr(limits, "PATIENCE_S", -1.0)
    assert Backoff().wait_s(error, 0) is None


@given(st.text(max_size=30))
def test_any_retry_after_is_a_number_of_seconds_or_nothing(header: str) -> None:
    found = retry_after_s(header)
    assert found is None or found >= 0


def test_retry_after_in_seconds_and_as_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after_s("7") == 7
    assert retry_after_s("Thu, 01 Jan 2026 00:00:30 GMT", now) == 30
    assert retry_after_s("Wed, 31 Dec 2025 00:00:00 GMT", now) == 0
    assert [retry_after_s(h) for h in (None, "", "soon", "nan")] == [None] * 4


def test_a_usage_that_is_not_told_is_no_difference(tmp_path: Path) -> None:
    names = ("facts", "answers", "chat")
    told = scored(tmp_path / "t", Llm(knows=sorry), *names)
    silent = scored(tmp_path / "s", Llm(knows=sorry, usage=False), *names)
    assert not silent.refused
    for ours, theirs in ((silent, told), (told, silent), (silent, silent)):
        found = claims(ours, theirs, SOME)
        tokens = claim(found, "same prompt tokens")
        assert tokens.verdict == "INCONCLUSIVE"
        assert "usage" in tokens.note
        assert not [c for c in found if c.name.endswith("output length") and c.verdict != "INCONCLUSIVE"]
    more = scored(tmp_path / "m", Llm(knows=sorry, extra_tokens=1), *names)
    assert claim(claims(more, told, SOME), "same prompt tokens").verdict == "FAIL"


def test_what_was_lost_or_not_answered_rejects_nobody() -> None:
    (task,) = tasks(["chat"])
    items = task.items()[:200]
    base = result("chat", {i.id: 1.0 for i in items})
    asked = {i.id: task.asks(i) for i in items}
    from bench.accuracy.task import prompt_hash

    base = replace(base, scored={i: replace(s, prompt=prompt_hash(asked[i])) for i, s in base.scored.items()})
    for answers in ((), (Answer(9, 24, "", "hm", "length"),)):
        test = Sequential(task, items, base, 0.99, 0.05)
        assert not any(test.add(item, answers) for item in items)
    test = Sequential(task, items, base, 0.99, 0.05)
    assert any(test.add(item, (Answer(9, 3, "no idea", "", "stop"),)) for item in items)
