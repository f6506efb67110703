"""Finals by hand: intervals, what was missed, who stands alone, what a condition says, and the loads that are tried."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scipy import stats

from bench.point import Load
from search.finals import robust, stress
from search.finals.answer import Finalist, RobustnessCheck, SearchResult, judge
from search.finals.finalists import ranked
from search.result import Settings, TrialResult, key_of
from serving.config import ServingConfig
from tests.support.search_fixture import GOAL, SPACE, finals, loop

BASE = SPACE.default("one")
FP8: Settings = {"engine": "one", "quantization": "fp8"}
BOTH: Settings = {"engine": "one", "quantization": "fp8", "enforce_eager": True}
SLO = "ttft:p50<=200ms"


def confirmed(settings: Settings, *values: float | None, by: float = -1.0, **more: Any) -> list[TrialResult]:
    return [TrialResult(settings, "confirm", v, violations={SLO: by}, **more) for v in values]


def finalist(settings: Settings, *values: float, gain: tuple[float, float, float] | None = None) -> Finalist:
    return Finalist(settings, tuple(confirmed(settings, *values)), gain)


def looked(settings: Settings, value: float, fidelity: str = "full", by: float = -1.0) -> TrialResult:
    return TrialResult(settings, fidelity, value, violations={SLO: by})  # type: ignore[arg-type]


# --- intervals and the answer ---------------------------------------------------------------------


def test_among_those_surely_better_the_simplest_that_reaches_the_best_ones_low_bound_wins(
    tmp_path: Path,
) -> None:
    """FP8 alone gains 20%, both 40%: no tie, so the better one wins although it departs in two settings."""
    held = {
        key_of(BASE): confirmed(BASE, 10.0, 10.0, 10.0),
        key_of(FP8): confirmed(FP8, 8.0, 8.01, 7.99),
        key_of(BOTH): confirmed(BOTH, 6.0, 6.01, 5.99),
    }
    made = loop(tmp_path, 1)
    found = judge(finals(made), [BASE, FP8, BOTH], held)
    assert found.winner is found.standings[2]
    assert (found.verdict, found.missed) == ("winner", 0.0)
    worse = judge(finals(made), [BASE, FP8], {**held, key_of(FP8): confirmed(FP8, 12.0, 12.01, 11.99)})
    assert (worse.verdict, worse.winner, worse.missed) == ("default_is_best", worse.standings[0], 0.0)


def test_of_two_that_tie_and_are_as_simple_the_better_one_wins(tmp_path: Path) -> None:
    """Both change one setting; the first gains 20% and the second 21%, give or take two."""
    eight: Settings = {"engine": "one", "max_num_seqs": 8, "quantization": "none"}
    held = {
        key_of(BASE): confirmed(BASE, 10.0, 10.0, 10.0),
        key_of(FP8): confirmed(FP8, 8.0, 8.05, 7.95),
        key_of(eight): confirmed(eight, 7.9, 7.95, 7.85),
    }
    found = judge(finals(loop(tmp_path, 1)), [BASE, FP8, eight], held)
    first, second = found.standings[1].gain, found.standings[2].gain
    assert first is not None
    assert second is not None
    assert first[0] > second[1], "they tie"
    assert found.winner is found.standings[2]


# --- rounds ---------------------------------------------------------------------------------------


def answer(winner: int | None, *gains: tuple[float, float, float] | None) -> SearchResult:
    """Standings with these gains, the baseline's None first; `winner` is a place in them."""
    found = tuple(
        finalist({"engine": "one", "max_num_seqs": n} if n else BASE, 1.0, gain=gain)
        for n, gain in enumerate(gains)
    )
    return SearchResult(None if winner is None else found[winner], found[0], found, 3, None)


