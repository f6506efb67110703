"""Which candidate wins, against what, and what must never win."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.accuracy.verdict import Floor
from bench.records.folder import RunFolder
from bench.records.model import Judgement, Reason, Run
from bench.result import PointResult, outcomes, slo_state
from bench.scenario import scenariofile
from bench.scenario.slo import parse
from servetune.report import labels
from servetune.report.best import answer, everywhere
from servetune.report.ranking import COST, SPEED, Candidate, Job, gain, jobs
from serving.claims import Claim
from serving.claims import Verdict as AccuracyVerdict
from tests.support.report_fixture import SCENARIO, build


def read(folder: RunFolder) -> list[PointResult]:
    return list(outcomes(folder, scenariofile.load(folder.path / "scenario.yaml")))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[PointResult]:
    return read(build(tmp_path_factory.mktemp("ranking") / "run", requests=200))


def names(found: list[PointResult]) -> list[str]:
    return labels.varying([o.run.point.config for o in found])


def with_verdict(o: PointResult, verdict: str) -> PointResult:
    reason = Reason("errors", verdict, "why not", "remedy")  # type: ignore[arg-type]
    return replace(o, judgement=Judgement(verdict, (reason,)))  # type: ignore[arg-type]


def test_each_prompt_size_is_a_job_of_its_own(found: list[PointResult]) -> None:
    assert [job.name for job in jobs(found)] == ["chat 128→32", "chat 512→32"]


def test_the_cheapest_believed_candidate_within_the_slos_is_best(found: list[PointResult]) -> None:
    for job in jobs(found):
        assert job.objective.metric == COST
        best = job.best
        assert best is not None
        assert best.standing == "fit"
        fit = [c for c in job.candidates if c.standing == "fit"]
        assert best.value(COST) == min(c.value(COST) or 0 for c in fit)
        assert [c.rank for c in job.candidates if c.rank] == list(
            range(1, 1 + sum(c.rank is not None for c in job.candidates))
        )


def test_what_is_invalid_never_wins_however_good_its_number(found: list[PointResult]) -> None:
    best = jobs(found)[0].best
    assert best is not None
    spoiled = [with_verdict(o, "invalid") if o.key == best.outcomes[0].key else o for o in found]
    now = jobs(spoiled)[0]
    assert now.best is not None
    assert now.best.outcomes[0].key != best.outcomes[0].key
    fallen = next(c for c in now.candidates if c.outcomes[0].key == best.outcomes[0].key)
    assert (fallen.rank, fallen.standing) == (None, "invalid")


def test_a_doubtful_winner_yields_to_a_fit_one_and_is_named(found: list[PointResult]) -> None:
    best = jobs(found)[0].best
    assert best is not None
    doubted = [with_verdict(o, "suspect") if o.key == best.outcomes[0].key else o for o in found]
    job = jobs(doubted)[0]
    assert job.best is not None
    assert job.best.outcomes[0].key != best.outcomes[0].key
    said = answer(job, names(found))
    assert any("left out as doubtful" in line for line in said.caveats)


def test_a_simulated_candidate_does_not_compete_with_real_ones(found: list[PointResult]) -> None:
    for job in jobs(found):
        assert all(c.rank is None for c in job.candidates if c.simulated)
    alone = jobs([o for o in found if o.run.simulated])[0]
    assert alone.best is not None
    assert answer(alone, []).headline.startswith("SIMULATED")


def test_missed_slos_and_failures_have_no_rank(found: list[PointResult]) -> None:
    for job in jobs(found):
        for c in job.candidates:
            if c.slo == "missed" or c.standing == "failed":
                assert c.rank is None


def test_without_any_price_throughput_decides(found: list[PointResult]) -> None:
    job = jobs([replace(o, price=None) for o in found])[0]
    assert job.objective.metric == SPEED
    assert job.best is not None
    values = [c.value(SPEED) or 0.0 for c in job.candidates if c.standing == "fit"]
    assert job.best.value(SPEED) == max(values)


def test_two_currencies_are_not_compared(found: list[PointResult]) -> None:
    mixed = [
        replace(o, price=o.price.model_copy(update={"currency": "EUR"})) if o.price and i % 2 else o
        for i, o in enumerate(found)
    ]
    assert jobs(mixed)[0].objective.metric == SPEED


def test_the_baseline_is_the_plainest_config_of_the_same_engine_and_load(found: list[PointResult]) -> None:
    job = jobs(found)[0]
    assert job.best is not None
    assert job.baseline is not None
    assert job.baseline.config.quantization == "none"
    assert (job.baseline.config.engine, job.baseline.load) == (job.best.config.engine, job.best.load)
    factor = gain(job.objective, job.best, job.baseline)
    assert factor == pytest.approx((job.baseline.value(COST) or 0) / (job.best.value(COST) or 1))
    assert factor is not None
    assert factor > 1


def test_one_measurement_is_said_to_be_no_proof(found: list[PointResult]) -> None:
    assert any("one measurement is no proof" in line for line in answer(jobs(found)[0], names(found)).caveats)


def test_nothing_to_believe_is_no_answer(found: list[PointResult]) -> None:
    job = jobs([with_verdict(o, "invalid") for o in found])[0]
    assert job.best is None
    assert "no answer" in answer(job, names(found)).headline


def test_repeats_are_one_candidate_with_median_and_range(tmp_path: Path) -> None:
    found = read(build(tmp_path / "run", requests=80, repeats=3, sim=False))
    job = jobs(found)[0]
    assert all(len(c.outcomes) == 3 for c in job.candidates)
    best = job.best
    assert best is not None
    values = sorted(best.values(COST))
    assert best.value(COST) == values[1]
    assert best.spread(COST) == (values[0], values[2])
    assert any("median of 3 repeats" in line for line in answer(job, names(found)).caveats)


@pytest.mark.parametrize(("theirs", "told"), [((1.5, 2.0), True), ((1.05, 2.0), False)])
def test_overlapping_repeats_are_not_told_apart(
    found: list[PointResult], theirs: tuple[float, float], told: bool
) -> None:
    job = jobs(found)[0]
    best, base = job.best, job.baseline
    assert best is not None
    assert base is not None
    twice = [_costing(best, (1.0, 1.1)), _costing(base, theirs)]
    said = answer(Job(job.name, job.objective, tuple(twice)), names(found)).against[0]
    assert ("not told apart" in said) is not told, said


def _costing(candidate: Candidate, costs: tuple[float, float]) -> Candidate:
    one = candidate.outcomes[0]
    return replace(candidate, outcomes=tuple(replace(one, metrics={**one.metrics, COST: c}) for c in costs))


def test_the_same_config_best_everywhere_is_said_once(found: list[PointResult]) -> None:
    two = jobs(found)
    keep = {two[0].candidates[0].config.key}
    assert everywhere(jobs([o for o in found if o.run.point.config.key in keep])) is not None
    assert everywhere(two[:1]) is None


def test_an_slo_counts_failed_requests_as_infinitely_slow() -> None:
    slo = parse("ttft:p50<=100ms")
    assert slo_state(slo, {"ttft_p50_ms": 50.0, "ttft_p50_adjusted_ms": float("inf")}) == "missed"
    assert slo_state(slo, {"ttft_p50_ms": 50.0, "ttft_p50_adjusted_ms": None}) == "unknown"
    assert slo_state(parse("icl:p50<=100ms"), {"icl_p50_ms": 100.0}) == "met"


def test_settings_are_told_apart_by_what_varies_within_an_engine(found: list[PointResult]) -> None:
    assert names(found) == [
        "engine",
        "quantization",
        "max_num_seqs",
    ]  # not max_model_len: one value an engine
    texts = {labels.config_text(o.run.point.config, names(found)) for o in found}
    assert "vllm w8a8 max_num_seqs=4" in texts
    assert "transformers bnb-4bit" in texts


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("inf"), "∞"), (0.0, "0"), (0.06, "0.0600"), (1.234, "1.23"), (12.34, "12.3"),
     (1234.5, "1,234"), (-5.0, "-5.00")],
)  # fmt: skip
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert labels.number(value) == text


def test_a_gain_is_said_without_doubt_about_its_direction() -> None:
    assert labels.relation(2.0, "lower") == "costs 50% less than"
    assert labels.relation(0.5, "lower") == "costs 100% more than"
    assert labels.relation(1.5, "higher") == "has 1.50× the throughput of"


def test_the_scenario_of_the_fixture_has_every_standing(found: list[PointResult]) -> None:
    standings = {c.standing for job in jobs(found) for c in job.candidates}
    assert standings == {"fit", "doubtful", "slo missed", "simulated", "invalid", "failed"}
    assert "SIM" in SCENARIO
    assert isinstance(found[0].run, Run)
    assert not found[0].run.records


def test_what_is_below_the_accuracy_floor_has_no_rank_and_what_is_open_is_doubtful(
    found: list[PointResult],
) -> None:
    first = jobs(found)[0]
    best = first.best
    assert best is not None
    key = best.config.key

    def held(verdict: AccuracyVerdict) -> Job:
        claim = Claim(
            "facts",
            verdict,
            effect=-0.1,
            interval=(-0.2, 0.1),
            threshold=0.0,
            part="Accuracy",
            unit="score",
            n=50,
            needed=4000,
        )
        return jobs(found, {key: Floor(verdict, (claim,), 0.99, 0.95)})[0]

    failed = held("FAIL")
    assert {c.standing for c in failed.candidates if c.config.key == key and c.slo == "met"} == {
        "below floor"
    }
    assert failed.best is not None
    assert failed.best.config.key != key
    open_ = held("INCONCLUSIVE")
    assert all(c.standing != "fit" for c in open_.candidates if c.config.key == key)
    assert open_.best is not None
    assert open_.best.config.key != key
    assert "about 4,000 items would settle it" in " ".join(answer(open_, names(found)).caveats)
    assert held("PASS").best == replace(best, floor=held("PASS").candidates[0].floor)
