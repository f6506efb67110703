"""Promises that a look cannot tell: neither kept nor broken, in the search's line, its study, its choice and answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from search_fixture import GOAL, Known, loop
from test_enough import run_of
from test_search_measured import SCENARIO as SIM
from test_search_measured import oracle

import servetune
from bench.grid import Load
from bench.metrics import enough
from bench.report.words import share
from search.explain import explained, lines
from search.finals.answer import _promise
from search.finals.standing import Standing
from search.longer import Longer, lengthened, short
from search.loop import NEVER_TOLD, never_told
from search.objective import promises
from search.outcome import Fidelity, Outcome, Settings, best, from_json
from search.searchers.surrogate import Told
from search.trial import promoted

SLO = "ttft:p50<=200ms"
WHY = "640 of 662 requests"
BASE: Settings = {"engine": "one"}
FAST: Settings = {"engine": "one", "max_num_seqs": 64}


def look(n: int, value: float, fidelity: Fidelity = "full", **more: object) -> Outcome:
    return Outcome({"engine": "one", "max_num_seqs": n}, fidelity, value, **more)  # type: ignore[arg-type]


def test_undetermined_is_neither_met_nor_broken() -> None:
    open_ = look(1, 5.0, undetermined={SLO: WHY})
    assert not open_.feasible
    assert not open_.broken
    assert best([open_, look(2, 9.0)], minimize=True) == look(2, 9.0), "it is never the incumbent"
    assert from_json(json.loads(json.dumps(open_.as_json()))) == open_
    told = Told.of([open_, look(2, 9.0, violations={SLO: 0.5})], GOAL, (SLO,))
    (promise,) = told.promises
    assert list(promise[1]) == [1], "the model of the promise learns from what was told"
    assert len(told.rows) == 2, "and that of the goal from both"


def test_a_short_look_is_ranked_by_what_full_looks_have_told_since() -> None:
    """The fastest pass their short looks and break the p99 in full: those behind them get their turn."""
    history: list[Outcome] = []
    for n in range(1, 7):
        history.append(look(n, float(n), "screen", undetermined={SLO: "200 of 662 requests"}))
        history.append(look(n, float(n), violations={SLO: 0.1}))
    new = look(20, 50.0, "screen", undetermined={SLO: "200 of 662 requests"})
    assert promoted(GOAL, history, new)
    worse = replace(new, undetermined={}, violations={SLO: 0.5})
    assert not promoted(GOAL, history, worse), "a promise that the short look tells is broken still counts"


class Open(Known):
    """As Known, and no full look of `one` with 16 sequences or more can tell its SLO; `always`: none at all."""

    always = False

    def measure(self, settings: Settings, fidelity: Fidelity) -> Outcome:
        found = super().measure(settings, fidelity)
        seqs = settings.get("max_num_seqs", 8)
        assert isinstance(seqs, int)
        if found.failure is None and (self.always or seqs >= 16):
            return replace(found, violations={}, undetermined={SLO: WHY})
        return found


def test_a_trial_that_cannot_be_told_is_said_to_be_so_and_never_wins(tmp_path: Path) -> None:
    said: list[str] = []
    made = loop(tmp_path, 14, say=said.append)
    made.oracle = Open(tmp_path)
    made.run()
    last = [one.outcomes[-1] for one in made.log.trials()]
    open_ = [o for o in last if o.undetermined and o.fidelity == "full"]
    assert open_, "the case is in it"
    assert any(f"undetermined: {SLO}: {WHY}" in line for line in said)
    assert not any("by 0%" in line for line in said)
    assert made.study.optuna.best_trial.user_attrs["settings"].get("max_num_seqs", 8) < 16
    stored = [t for t in made.study.optuna.get_trials() if t.user_attrs.get("undetermined")]
    assert {t.user_attrs["undetermined"][SLO] for t in stored} == {WHY}
    told = explained(made.space, GOAL, ("runs", SLO), last, None)
    assert told["undetermined"] == [{"promise": SLO, "looks": len(open_), "why": WHY}]
    assert all(p["broken"] == sum(p["promise"] in o.broken for o in last) for p in told["promises"][1:])
    assert any(f"undetermined: {SLO} in {len(open_)} full looks" in line for line in lines(told))


def test_a_search_whose_first_full_looks_tell_nothing_ends_and_says_what_would_do(tmp_path: Path) -> None:
    made = loop(tmp_path, 40)
    made.oracle = Open(tmp_path)
    made.oracle.always = True
    ended = made.run()
    assert f"{SLO} is undetermined in all {NEVER_TOLD} full looks ({WHY})" in ended
    assert len(made.log.trials()) < 10
    assert never_told([look(1, 1.0), *(look(n, 1.0, undetermined={SLO: WHY}) for n in range(2, 9))]) is None
    base = look(1, 1.0, undetermined={"accuracy": "the baseline cannot be asked facts: 422"})
    assert "422" in (never_told([base]) or "")


def test_a_finalist_that_no_launch_could_tell_never_wins_and_the_answer_says_why() -> None:
    base = Standing(BASE, tuple(look(8, 10.0, "confirm", violations={SLO: -0.5}) for _ in range(3)), None,
                    is_baseline=True)  # fmt: skip
    better = (5.0, 5.1, 4.9)
    open_ = Standing(
        FAST, tuple(look(64, v, "confirm", undetermined={SLO: WHY}) for v in better), (0.5, 0.4, 0.6)
    )
    assert base.state == "kept"
    assert (open_.state, open_.feasible, open_.stands, open_.broken) == ("untold", False, True, ())
    assert dict(open_.undetermined) == {SLO: WHY}
    told = _promise(open_)
    assert f"{SLO} is undetermined: {WHY}" in told.why
    mixed = (*open_.outcomes, *(look(64, 5.0, "confirm", violations={SLO: -0.5}) for _ in range(3)))
    assert Standing(FAST, mixed, None).state == "kept", "by the launches that told it"


def scenario(tmp_path: Path, requests: str, slo: str = "ttft:p99<=2s", goal: str = "") -> Path:
    text = SIM % ("h200", goal or "minimize usd_per_million_good_tokens", "USD")
    file = tmp_path / "few.yaml"
    file.write_text(text.replace("requests: 64", requests).replace("ttft:p50<=2s", slo))
    return file


@pytest.mark.parametrize(
    ("requests", "slo", "goal", "said"),
    [
        (
            "requests: 400",
            "ttft:p99<=2s",
            "",
            "662 requests in the steady window are needed, the load sends 400",
        ),
        ("requests: 90", "e2e:p95<=2s", "", "130 requests"),
        ("requests: 400", "ttft:p50<=2s", "minimize tpot_p99_ms", "the goal tpot_p99_ms cannot be told"),
        ("requests: 400, stream: false", "ttft:p50<=2s", "", "without streams"),
    ],
)
def test_a_search_that_no_trial_could_win_is_refused_before_it_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], requests: str, slo: str, goal: str, said: str
) -> None:
    file = scenario(tmp_path, requests, slo, goal)
    assert servetune.main(["search", str(file), "--out", str(tmp_path / "study")]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "hint:" in told
    assert not (tmp_path / "study").exists()


def test_limits_of_a_search_are_promises_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = scenario(tmp_path, "requests: 400", "ttft:p50<=2s")
    file.write_text(file.read_text().replace("search: {", "search: {limits: {ttft_p99_ms: 2000}, "))
    assert servetune.main(["search", str(file), "--out", str(tmp_path / "study")]) == 2
    assert "ttft_p99_ms<=2000" in capsys.readouterr().err


def test_one_load_of_a_job_that_can_tell_is_enough(tmp_path: Path) -> None:
    from bench.plan import scenariofile
    from search.objective import Goal, untellable

    file = scenario(tmp_path, "duration_s: 60s", "ttft:p99<=2s")
    file.write_text(file.read_text().replace("concurrency: 8", "rate_per_s: [1, 100]"))
    read = scenariofile.load(file)
    made = [Load("chat", 64, 8, "poisson", rate_per_s=rate, duration_s=60.0) for rate in (1.0, 100.0)]
    never, may = untellable(read, Goal.of(read), made)
    assert not never
    assert len(may) == 1
    never, _ = untellable(read, Goal.of(read), made[:1])
    assert len(never) == 1


def test_a_short_look_is_long_enough_for_the_goal() -> None:
    load = Load("chat", 64, 8, "closed", concurrency=8, requests=1000)
    assert short(load, 0.25).requests == 250
    assert short(load, 0.25, 993).requests == 993
    assert short(replace(load, requests=100), 0.25, 993).requests == 100
    assert lengthened(load, 1.2).requests == 1200


def test_a_full_look_that_falls_short_is_made_longer_on_the_same_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 requests for a p90 that is said to need 90: the look goes on, one launch, and is judged by the longer."""
    made = oracle(tmp_path)
    made.scenario = made.scenario.model_copy(
        update={"slos": tuple(replace(slo, statistic="p90") for slo in made.scenario.slos)}
    )
    monkeypatch.setattr("bench.metrics.latency.floor", lambda q: 90 if q == 0.9 else 11)
    monkeypatch.setattr(enough, "floor", lambda q: 90 if q == 0.9 else 11)
    settings: Settings = {"engine": "sim", "quantization": "fp8"}
    full = made.staged(settings, lambda screen: True)[-1]
    runs = made.folder.runs()
    sent = sorted(run.point.load.requests or 0 for run in runs)
    assert sent[:2] == [16, 64]
    assert len(sent) in (3, 4)
    assert sent[-1] > 90
    assert sum(event["event"] == "launch" for event in made.folder.events()) == 1
    assert made.folder.run(full.points[0]).point.load.requests == sent[-1]
    assert full.feasible or len(sent) == 4, "what two longer loads on a busy machine do not tell stays open"
    again = made.staged(settings, lambda screen: True)[-1]
    assert again.points == full.points
    assert sum(event["event"] == "launch" for event in made.folder.events()) == 1


