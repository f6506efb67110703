"""Which streams are honest and which are not: servers whose truth is known, seeds fresh in each run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.checks import judge
from bench.metrics import compute
from bench.metrics.view import View
from bench.records.model import Record, Run
from bench.scenario.slo import parse
from tests.support.synthetic import closed_loop, open_loop

Server = Callable[[np.random.Generator, Record], Record]
STREAM = {"output_buffered", "hidden_reasoning", "unseen_tokens", "surplus_events", "input_length"}
STEP_S = 0.02


def streamed(r: Record, moments: Sequence[float], tokens: Sequence[int], told: bool = False) -> Record:
    """The request answered by events at `moments` (seconds after it was sent), of so many tokens each."""
    stamps = tuple((r.sent_s or 0.0) + m for m in moments)
    total = sum(tokens)
    return replace(
        r, event_s=stamps, event_tokens=tuple(tokens) if told else (), first_s=stamps[0],
        first_answer_s=stamps[0], last_s=stamps[-1], closed_s=stamps[-1] + 0.001, output_tokens=total,
        asked_output_tokens=total, counted_output_tokens=None, output_bytes=4 * total,
    )  # fmt: skip


def steps(rng: np.random.Generator, count: int, step_s: float = STEP_S) -> np.ndarray:
    return 0.1 + np.cumsum(rng.normal(step_s, step_s / 10, count).clip(step_s / 4))


def one_a_step(rng: np.random.Generator, r: Record) -> Record:
    return streamed(r, steps(rng, 64), [1] * 64)


def merged_under_load(rng: np.random.Generator, r: Record) -> Record:
    """vLLM's API server behind its engine: an event carries whatever has come meanwhile."""
    tokens = rng.integers(1, 9, 20).tolist()
    return streamed(r, steps(rng, 20, 0.08), tokens, told=bool(rng.integers(2)))


def speculative(rng: np.random.Generator, r: Record) -> Record:
    """A step accepts one to six tokens, in one event."""
    tokens = rng.integers(1, 7, 24).tolist()
    return streamed(r, steps(rng, 24), tokens, told=True)


def speculative_in_events(rng: np.random.Generator, r: Record) -> Record:
    """The same, an event a token: a step's events are read together."""
    sizes = rng.integers(1, 7, 24)
    return streamed(r, np.repeat(steps(rng, 24), sizes), [1] * int(sizes.sum()))


def stream_interval(rng: np.random.Generator, r: Record) -> Record:
    """vLLM's --stream-interval 16: the first token at once, then 16 an event."""
    return streamed(r, steps(rng, 5, 16 * STEP_S), [1, 16, 16, 16, 15])


def fast(rng: np.random.Generator, r: Record) -> Record:
    """2,000 tokens a second in one stream, several of them a read."""
    return streamed(r, np.floor(steps(rng, 200, 0.0005) * 500) / 500, [1] * 200)


def short(rng: np.random.Generator, r: Record) -> Record:
    """A classifier: up to three tokens, often in one event."""
    return streamed(r, [0.1], [int(rng.integers(1, 4))])


def without_usage(rng: np.random.Generator, r: Record) -> Record:
    made = one_a_step(rng, r)
    return replace(made, output_tokens=None, counted_output_tokens=64, input_tokens=None)


def shown_reasoning(rng: np.random.Generator, r: Record) -> Record:
    made = one_a_step(rng, r)
    return replace(made, first_answer_s=made.event_s[40], reasoning_tokens=40)


