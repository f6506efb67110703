"""Every row of CHECKS is provoked by a run made for it and stays quiet on healthy ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bench.checks import CHECKS, judge
from bench.checks.case import Case
from bench.metrics.view import View
from bench.proof.calibration import Calibration
from bench.records.model import RequestError, Run, Sample
from bench.scenario.slo import parse
from serving.errors import Failure, FailureKind
from tests.support.histogram_fixture import measured
from tests.support.synthetic import HEALTHY, ar1, closed_loop, failed, gauge, open_loop, record


def every(n: int, change: Callable[..., object]) -> Callable[..., object]:
    return lambda records: [change(r) if r.index % n == 0 else r for r in records]


def with_client(run: Run, **health: object) -> Run:
    return replace(run, client=replace(HEALTHY, **health))


def late(run: Run, lag_s: Callable[[float], float]) -> Run:
    """The same requests, each leaving later than planned."""
    moved = [record(r.index, r.planned_s, lag_s=lag_s(r.planned_s)) for r in run.records]
    return replace(run, records=tuple(moved))


def resent(run: Run, times: Callable[[np.ndarray], np.ndarray]) -> Run:
    """The same requests, planned and sent at other times."""
    due = times(np.array([r.planned_s for r in run.records]))
    return replace(
        run, records=tuple(record(r.index, float(t)) for r, t in zip(run.records, due, strict=True))
    )


def censor(r):
    return replace(r, error=RequestError.CENSORED, last_s=None, closed_s=None, output_tokens=None)


def shortened(tokens: int):
    return lambda r: replace(
        r, output_tokens=tokens, counted_output_tokens=tokens, event_s=r.event_s[:tokens],
        last_s=r.event_s[tokens - 1],
    )  # fmt: skip


def waiting_together(rng: np.random.Generator, n: int) -> np.ndarray:
    return 0.1 * np.exp(0.5 * ar1(rng, n, 0.995))


def unbalanced(run: Run) -> Run:
    """Requests that left the system without our knowing when: stamps that cannot be."""
    return replace(
        run, records=tuple(replace(r, last_s=r.last_s + 30) if r.index % 8 == 0 else r for r in run.records)
    )


UNTIL = 17.0
CACHE = [
    *gauge("server:vllm:prefix_cache_hits_total", lambda t: 6.0 * t, UNTIL),
    *gauge("server:vllm:prefix_cache_queries_total", lambda t: 100.0 * t, UNTIL),
]
HOT = gauge("gpu0_throttle_reasons", lambda t: 0x40 * (t > 5), UNTIL)
VISITED = gauge("gpu0_other_processes", lambda t: float(t == 3), UNTIL)
HALF_CACHED = [
    *gauge("server:vllm:prefix_cache_hits_total", lambda t: 50.0 * t, UNTIL),
    *gauge("server:vllm:prefix_cache_queries_total", lambda t: 100.0 * t, UNTIL),
]


def clumped(events: int):
    """Stamps as a buffer gives them: `events` wait for the last of them."""

    def held(r):
        stamps = r.event_s
        late = tuple(stamps[min(len(stamps), (i // events + 1) * events) - 1] for i in range(len(stamps)))
        return replace(r, event_s=late, first_s=late[0], first_answer_s=late[0], last_s=late[-1])

    return held


def thinking(r):
    """Half the output is thought where nobody sees it, and told apart."""
    return replace(r, event_s=r.event_s[10:], first_s=r.event_s[10], first_answer_s=r.event_s[10],
                   reasoning_tokens=10)  # fmt: skip


def uncounted(r):
    return replace(r, output_tokens=None, counted_output_tokens=None)


def unsent(r):
    return replace(failed(r), sent_s=None, header_s=None, event_s=(), first_s=None, last_s=None)


PROVOKED: dict[str, tuple[str, Run]] = {
    "schedule_lag": ("suspect", late(open_loop(), lambda t: 0.03)),
    "client_cpu": ("suspect", with_client(open_loop(), cpu_share=0.9)),
    "hub_delay": ("suspect", with_client(open_loop(), hub_delay_p99_ms=20.0)),
    "rate_not_reached": ("invalid", late(open_loop(), lambda t: 0.3 * t)),
    "arrivals": ("invalid", resent(open_loop(), lambda due: np.linspace(due[0], due[-1], due.size))),
    "above_calibration": ("invalid", open_loop(requests=1000, rate_per_s=300)),
    "too_few_samples": ("suspect", open_loop(requests=9)),
    "too_dependent": ("suspect", open_loop(requests=600, ttft_s=waiting_together)),
    "not_steady": ("invalid", open_loop(ttft_s=lambda rng, n: 0.1 + np.arange(n) * 0.005)),
    "littles_law": ("invalid", unbalanced(closed_loop())),
    "errors": ("suspect", open_loop(change=every(50, failed))),
    "censored": ("suspect", open_loop(change=every(50, censor))),
    "input_length": ("invalid", open_loop(change=every(1, lambda r: replace(r, input_tokens=422)))),
    "output_buffered": ("suspect", open_loop(change=every(1, clumped(20)))),
    "hidden_reasoning": ("suspect", open_loop(change=every(2, thinking))),
    "unseen_tokens": ("suspect", open_loop(change=every(3, lambda r: replace(r, output_bytes=9)))),
    "surplus_events": ("invalid", open_loop(change=every(2, lambda r: replace(r, output_tokens=9)))),
    "output_length": ("invalid", open_loop(change=every(2, shortened(10)))),
    "finish_reason": ("suspect", open_loop(change=every(10, lambda r: replace(r, finish_reason="stop")))),
    "no_usage": ("suspect", open_loop(change=every(3, lambda r: replace(r, output_tokens=None)))),
    "token_counts": ("suspect", open_loop(change=every(3, lambda r: replace(r, counted_output_tokens=16)))),
    "cache_hits": ("suspect", open_loop(samples=CACHE)),
    "server_histograms": ("suspect", measured(shift_s=0.04)),
    "foreign_requests": ("invalid", measured(extra=50)),
    "clocks_throttled": ("suspect", open_loop(samples=HOT)),
    "gpu_shared": ("suspect", open_loop(samples=VISITED)),
}  # fmt: skip
SAID: dict[str, tuple[str, str]] = {
    "schedule_lag": ("30 ms late (median) beside a TTFT of 100 ms", "--workers"),
    "client_cpu": ("used 90% of a core", "--workers"),
    "hub_delay": ("ran 20 ms late (99th percentile) beside a TTFT of 100 ms", "--workers"),
    "rate_not_reached": ("only 65.3% of the requests due in the window", "lower the rate"),
    "arrivals": ("poisson arrivals: gaps do not follow the law", "--workers"),
    "above_calibration": ("6,146 output events a second; the client on this machine is calibrated up to 5,000", "--workers"),
    "too_few_samples": ("9 requests in the steady window; a p50 needs 11", "about 1.2 times the requests"),
    "too_dependent": ("590 requests wait together: they tell as much as 4 independent", "repeat with a restart"),
    "not_steady": ("requests in flight grew by 115% of their mean", "--find-rate"),
    "littles_law": ("7.20 times what rate and latency say", "measure longer"),
    "errors": ("1.9% of the requests failed (15 × reset)", "adjusted percentiles"),
    "censored": ("1.9% of the requests had not ended", "request_timeout_s"),
    "input_length": ("prompts are 330% as long as asked for (422 tokens by usage, 128 asked)", "--tokenizer"),
    "output_buffered": ("790 of 790 answers came in one read", "proxy_buffering off"),
    "hidden_reasoning": ("never shown: 3,950 of 15,800 output tokens", "stream its reasoning"),
    "unseen_tokens": ("263 of 790 answers have fewer bytes of text than usage counts", "reasoning_tokens"),
    "surplus_events": ("50% of the answers came in more events than usage counts tokens (1.38", "too few tokens"),
    "output_length": ("75% as long as asked for", "ignore_eos"),
    "finish_reason": ("79 of 790 answers ended with 'stop'", "ignore_eos"),
    "no_usage": ("263 of 790 answers came without usage", "include_usage"),
    "token_counts": ("counts -6.7% against usage (14,748 to 15,800 tokens); 33% of the answers", "--tokenizer"),
    "cache_hits": ("6.0% of the prompt tokens came from the prefix cache; the workload shares 0.0%", "--seed"),
    "server_histograms": ("TTFT p50 is 85 ms at the client, 40 to 60 ms by the server's own", "a proxy, the network"),
    "foreign_requests": ("completed 850 requests while we sent 800", "a server of your own"),
    "clocks_throttled": ("GPU 0 was slowed in 71% of the window: hardware thermal slowdown", "cool the card"),
    "gpu_shared": ("1 other process on GPU 0", "choose a free GPU"),
}  # fmt: skip
"""The figure that a finding says of its run, and what its remedy names."""
SLOW_MACHINE = Calibration(events_per_s=5000)


def test_every_check_is_provoked():
    assert set(PROVOKED) == set(CHECKS)


@pytest.mark.parametrize("name", PROVOKED)
def test_provoked(name):
    expected, run = PROVOKED[name]
    found = {reason.check: reason for reason in judge(run, calibration=SLOW_MACHINE).reasons}
    assert name in found, f"only {list(found)}"
    assert found[name].verdict == expected
    figure, remedy = SAID[name]
    assert figure in found[name].text
    assert remedy in found[name].remedy


def test_every_check_says_what_it_is():
    assert all(check.__doc__ for check in CHECKS.values())


def exponential(rng: np.random.Generator, n: int) -> np.ndarray:
    return 0.05 + rng.exponential(0.05, n)


HEALTHY_SAMPLES = [
    *gauge("server:vllm:prefix_cache_hits_total", lambda t: 0.2 * t, UNTIL),
    *gauge("server:vllm:prefix_cache_queries_total", lambda t: 100.0 * t, UNTIL),
    *gauge("gpu0_throttle_reasons", 0x4, UNTIL),
    *gauge("gpu0_other_processes", 0, UNTIL),
]


def test_healthy_runs_are_ok():
    """A false alarm now and then is the price of looking; 2 in 100 runs at most."""
    false = Counter()
    for seed in range(50):
        runs = (
            open_loop(seed=seed, ttft_s=exponential, samples=HEALTHY_SAMPLES),
            closed_loop(seed=seed, samples=HEALTHY_SAMPLES),
        )
        for run in runs:
            false.update(reason.check for reason in judge(run, calibration=SLOW_MACHINE).reasons)
    assert sum(false.values()) <= 2, false
    assert judge(measured(), calibration=SLOW_MACHINE).verdict == "ok"


def test_verdict_is_the_worst_and_the_worst_reason_comes_first():
    run = with_client(open_loop(change=every(2, shortened(10))), cpu_share=0.9)
    judgement = judge(run)
    assert judgement.verdict == "invalid"
    assert [r.verdict for r in judgement.reasons] == ["invalid", "suspect"]


def test_a_failed_point_and_an_empty_one_are_invalid():
    failure = Failure(FailureKind.OOM_LOAD, "out of memory in step 7", "lower max_num_seqs")
    judgement = judge(replace(open_loop(), failure=failure))
    assert judgement.verdict == "invalid"
    assert "out of memory" in judgement.reasons[0].text
    assert judgement.reasons[0].remedy == "lower max_num_seqs"
    assert judge(Run(open_loop().point)).verdict == "invalid"


@pytest.mark.parametrize(
    ("name", "worse"),
    [
        ("schedule_lag", late(open_loop(), lambda t: 0.1)),
        ("client_cpu", with_client(open_loop(), cpu_share=0.99)),
        ("hub_delay", with_client(open_loop(), hub_delay_p99_ms=80.0)),
        ("errors", open_loop(change=every(5, failed))),
        ("censored", open_loop(change=every(5, censor))),
        ("no_usage", open_loop(change=every(3, uncounted))),
        ("unseen_tokens", open_loop(change=every(1, lambda r: replace(r, output_bytes=9)))),
        ("token_counts", open_loop(change=every(1, lambda r: replace(r, counted_output_tokens=15)))),
        ("cache_hits", open_loop(samples=HALF_CACHED)),
    ],
)  # fmt: skip
def test_what_is_bad_enough_is_invalid(name, worse):
    verdicts = {r.check: r.verdict for r in judge(worse).reasons}
    assert verdicts[name] == "invalid"


def test_slos_raise_the_samples_needed():
    run = open_loop(requests=600, ttft_s=exponential)
    assert judge(run).verdict == "ok"
    judgement = judge(run, slos=[parse("ttft:p99<=500ms"), parse("error_rate<=1%")])
    assert [r.check for r in judgement.reasons] == ["too_few_samples"]
    assert "662" in judgement.reasons[0].text


def test_declared_sharing_is_no_contamination():
    run = open_loop(samples=CACHE)
    assert "cache_hits" not in {r.check for r in judge(run, declared_cache_share=0.06).reasons}
    shared = replace(run.point.load, shared_prefix_tokens=8)
    assert judge(replace(run, point=replace(run.point, load=shared))).verdict == "ok"
    turns = replace(run.point.load, turns=3)
    assert "cache_hits" not in {
        r.check for r in judge(replace(run, point=replace(run.point, load=turns))).reasons
    }


def test_a_chat_template_is_shared_by_all():
    chat = replace(open_loop().point.load, endpoint="chat")
    records = tuple(replace(r, input_tokens=160) for r in open_loop().records)
    run = open_loop(samples=CACHE)
    assert judge(replace(run, point=replace(run.point, load=chat), records=records)).verdict == "ok"


def in_seconds(due: np.ndarray) -> np.ndarray:
    """Exponential counts, but each second's arrivals squeezed to its beginning."""
    return np.sort(np.floor(due) + (due % 1) * 0.2)