def test_a_load_grows_by_what_is_missing_then_in_proportion_and_twice_at_most(tmp_path: Path) -> None:
    made = oracle(tmp_path)
    tail = tuple(replace(slo, statistic="p99") for slo in made.scenario.slos)
    read = made.scenario.model_copy(update={"slos": tail})
    run = run_of(400)
    longer = Longer(read, made.goal, {run.point.key: 0})
    first = longer(run)
    assert first is not None
    assert 662 < (first.load.requests or 0) < 800
    second = longer(replace(run, point=first))
    assert second is not None
    assert (second.load.requests or 0) > 1.9 * (first.load.requests or 0), "the ramp took it again"
    assert longer(replace(run, point=second)) is None
    assert longer(replace(run_of(400), point=replace(run.point, repeat=7))) is None, "not one of its points"
    slow = run_of(400, slow=80)
    assert Longer(read, made.goal, {slow.point.key: 0})(slow) is None, "it is missed already"
    enough_ = run_of(900)
    assert Longer(read, made.goal, {enough_.point.key: 0})(enough_) is None


def test_promises_of_a_point_have_three_states(tmp_path: Path) -> None:
    from test_enough import measured as point_of

    made = oracle(tmp_path)
    tail = tuple(replace(slo, statistic="p99") for slo in made.scenario.slos)
    read = made.scenario.model_copy(update={"slos": tail})
    missed, open_ = promises(read, point_of(tmp_path, 300))
    assert not missed
    assert list(open_) == ["ttft:p99<=2000ms"]
    assert promises(read, point_of(tmp_path, 300, slow=60)) == (
        {"ttft:p99<=2000ms": pytest.approx(0.5, abs=0.1)},
        {},
    )
    kept, open_ = promises(read, point_of(tmp_path, 900))
    assert kept["ttft:p99<=2000ms"] < 0
    assert not open_


def test_what_is_missed_by_a_little_is_not_missed_by_nothing() -> None:
    assert [share(by) for by in (0.003, 0.0004, 0.12, 1.0)] == ["0.3%", "0.04%", "12%", "100%"]
