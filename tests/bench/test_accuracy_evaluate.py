"""An evaluation over HTTP: what is asked, kept, refused, resumed, and what a dying server leaves behind."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench.accuracy import journal
from bench.accuracy.client import read, tail
from bench.accuracy.evaluate import Life, evaluate
from bench.accuracy.evaluation import Evaluation, load, state
from bench.accuracy.preflight import preflight
from bench.accuracy.settings import Accuracy
from bench.accuracy.task import Ask, Need, Reply
from bench.accuracy.tasks import tasks
from serving.errors import BrokenRunError, Failure, FailureKind, UserError
from tests.support.fake_llm import Llm, gold_llm, served

QUICK = Accuracy(items=24, request_timeout_s=5.0)


class Listener:
    def __init__(self) -> None:
        self.told: list[tuple[str, int, int]] = []

    def evaluating(self, task: str, done: int, total: int, items_per_s: float) -> None:
        assert items_per_s >= 0
        self.told.append((task, done, total))


def test_scores_are_those_of_the_server(tmp_path: Path) -> None:
    with served(gold_llm()) as endpoint:
        made = evaluate(endpoint, tasks(["facts"]), QUICK, tmp_path / "e", 4)
    assert made.tasks["facts"].mean == 1
    assert made.failure is None
    assert made.asked == 24
    with served(gold_llm(0.0)) as endpoint:
        assert evaluate(endpoint, tasks(["facts"]), QUICK, tmp_path / "f", 4).tasks["facts"].mean == 0


def test_every_task_runs_and_its_folder_reads_back_the_same(tmp_path: Path) -> None:
    listener = Listener()
    with served(Llm()) as endpoint:
        made = evaluate(
            endpoint, tasks(["full"]), Accuracy(items=4), tmp_path / "e", 3, listener, identity={"a": 1}
        )
    assert not made.refused
    assert len(made.tasks) == len(tasks(["full"]))
    assert all(len(task.scored) == 4 and not task.errors for task in made.tasks.values())
    back = load(tmp_path / "e")
    assert back.tasks == made.tasks
    assert (back.identity, back.asked, back.concurrency) == ({"a": 1}, made.asked, 3)
    assert state(tmp_path / "e") == "finished"
    assert ("facts", 4, 4) in listener.told


def test_requests_run_concurrently_and_no_more_of_them_than_asked(tmp_path: Path) -> None:
    llm = Llm(delay_s=0.03)
    with served(llm) as endpoint:
        evaluate(endpoint, tasks(["answers"]), QUICK, tmp_path / "e", 6)
    assert llm.most_at_once == 6
    assert {body["temperature"] for body in llm.asked} == {0.0}


def test_the_pass_alone_is_alone_and_the_cache_is_emptied_before_it(tmp_path: Path) -> None:
    llm, emptied = Llm(delay_s=0.01), []
    with served(llm) as endpoint:
        life = Life(reset_cache=lambda: not emptied.append(llm.most_at_once))
        made = evaluate(endpoint, tasks(["repeats"]), Accuracy(items=6), tmp_path / "e", 4, life=life)
    assert emptied == [1]
    assert made.asked == 18
    assert made.notes == ()
    with served(Llm()) as endpoint:
        noted = evaluate(endpoint, tasks(["repeats"]), Accuracy(items=2), tmp_path / "f", 2)
    assert "could not be emptied" in noted.notes[0]


@pytest.mark.parametrize(
    ("llm", "names", "why"),
    [
        (Llm(logprobs=False), ["facts", "answers"], "NoneType"),
        (Llm(echo=False), ["facts", "answers"], "prompt tokens"),
        (Llm(schema=False), ["structured", "answers"], "ignored"),
    ],
)
def test_an_engine_that_cannot_is_refused_before_anything_starts(
    tmp_path: Path, llm: Llm, names: list[str], why: str
) -> None:
    with served(llm) as endpoint:
        made = evaluate(endpoint, tasks(names), QUICK, tmp_path / "e", 2)
    assert set(made.refused) == {names[0]}
    assert why in made.refused[names[0]]
    assert set(made.tasks) == {"answers"}
    assert not (tmp_path / "e" / f"{names[0]}.jsonl").exists()


def test_preflight_notices_an_instrument_that_depends_on_what_was_asked_before() -> None:
    count = iter(range(1000))
    with served(Llm(likes=lambda text: -1.0 - 0.01 * next(count))) as endpoint:
        found = preflight(endpoint, tasks(["facts"]))
    assert not found.lacking
    assert "prefix caching" in found.notes[0]
    with served(Llm()) as endpoint:
        assert preflight(endpoint, tasks(["full"])).notes == ()


def test_an_interrupted_evaluation_goes_on_where_it_was(tmp_path: Path) -> None:
    first = gold_llm()
    with served(first) as endpoint:
        evaluate(endpoint, tasks(["facts"]), QUICK.model_copy(update={"items": 10}), tmp_path / "e", 2)
    asked = len(first.asked)
    with (tmp_path / "e" / "facts.jsonl").open("ab") as file:
        file.write(b'{"item":"city-Par')
    second = gold_llm()
    with served(second) as endpoint:
        made = evaluate(endpoint, tasks(["facts"]), QUICK, tmp_path / "e", 2)
    assert made.asked == 14
    assert len(made.tasks["facts"].scored) == 24
    assert len(second.asked) < asked + 14
    with served(gold_llm()) as endpoint:
        assert evaluate(endpoint, tasks(["facts"]), QUICK, tmp_path / "e", 2).asked == 0


def test_an_interrupt_keeps_what_was_answered(tmp_path: Path) -> None:
    class Interrupts(Listener):
        def evaluating(self, task: str, done: int, total: int, items_per_s: float) -> None:
            raise KeyboardInterrupt

    with served(Llm(delay_s=0.05)) as endpoint, pytest.raises(KeyboardInterrupt):
        evaluate(endpoint, tasks(["answers"]), QUICK, tmp_path / "e", 2, Interrupts())
    kept = list(journal.read(tmp_path / "e" / "answers.jsonl"))
    assert 0 < len(kept) < 24
    assert state(tmp_path / "e") == "interrupted"


def test_another_configuration_may_not_go_on_in_its_folder(tmp_path: Path) -> None:
    with served(Llm()) as endpoint:
        evaluate(endpoint, tasks(["answers"]), QUICK, tmp_path / "e", 2, identity={"dtype": "bf16"})
        with pytest.raises(UserError, match="another configuration"):
            evaluate(endpoint, tasks(["answers"]), QUICK, tmp_path / "e", 2, identity={"dtype": "fp8"})


def test_a_server_that_dies_is_a_failure_with_its_class_and_the_answers_so_far(tmp_path: Path) -> None:
    with served(Llm(dies_after=12)) as endpoint:
        made = evaluate(endpoint, tasks(["answers", "chat"]), QUICK, tmp_path / "e", 2)
    assert made.failure is not None
    assert made.failure.kind == FailureKind.CRASH
    assert 5 <= len(made.tasks["answers"].scored) <= 12
    assert "chat" not in made.tasks
    assert state(tmp_path / "e") == "failed"
    assert load(tmp_path / "e").failure == made.failure
    with served(Llm()) as endpoint:
        again = evaluate(endpoint, tasks(["answers", "chat"]), QUICK, tmp_path / "e", 2)
    assert again.failure is None
    assert len(again.tasks["answers"].scored) == len(again.tasks["chat"].scored) == 24


def test_the_engines_own_account_of_its_death_is_taken(tmp_path: Path) -> None:
    why = Failure(FailureKind.OOM_LOAD, "killed by the kernel")
    with served(Llm(dies_after=8)) as endpoint:
        life = Life(alive=lambda: False, why_dead=lambda: why)
        made = evaluate(endpoint, tasks(["answers"]), QUICK, tmp_path / "e", 2, life=life)
    assert made.failure == why


def test_a_silent_server_is_a_hang_and_not_a_long_wait(tmp_path: Path) -> None:
    patient = Accuracy(items=24, request_timeout_s=0.4)
    began = time.monotonic()
    with served(Llm(silent_after=6)) as endpoint:
        made = evaluate(endpoint, tasks(["answers"]), patient, tmp_path / "e", 2)
    assert made.failure is not None
    assert made.failure.kind == FailureKind.HANG
    assert time.monotonic() - began < 10


def test_a_request_the_server_refuses_scores_nothing_and_ends_nothing(tmp_path: Path) -> None:
    with served(Llm(refuses="chemical symbol for gold?")) as endpoint:
        made = evaluate(endpoint, tasks(["answers"]), Accuracy(), tmp_path / "e", 8)
    assert made.failure is None
    answers = made.tasks["answers"]
    assert answers.errors == 1
    (failed,) = [s for s in answers.scored.values() if s.error]
    assert failed.value == 0
    assert "too long" in failed.error


def test_time_is_up_when_it_is_up_and_what_is_there_is_judged(tmp_path: Path) -> None:
    hurried = Accuracy(within_s=3.0)
    began = time.monotonic()
    with served(Llm(delay_s=0.05)) as endpoint:
        made = evaluate(endpoint, tasks(["answers", "chat"]), hurried, tmp_path / "e", 2)
    assert time.monotonic() - began < 20, "460 items of 0.05 s by two workers take 11 s a task"
    counts = [len(task.scored) for task in made.tasks.values()]
    assert all(1 <= count < 200 for count in counts)
    assert made.failure is None


def baseline(tmp_path: Path, settings: Accuracy) -> Evaluation:
    with served(gold_llm()) as endpoint:
        return evaluate(endpoint, tasks(["facts"]), settings, tmp_path / "baseline", 8)


def test_a_bad_candidate_is_not_asked_to_the_end(tmp_path: Path) -> None:
    settings = Accuracy(items=200)
    reference = baseline(tmp_path, settings)
    with served(gold_llm(0.3)) as endpoint:
        made = evaluate(endpoint, tasks(["facts"]), settings, tmp_path / "bad", 4, baseline=reference)
    assert made.rejected == "facts"
    at = made.tasks["facts"].rejected_at
    assert at is not None
    assert at <= made.asked < 60
    with served(gold_llm()) as endpoint:
        good = evaluate(endpoint, tasks(["facts"]), settings, tmp_path / "good", 4, baseline=reference)
    assert good.rejected is None
    assert good.asked == 200


def test_the_early_stop_goes_on_from_what_was_answered_before(tmp_path: Path) -> None:
    settings = Accuracy(items=200)
    reference = baseline(tmp_path, settings)
    few = settings.model_copy(update={"items": 4, "stop_early": False})
    with served(gold_llm(0.0)) as endpoint:
        evaluate(endpoint, tasks(["facts"]), few, tmp_path / "bad", 1, baseline=reference)
        resumed = evaluate(endpoint, tasks(["facts"]), settings, tmp_path / "bad", 1, baseline=reference)
        at = resumed.tasks["facts"].rejected_at
        assert at is not None
        assert resumed.asked == at - 4, "one at a time: none is asked after the rejection"
        again = evaluate(endpoint, tasks(["facts"]), settings, tmp_path / "bad", 1, baseline=reference)
    assert (again.asked, again.tasks["facts"].rejected_at) == (0, at)


def test_a_server_that_is_gone_before_the_first_answer_is_a_failure_and_no_refusal(tmp_path: Path) -> None:
    with served(Llm(dies_after=0)) as endpoint:
        made = evaluate(endpoint, tasks(["facts"]), QUICK, tmp_path / "e", 2)
    assert made.failure is not None
    assert made.failure.kind == FailureKind.CRASH
    assert not made.refused
    hurried = Accuracy(request_timeout_s=0.3)
    with served(Llm(silent_after=0)) as endpoint:
        silent = evaluate(endpoint, tasks(["facts"]), hurried, tmp_path / "f", 2)
    assert silent.failure is not None
    assert silent.failure.kind == FailureKind.HANG


def test_more_tasks_join_an_evaluation_that_is_there(tmp_path: Path) -> None:
    with served(gold_llm()) as endpoint:
        evaluate(endpoint, tasks(["facts"]), QUICK, tmp_path / "e", 2)
        evaluate(endpoint, tasks(["answers"]), QUICK, tmp_path / "e", 2)
    assert set(load(tmp_path / "e").tasks) == {"facts", "answers"}


def test_the_early_stop_can_be_switched_off(tmp_path: Path) -> None:
    settings = Accuracy(items=60, stop_early=False)
    reference = baseline(tmp_path, settings)
    with served(gold_llm(0.0)) as endpoint:
        made = evaluate(endpoint, tasks(["facts"]), settings, tmp_path / "bad", 4, baseline=reference)
    assert made.rejected is None
    assert made.asked == 60


def test_a_damaged_journal_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"item":"a","pass":"x","prompt":"p","took_s":1,"answers":[]}\nnonsense\n{}\n')
    with pytest.raises(BrokenRunError, match=r"a\.jsonl:2"):
        list(journal.read(path))
    with pytest.raises(BrokenRunError, match="not an evaluation"):
        load(tmp_path)


def test_concurrent_writers_of_one_journal_lose_no_line(tmp_path: Path) -> None:
    with journal.Journal(tmp_path / "j.jsonl") as log:

        def write(number: int) -> None:
            for index in range(50):
                log.add(journal.Entry(f"{number}-{index}", "x", "p", (Reply(1, 1, "ü\n", "stop"),)))

        threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    entries = list(journal.read(tmp_path / "j.jsonl"))
    assert len({e.item for e in entries}) == 200
    assert entries[0].answers[0].text == "ü\n"


def test_the_last_tokens_are_the_choice_with_or_without_a_bos() -> None:
    tokens, values = ("The", " cat", " sat", " down"), (None, -1.0, -2.0, -4.0)
    assert tail(tokens, values, " sat down") == (-6.0, 2)
    assert tail(("<s>", *tokens), (None, -0.5, *values[1:]), " sat down") == (-6.0, 2)
    assert tail(("a", " sat d", "own"), (None, -1.0, -2.0), " down") == (-3.0, 2)
    with pytest.raises(ValueError, match="first token"):
        tail((" sat",), (None,), " sat")


def test_an_answer_that_contradicts_itself_is_an_error() -> None:
    logprobs = {"tokens": ["a", " b"], "token_logprobs": [None, -1.0], "top_logprobs": [None, {}]}
    reply = {"choices": [{"index": 0, "text": "a b", "logprobs": logprobs}], "usage": {"prompt_tokens": 2}}
    assert read(Ask("score", "a b"), reply).logprobs == (None, -1.0)
    with pytest.raises(ValueError, match="3 prompt tokens"):
        read(Ask("score", "a b"), {**reply, "usage": {"prompt_tokens": 3}})
    bad = {**logprobs, "token_logprobs": [None, 0.5]}
    with pytest.raises(ValueError, match="none"):
        read(Ask("score", "a b"), {**reply, "choices": [{"index": 0, "logprobs": bad}]})


def test_a_missing_key_is_said_before_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVETUNE_TEST_KEY", raising=False)
    with served(Llm()) as endpoint:
        secret = replace(endpoint, api_key_env="SERVETUNE_TEST_KEY")
        with pytest.raises(UserError, match="SERVETUNE_TEST_KEY is not set"):
            evaluate(secret, tasks(["answers"]), QUICK, tmp_path / "e", 1)


def test_needs_are_told_apart() -> None:
    with served(Llm(logprobs=False)) as endpoint:
        found = preflight(endpoint, tasks(["full"]))
    assert set(found.lacking) == {Need.PROMPT_LOGPROBS}
    assert json.dumps(list(found.lacking.values()))


def test_what_a_plan_refused_is_kept_with_its_reason(tmp_path: Path) -> None:
    with served(Llm()) as endpoint:
        evaluate(endpoint, tasks(["answers"]), QUICK, tmp_path / "e", 2, refused={"facts": "no echo"})
    assert load(tmp_path / "e").refused == {"facts": "no echo"}


def test_a_slow_answer_does_not_cost_more_than_the_time_allowed(tmp_path: Path) -> None:
    """Requests under way when time is up are given up; what is scored has no gap in the drawn order."""
    slow = Accuracy(items=24, within_s=0.3, request_timeout_s=60.0)
    with served(Llm(delay_s=3.0)) as endpoint:
        started = time.monotonic()
        made = evaluate(endpoint, tasks(["facts"]), slow, tmp_path / "e", 4)
        took = time.monotonic() - started
    assert made.failure is None
    assert not made.tasks.get("facts") or not made.tasks["facts"].scored
    # Preflight asks four times, one after the other, whatever the limit; the items must add a second or so.
    assert took < 4 * 3.0 + 4.0


def test_the_time_allowed_includes_what_is_under_way_at_its_end(tmp_path: Path) -> None:
    settings = Accuracy(within_s=3.0, request_timeout_s=60.0)
    with served(Llm(delay_s=0.4)) as endpoint:
        made = evaluate(endpoint, tasks(["facts"]), settings, tmp_path / "e", 4)
    assert made.tasks["facts"].scored
    # Requests last 0.4 s and end within the grace; a second is left for a machine that is busy.
    assert made.seconds < 3.0 + 1.0


def test_a_gap_in_the_drawn_order_ends_what_is_scored(tmp_path: Path) -> None:
    with served(Llm()) as endpoint:
        evaluate(endpoint, tasks(["facts"]), QUICK, tmp_path / "e", 1)
    file = tmp_path / "e" / "facts.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:10] + lines[11:]))
    from bench.accuracy.evaluate import scores
    from bench.accuracy.task import drawn

    task = tasks(["facts"])[0]
    found = scores(task, drawn(task.items(), "all", 24), tmp_path / "e", None)
    assert len(found.scored) == 10