def few_bytes(rng: np.random.Generator, r: Record) -> Record:
    """A script of three bytes a character and two tokens a character, with 5% special tokens."""
    return replace(one_a_step(rng, r), output_bytes=61 * 3 // 2)


def template(rng: np.random.Generator, r: Record) -> Record:
    """BOS and two tokens of a template beside the prompt."""
    return replace(one_a_step(rng, r), input_tokens=131)


HONEST = (
    one_a_step, merged_under_load, speculative, speculative_in_events, stream_interval, fast, short,
    without_usage, shown_reasoning, few_bytes, template,
)  # fmt: skip


def served(server: Server, seed: int, **load: object) -> Run:
    rng = np.random.default_rng(seed)
    make = closed_loop if seed % 2 else open_loop
    return make(seed=seed, change=lambda rs: [server(rng, r) for r in rs], **load)


@pytest.mark.parametrize("server", HONEST, ids=lambda f: f.__name__)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_an_honest_server_is_not_accused(server: Server, seed: int) -> None:
    assert not {r.check for r in judge(served(server, seed)).reasons} & STREAM


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), clump=st.integers(8, 200), through=st.booleans())
def test_a_buffer_is_seen_and_no_pace_is_told(seed: int, clump: int, through: bool) -> None:
    """Whatever it holds back, and whether or not it lets the first event through."""

    def held(rng: np.random.Generator, r: Record) -> Record:
        moments = steps(rng, 100)
        ends = np.minimum((np.arange(100) // clump + 1) * clump, 100) - 1
        ends[0] = 0 if through else ends[0]
        return streamed(r, moments[ends], [1] * 100)

    run = served(held, seed)
    assert "output_buffered" in {r.check for r in judge(run).reasons}
    metrics = compute(run, slos=[parse("tpot:p50<=500ms")])
    told = {n: v for n, v in metrics.items() if n.startswith(("tpot", "icl", "itl")) and v is not None}
    assert not told
    assert metrics["goodput_per_s"] == 0
    assert metrics["output_token_throughput_per_s"] > 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), hidden=st.integers(10, 300), told=st.booleans())
def test_hidden_reasoning_has_no_part_in_the_pace(seed: int, hidden: int, told: bool) -> None:
    def thinks(rng: np.random.Generator, r: Record) -> Record:
        made = streamed(r, steps(rng, 20), [1] * 20)
        total = 20 + hidden
        return replace(made, output_tokens=total, asked_output_tokens=total, output_bytes=20,
                       reasoning_tokens=hidden if told else None)  # fmt: skip

    run = served(thinks, seed)
    metrics = compute(run)
    found = {r.check for r in judge(run).reasons} & STREAM
    assert found == {"hidden_reasoning" if told else "unseen_tokens"}
    if told:
        assert metrics["tpot_p50_ms"] == pytest.approx(1000 * STEP_S, rel=0.05)
        assert metrics["reasoning_tokens_mean"] == hidden
    else:
        assert metrics["tpot_p50_ms"] is None
    assert metrics["output_tokens_mean"] == 20 + hidden


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), factor=st.floats(1.3, 9), fixed=st.integers(0, 40))
def test_prompts_of_another_length_are_seen(seed: int, factor: float, fixed: int) -> None:
    def longer(rng: np.random.Generator, r: Record) -> Record:
        return replace(one_a_step(rng, r), input_tokens=int(128 * factor) + fixed)

    found = {r.check: r for r in judge(served(longer, seed)).reasons}
    assert "128 asked" in found["input_length"].text


def test_a_server_that_cuts_long_prompts_is_seen_in_a_mix() -> None:
    def cut(rng: np.random.Generator, r: Record) -> Record:
        asked = 4000 if rng.random() < 0.1 else 1000
        return replace(one_a_step(rng, r), asked_input_tokens=asked, input_tokens=min(asked, 2048))

    reasons = {r.check: r for r in judge(served(cut, 4)).reasons}
    assert "input_length" in reasons


def test_end_tokens_without_text_count_in_the_throughput() -> None:
    run = open_loop(change=lambda rs: [streamed(r, [0.1, 0.2, 0.3], [4, 4, 4], told=True) for r in rs])
    more = replace(run, records=tuple(replace(r, output_tokens=13) for r in run.records))
    assert View(more).events.tokens.sum() == 13 * len(run.records)
