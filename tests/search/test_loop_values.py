"""The loop's own decisions without a study: what is left, what is said, when it ends, what is asked next."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.budget import Budget
from search.loop import Loop, looked_at
from search.result import PENDING, Settings, TrialResult
from search.resume import StudyLog, TrialRecord
from search.space import Axis, Space
from tests.support.search_fixture import GOAL, Known

SPACE = Space(
    {
        "one": (Axis("max_num_seqs", choices=(1, 2, 4, 8, 16), default=4),),
        "two": (Axis("quantization", choices=("fp8",)),),
    }
)
SLO = "ttft:p50<=200ms"


def one(
    seqs: int, value: float | None = 1.0, seconds: float = 10.0, missed: float = -1.0, **more: Any
) -> TrialResult:
    given = {"fidelity": "full", "violations": {SLO: missed}, "seconds": {"measure": seconds}, **more}
    return TrialResult({"engine": "one", "max_num_seqs": seqs}, value=value, **given)


def trial(
    number: int, *outcomes: TrialResult, ended: bool = True, settings: Settings | None = None
) -> TrialRecord:
    return TrialRecord(number, settings or outcomes[-1].config, {}, 1, outcomes, ended)


class Fake:
    """A study that proposes from a list and notes what it is told to enqueue and to leave out."""

    storage = "none"

    def __init__(self, *proposed: Settings) -> None:
        self.proposed = list(proposed)
        self.discarded: list[tuple[Settings, bool, str]] = []

    def ask(
        self, number: int, fixed: Settings | None = None, attempt: int = 0
    ) -> tuple[Settings, dict[str, Any]]:
        return (fixed if fixed is not None else self.proposed.pop(0)), {"n": number}

    def discard(self, number: int, settings: Settings, earlier: TrialResult | None, why: str) -> None:
        self.discarded.append((settings, earlier is not None, why))


def made(folder: Path, *proposed: Settings, searcher: Any = None, budget: Budget | None = None, worthwhile: float = 0.0,
         space: Space = SPACE) -> Loop:  # fmt: skip
    study: Any = Fake(*proposed)
    return Loop(
        space,
        GOAL,
        Known(folder),
        study,
        StudyLog(folder),
        budget or Budget(),
        worthwhile,
        searcher,
        lambda _: None,
    )


# --- what is asked --------------------------------------------------------------------------------


def test_the_engines_defaults_are_asked_first(tmp_path: Path) -> None:
    loop = made(tmp_path)
    first = loop.ask([], [])
    assert first == ({"engine": "one", "max_num_seqs": 4}, {"n": 0})
    second = loop.ask([trial(0, one(4))], [one(4)])
    assert second == ({"engine": "two"}, {"n": 1})


SEEN = [trial(0, one(4)), trial(1, one(0), settings={"engine": "two"})]


def test_what_was_seen_or_is_dropped_is_not_looked_at(tmp_path: Path) -> None:
    loop = made(
        tmp_path,
        {"engine": "one", "max_num_seqs": 4},
        {"engine": "two"},
        {"engine": "one", "max_num_seqs": 8},
    )
    assert loop.ask(SEEN, [one(4)]) == ({"engine": "one", "max_num_seqs": 8}, {"n": 2})
    study: Any = loop.study
    assert study.discarded == [
        ({"engine": "one", "max_num_seqs": 4}, True, "seen before"), ({"engine": "two"}, False, "seen before"),
    ]  # fmt: skip


def test_a_sampler_that_repeats_itself_thirty_times_gets_the_first_that_is_left(tmp_path: Path) -> None:
    loop = made(tmp_path, *[{"engine": "one", "max_num_seqs": 4}] * 40)
    assert loop.ask(SEEN, [one(4)]) == ({"engine": "one", "max_num_seqs": 1}, {"n": 2})
    study: Any = loop.study
    assert len(study.discarded) == 30


def test_a_searcher_is_told_of_trials_under_way_and_may_say_that_nothing_is_left(tmp_path: Path) -> None:
    told: list[Any] = []

    def ask(history: Any) -> Settings | None:
        told.append([(o.config, o.failure) for o in history])
        return {"engine": "one", "max_num_seqs": 16} if len(told) == 1 else None

    loop = made(tmp_path, searcher=SimpleNamespace(ask=ask))
    running = trial(2, settings={"engine": "one", "max_num_seqs": 8}, ended=False)
    assert loop.ask([*SEEN, running], [one(4)]) == ({"engine": "one", "max_num_seqs": 16}, {"n": 3})
    assert told == [[(one(4).config, None), ({"engine": "one", "max_num_seqs": 8}, PENDING)]]
    assert loop.ask(SEEN, [one(4)]) is None


def test_a_searcher_that_repeats_itself_is_helped_out_until_nothing_is_left(tmp_path: Path) -> None:
    loop = made(tmp_path, searcher=SimpleNamespace(ask=lambda _: {"engine": "two"}))
    assert loop.ask(SEEN, []) == ({"engine": "one", "max_num_seqs": 1}, {"n": 2})
    every = [trial(n, one(0), settings=settings) for n, settings in enumerate(SPACE.all())]
    assert loop.ask(every, []) is None


# --- when it ends ---------------------------------------------------------------------------------


def test_trials_that_were_refused_do_not_count(tmp_path: Path) -> None:
    refused = trial(2, one(1, None, failure="does_not_fit"))
    failed = trial(3, one(2, None, failure="crash"))
    running = trial(4, settings={"engine": "two"}, ended=False)
    assert looked_at([trial(0, one(4)), refused, failed, running]) == 3
    assert looked_at([]) == 0
    loop = made(tmp_path, budget=Budget(trials=3))
    assert loop.ended([trial(0, one(4)), refused, running], []) is None
    assert loop.ended([trial(0, one(4)), refused, running, failed], []) == "all 3 trials are spent"


def test_looks_left_are_the_fewest_that_space_trials_and_time_leave(tmp_path: Path) -> None:
    trials = [trial(n, one(n)) for n in range(3)]

    def left(budget: Budget, each: float = 10.0) -> float:
        return made(tmp_path, budget=budget)._looks_left(100.0, trials, each)

    assert SPACE.size == 7
    assert left(Budget()) == 4
    assert left(Budget(trials=5)) == 2
    assert left(Budget(seconds=135)) == 3.5
    assert left(Budget(seconds=135), each=0.0) == 4
    assert left(Budget(seconds=50)) == 0


def test_gains_are_over_the_first_full_look_by_the_last_feasible_one_of_each(tmp_path: Path) -> None:
    history = [
        one(4, 20.0, fidelity="screen"), one(4, 10.0), one(1, 9.0, fidelity="screen"), one(2, 1.0, missed=0.5),
        one(1, 8.0), one(8, None, failure="crash"),
    ]  # fmt: skip
    assert made(tmp_path)._gains(history) == pytest.approx([0.0, 0.2])
    assert made(tmp_path)._gains(history[:1]) == []


def test_a_search_ends_when_the_rest_is_not_worth_it(tmp_path: Path) -> None:
    """Thirteen equal looks: nothing is expected of the rest; with no threshold it goes on."""
    big = Space({"one": (Axis("max_num_seqs", "int", low=1, high=64, default=4),)})
    history = [one(n, 10.0) for n in range(1, 14)]
    trials = [trial(n, o) for n, o in enumerate(history)]
    ended = made(tmp_path, space=big, worthwhile=0.01).ended(trials, history)
    assert ended is not None
    assert ended.startswith("12 looks without a better one; the 51 left")
    assert made(tmp_path, space=big).ended(trials, history) is None
    assert made(tmp_path, space=big, worthwhile=0.01).ended(trials[:12], history[:12]) is None


def test_failures_of_an_earlier_part_of_the_study_do_not_end_this_one(tmp_path: Path) -> None:
    alike = [one(n, None, failure="driver", detail="too old") for n in range(6)]
    loop = made(tmp_path)
    assert str(loop.ended([], alike)).startswith("6 configurations all ended alike")
    loop.earlier = 1
    assert loop.ended([], alike) is None


# --- what is said ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (one(8, 5.0), "engine=one max_num_seqs=8: 5"),
        (one(8, 5.0, fidelity="screen"), "engine=one max_num_seqs=8: 5 (short look)"),
        (one(8, 5.0, missed=0.25), f"engine=one max_num_seqs=8: 5, breaks {SLO} by 25%"),
        (one(8, 5.0, missed=0.0), "engine=one max_num_seqs=8: 5"),
        (one(8, None, failure="crash", detail="gone"), "engine=one max_num_seqs=8: crash: gone"),
    ],
)
def test_the_line_of_a_trial(tmp_path: Path, outcome: TrialResult, said: str) -> None:
    loop = made(tmp_path, budget=Budget(trials=5))
    assert loop.line(7, outcome) == f"trial 7: {said} | best none yet | left: 5 trials"


def test_the_line_tells_the_incumbent_and_what_was_spent(tmp_path: Path) -> None:
    loop = made(tmp_path, budget=Budget(trials=5, seconds=600.0))
    loop.log.append("asked", trial=0, settings={"engine": "two"}, params={}, unix_s=0.0)
    loop.log.append("outcome", trial=0, outcome=one(2, 7.25, seconds=60.0).as_json(), last=True)
    assert loop.line(1, one(8, 5.0)).endswith("| best 7.25 | left: 4 trials, 9.0 min")


def test_every_look_is_logged_and_the_last_one_is_told_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    told: list[tuple[int, TrialResult]] = []
    loop = made(tmp_path)
    loop.say = said.append
    study: Any = loop.study
    study.tell = lambda number, outcome: told.append((number, outcome))
    loop.log.append("asked", trial=3, settings=one(8).config, params={}, unix_s=0.0)
    looks = [one(8, 6.0, fidelity="screen"), one(8, 5.0)]
    loop.keep(3, looks)
    assert told == [(3, looks[1])]
    assert [line.partition(" | ")[0] for line in said] == ["trial 3: engine=one max_num_seqs=8: 5"]
    assert [event["last"] for event in loop.log.events() if event["event"] == "outcome"] == [False, True]
    assert loop.log.trials()[0].ended


def test_a_default_is_looked_at_in_full_and_others_when_they_are_promoted(tmp_path: Path) -> None:
    history = [one(n, 1.0, fidelity="screen") for n in (1, 2, 4)]
    loop = made(tmp_path)
    study: Any = loop.study
    study.tell = lambda number, outcome: None
    evaluator: Any = loop.evaluator
    for number, seqs in enumerate((4, 8)):
        settings: Settings = {"engine": "one", "max_num_seqs": seqs}
        loop.log.append("asked", trial=number, settings=settings, params={}, unix_s=0.0)
        loop._look(number, settings, history)
    assert [fidelity for _, fidelity in evaluator.seen] == ["screen", "full", "screen"]