def repeating(due: np.ndarray) -> np.ndarray:
    """Every gap twice, as two workers with one seed send."""
    gaps = np.diff(due, prepend=0)[: due.size // 2]
    return np.cumsum(np.repeat(gaps, 2))


@pytest.mark.parametrize("law", [in_seconds, repeating])
def test_arrivals_of_another_process_are_refused(law):
    verdicts = {r.check: r.verdict for r in judge(resent(open_loop(), law)).reasons}
    assert verdicts["arrivals"] == "invalid"


def test_constant_arrivals_are_constant():
    even = resent(open_loop(), lambda due: np.linspace(due[0], due[-1], due.size))
    load = replace(even.point.load, arrivals="constant")
    assert judge(replace(even, point=replace(even.point, load=load))).verdict == "ok"
    drawn = replace(open_loop(), point=replace(even.point, load=load))
    assert "arrivals" in {r.check for r in judge(drawn).reasons}, "inference-perf's constant is exponential"


def test_special_tokens_hidden_in_the_text_are_no_disagreement():
    """A forced length goes on past the end-of-text token, which is in usage and not in the text."""
    hidden = every(20, lambda r: replace(r, counted_output_tokens=12))
    assert judge(open_loop(change=hidden)).verdict == "ok"
    more = every(5, lambda r: replace(r, counted_output_tokens=24))
    assert "token_counts" in {r.check for r in judge(open_loop(change=more)).reasons}


def test_a_late_tail_is_held_against_the_tail():
    """One request in fifty leaves 30 ms late; with a p99 of seconds that is nothing."""

    def slow_tail(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.where(rng.random(n) < 0.05, 1.0, 0.05)

    run = open_loop(ttft_s=slow_tail)
    late_ones = tuple(
        record(r.index, r.planned_s, lag_s=0.03, ttft_s=r.first_s - r.sent_s) if r.index % 50 == 0 else r
        for r in run.records
    )
    assert "schedule_lag" not in {r.check for r in judge(replace(run, records=late_ones)).reasons}


def test_the_power_cap_is_no_throttling():
    capped = gauge("gpu0_throttle_reasons", 0x4, UNTIL)
    assert judge(open_loop(samples=capped)).verdict == "ok"


def test_a_drift_outside_the_window_does_not_count():
    hot = gauge("gpu0_throttle_reasons", lambda t: 0x40 * (t > 16.9), 40)
    assert "clocks_throttled" not in {r.check for r in judge(open_loop(samples=hot)).reasons}


def test_calibration_scales_down_to_fewer_workers_never_up():
    calibration = Calibration(events_per_s=10_000, workers=4)
    assert [calibration.limit(n) for n in (1, 2, 4, 8)] == [2500, 5000, 10_000, 10_000]


def test_checks_bear_anything():
    """No check breaks on a run of which nothing went well, or nothing was sampled."""
    wrecks = [
        open_loop(requests=30, change=every(1, failed)),
        open_loop(requests=30, change=every(1, censor)),
        open_loop(requests=30, change=every(1, unsent)),
        replace(open_loop(requests=1), client=None),
        replace(closed_loop(), samples=(Sample(0.0, "gpu0_energy_j", math.inf),)),
    ]  # fmt: skip
    for run in wrecks:
        case = Case(View(run), calibration=SLOW_MACHINE)
        for check in CHECKS.values():
            check(case)
    assert judge(wrecks[2]).verdict == "invalid"