def test_finalists_are_the_feasible_full_looks_best_and_simplest_first() -> None:
    two, four, eight = ({"engine": "one", "max_num_seqs": n} for n in (2, 4, 8))
    history = [
        looked(BASE, 1.0), looked(four, 5.0), looked(two, 4.0), looked(eight, 3.0, "screen"), looked(BOTH, 4.0),
        looked(FP8, 2.0, by=0.1), looked(four, 3.5),
    ]  # fmt: skip
    assert ranked(SPACE, GOAL, history) == [BASE, four, two, BOTH]


# --- other loads ----------------------------------------------------------------------------------


def checked(mine: TrialResult, base: TrialResult, reach: float | None = 0.05) -> tuple[str, str, Any]:
    found = robust._check(SimpleNamespace(goal=GOAL), "c", mine, base, reach)  # type: ignore[arg-type]
    assert isinstance(found, RobustnessCheck)
    assert found.condition == "c"
    return found.verdict, found.why, found.gain


CALM = looked(BASE, 10.0, "stress")


@pytest.mark.parametrize(
    ("mine", "base", "verdict", "why"),
    [
        (looked(FP8, 9.0), CALM, "PASS", ""),
        (looked(FP8, 10.0), CALM, "PASS", ""),
        (looked(FP8, 10.1), CALM, "INCONCLUSIVE", "no better than the default here"),
        (looked(FP8, 10.4), CALM, "INCONCLUSIVE", "no better than the default here"),
        (looked(FP8, 10.6), CALM, "FAIL", "6.0% worse than the default"),
        (looked(FP8, 9.0, by=0.1), CALM, "FAIL", f"breaks {SLO}, which the default keeps"),
        (looked(FP8, 9.0, by=0.1), looked(BASE, 10.0, by=0.0), "FAIL", f"breaks {SLO}, which the default keeps"),
        (looked(FP8, 9.0, by=0.1), looked(BASE, 10.0, by=0.1), "INCONCLUSIVE", f"breaks {SLO}, as the default does"),
        (looked(FP8, 9.0, by=0.1), TrialResult(BASE, "stress", None, failure="crash"), "INCONCLUSIVE",
         f"breaks {SLO}, where the default cannot be told"),
        (TrialResult(FP8, "stress", None, failure="crash", detail="gone"), CALM, "FAIL", "crash: gone"),
        (TrialResult(FP8, "stress", None, failure="crash", detail="gone"),
         TrialResult(BASE, "stress", None, failure="crash"), "INCONCLUSIVE", "crash: gone"),
        (looked(FP8, 9.0), TrialResult(BASE, "stress", None), "INCONCLUSIVE",
         "the default has no value to compare with"),
        (TrialResult(FP8, "stress", 9.0, detail="not settled"), CALM, "INCONCLUSIVE", "not settled"),
    ],
)  # fmt: skip
def test_what_a_condition_says(mine: TrialResult, base: TrialResult, verdict: str, why: str) -> None:
    assert checked(mine, base)[:2] == (verdict, why)


def test_the_gain_under_a_condition_has_the_reach_of_the_rounds() -> None:
    assert checked(looked(FP8, 9.0), CALM)[2] == pytest.approx((0.1, 0.05, 0.15))
    assert checked(looked(FP8, 9.0), CALM, None)[2] is None
    made: Any = SimpleNamespace(goal=GOAL)
    mine, base = finalist(FP8, 9.0, 8.0, 8.5), finalist(BASE, 10.0, 10.0, 10.0)
    spread = stats.tstd([0.1, 0.2, 0.15])
    assert robust._reach(made, mine, base, 4) == pytest.approx(stats.t.ppf(1 - 0.05 / 2 / 4, 2) * spread)
    assert robust._reach(made, mine, base, 0) is None
    assert robust._reach(made, finalist(FP8, 9.0), base, 4) is None
    assert robust._reach(made, finalist(FP8, 9.0, 8.0), base, 1) is not None


CONFIG = ServingConfig(engine="sim", model="m")


def tried(
    load: Load, longest: int | None = None, holdout: tuple[Any, ...] = (), soak_s: float | None = None
) -> dict[str, Any]:
    scenario: Any = SimpleNamespace(seed=5, search=SimpleNamespace(holdout=holdout, soak_s=soak_s))
    found = stress.points(scenario, CONFIG, [load], longest)
    assert all(len(points) == 1 and points[0].config == CONFIG for points in found.values())
    return {name: points[0] for name, points in found.items()}


def test_loads_and_lengths_move_by_a_fifth() -> None:
    load = Load("w", 100, 50, "poisson", rate_per_s=10.0, requests=40)
    found = tried(load)
    assert list(found) == [
        "20% less load",
        "20% more load",
        "20% shorter requests",
        "20% longer requests",
        "other prompts",
    ]
    assert found["20% less load"].load.rate_per_s == pytest.approx(8)
    assert found["20% more load"].load.rate_per_s == pytest.approx(12)
    sizes = {name: (p.load.input_tokens, p.load.output_tokens) for name, p in found.items()}
    assert sizes["20% shorter requests"] == (80, 40)
    assert sizes["20% longer requests"] == (120, 60)
    assert sizes["20% more load"] == (100, 50)
    assert {name: p.seed for name, p in found.items() if p.seed != 5} == {"other prompts": 5 + 7919}
    assert found["other prompts"].load == load


@pytest.mark.parametrize(
    ("users", "less", "more"), [(1, None, 2), (2, 1, 3), (3, 2, 4), (10, 8, 12), (64, 51, 77)]
)
def test_users_move_away_from_the_middle_by_one_at_the_least(users: int, less: int | None, more: int) -> None:
    found = tried(Load("w", 100, 50, concurrency=users, requests=40))
    assert found["20% more load"].load.concurrency == more
    assert ("20% less load" in found) == (less is not None), "what changes nothing is left out"
    if less is not None:
        assert found["20% less load"].load.concurrency == less


def test_what_does_not_fit_the_longest_sequence_is_left_out() -> None:
    load = Load("w", 100, 50, concurrency=10, requests=40)
    assert "20% longer requests" in tried(load, 180)
    assert "20% longer requests" not in tried(load, 179)
    assert "20% more load" in tried(load, 150)


def test_shorter_requests_keep_their_shared_prefix_and_one_token() -> None:
    load = Load("w", 100, 1, concurrency=10, requests=40, shared_prefix_tokens=90)
    found = tried(load)
    shorter = found["20% shorter requests"].load
    assert (shorter.input_tokens, shorter.output_tokens) == (91, 1)


def test_a_soak_is_the_same_load_for_its_time() -> None:
    found = tried(Load("w", 100, 50, concurrency=10, requests=40), soak_s=600.0)
    assert (found["soak"].load.requests, found["soak"].load.duration_s) == (None, 600.0)


def test_loads_that_were_tried_whole_are_not_tried_again_and_a_part_of_them_counts_for_nothing(
    tmp_path: Path,
) -> None:
    made = loop(tmp_path, 1)
    calm = looked(FP8, 9.0, "stress")
    made.log.append("stress", condition="more", outcome=calm.as_json())
    made.log.append("stress", condition="more", outcome=looked(BOTH, 1.0, "stress").as_json())
    assert robust._held(made, FP8) == {}
    made.log.append("stressed", settings=dict(BOTH))
    assert robust._held(made, FP8) == {}
    made.log.append("stressed", settings=dict(FP8))
    assert robust._held(made, FP8) == {"more": calm}


# --- rounds on a known oracle ---------------------------------------------------------------------


def ready(folder: Path, history: list[TrialResult], finalists: int = 2) -> Any:
    """A loop with these looks in its log, so that finals may begin."""
    made = loop(folder, 1)
    made.finalists = finalists
    for number, one in enumerate(history):
        made.log.append("asked", trial=number, settings=dict(one.config), params={}, unix_s=0.0)
        made.log.append("outcome", trial=number, outcome=one.as_json(), last=True)
    return made


def seqs(n: int) -> Settings:
    return {"engine": "one", "max_num_seqs": n, "quantization": "none"}
