"""Continuous batching and the KV cache of the simulated engine, in virtual time: no clock, no sockets."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.plan.estimate import throughput_bound
from bench.point import Load
from serving.config import ServingConfig
from serving.costmodel import hardware, shapes
from serving.costmodel.defaults import resolve
from serving.costmodel.roofline import decode_time_s, prefill_time_s
from serving.sim.kv_blocks import BlockPool, HeldBlocks
from serving.sim.scheduler import OutOfMemoryError, Scheduler, Sequence, Setup, setup
from serving.sim.settings import SimSettings
from serving.sim.virtual import Served, SimArrival, simulate


def made(
    gpu: str = "h200", shape: str = "llama-3.1-8b", noise: float = 0.0, seed: int = 1, **asked: Any
) -> Setup:
    device, model = hardware.HARDWARE[gpu], shapes.SHAPES[shape]
    resolved = resolve({"max_model_len": 4096, **asked}, device, model)
    return setup(resolved, device, model, SimSettings(gpu=gpu, shape=shape, noise=noise, seed=seed))


def crowd(number: int, tokens_in: int = 200, tokens_out: int = 50, rate: float = 0.0) -> list[SimArrival]:
    return [SimArrival(i / rate if rate else 0.0, tokens_in, tokens_out) for i in range(number)]


def rate_of(served: list[Served]) -> float:
    return sum(s.arrival.output_tokens for s in served) / max(s.last_s for s in served)


# --- the pool -------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 80), st.integers(0, 3)), max_size=60), st.booleans()
)
def test_blocks_are_conserved_whatever_happens(steps: list[tuple[int, int, int]], caching: bool) -> None:
    pool = BlockPool(16, 4, caching=caching)
    held = [HeldBlocks() for _ in range(6)]
    hashes: list[list[int]] = [[] for _ in held]
    for who, tokens, text in steps:
        mine = held[who]
        if mine.blocks and tokens % 3 == 0:
            pool.release(mine)
        elif not mine.blocks:
            hashes[who] = pool.hashes([text] * tokens)
            pool.share(mine, hashes[who], len(hashes[who]))
            if pool.grow(mine, tokens):
                pool.commit(mine, hashes[who], tokens)
            else:
                pool.release(mine)
        else:
            pool.grow(mine, mine.blocks * 4 + tokens)
        shared = {known for h in held for known in h.shared}
        private = sum(h.private for h in held)
        assert pool.free + private + len(shared) == pool.total
        assert all(h.private >= 0 for h in held)
        assert 0 <= pool.usage <= 1
    for h in held:
        pool.release(h)
    assert pool.free == pool.total
    assert pool.reset()


def test_a_block_is_known_by_all_that_stands_before_it() -> None:
    pool = BlockPool(100, 4, caching=True)
    one, other = pool.hashes([1, 2, 3, 4, 5, 6, 7, 8, 9]), pool.hashes([0, 2, 3, 4, 5, 6, 7, 8])
    assert len(one) == len(other) == 2
    assert not set(one) & set(other)
    assert pool.hashes([5, 6, 7, 8], before=one[0]) == one[1:]
    assert BlockPool(100, 4, caching=False).hashes([1, 2, 3, 4]) == []


def test_the_cache_forgets_the_oldest_and_the_ends_of_prompts_first() -> None:
    pool = BlockPool(4, 1, caching=True)
    first, second = HeldBlocks(), HeldBlocks()
    for held, tokens in ((first, [1, 2]), (second, [3, 4])):
        assert pool.grow(held, 2)
        pool.commit(held, pool.hashes(tokens), 2)
        pool.release(held)
    assert pool.free == 4
    newcomer, again = HeldBlocks(), HeldBlocks()
    assert pool.grow(newcomer, 1)
    assert pool.share(again, pool.hashes([1, 2]), 2) == 1
    assert pool.share(HeldBlocks(), pool.hashes([3, 4]), 2) == 2


def test_the_cache_is_not_emptied_under_running_sequences() -> None:
    pool = BlockPool(4, 1, caching=True)
    held = HeldBlocks()
    pool.grow(held, 2)
    assert not pool.reset()
    pool.release(held)
    assert pool.reset()


# --- the scheduler --------------------------------------------------------------------------------


def test_one_request_takes_its_prefill_and_its_steps() -> None:
    built = made()
    [one] = simulate(built, [SimArrival(0.0, 100, 11)])
    assert one.ttft_s == pytest.approx(prefill_time_s(built.cost, 100))
    steps = [decode_time_s(built.cost, 1, 100 + k) for k in range(1, 11)]
    assert one.last_s - one.first_s == pytest.approx(sum(steps), rel=1e-3)


def test_the_same_seed_is_the_same_run_and_another_is_not() -> None:
    run = simulate(made(noise=0.1), crowd(20))
    assert simulate(made(noise=0.1), crowd(20)) == run
    assert simulate(made(noise=0.1, seed=2), crowd(20)) != run
    assert simulate(made(noise=0.1), crowd(20), salt="another launch") != run
    assert simulate(made(), crowd(20)) == simulate(made(seed=2), crowd(20))


def test_noise_spreads_launches_around_the_truth() -> None:
    built = made(noise=0.05)
    factors = [Scheduler(built, salt=str(n)).launch_factor for n in range(400)]
    assert statistics.mean(factors) == pytest.approx(1.0, abs=0.01)
    assert statistics.stdev(factors) == pytest.approx(0.05, rel=0.15)
    assert Scheduler(made(), salt="x").launch_factor == 1.0


@given(
    st.lists(st.tuples(st.floats(0, 0.2), st.integers(1, 300), st.integers(1, 40)), min_size=1, max_size=30),
    st.sampled_from([2, 4, 64]),
    st.sampled_from([64, 512, 2048]),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_everyone_is_served_in_full(
    wanted: list[tuple[float, int, int]], seqs: int, batched: int, chunked: bool
) -> None:
    asked = {"max_num_seqs": seqs, "max_num_batched_tokens": batched, "enable_chunked_prefill": chunked}
    built = made(max_model_len=400 if chunked else min(400, batched), **asked)
    arrivals = [SimArrival(*w) for w in wanted if w[1] + w[2] <= built.resolved.max_model_len]
    served = simulate(built, arrivals)
    assert sorted(s.arrival.at_s for s in served) == sorted(a.at_s for a in arrivals)
    for one in served:
        assert one.arrived_s < one.first_s <= one.last_s
        alone = prefill_time_s(built.cost, min(one.arrival.input_tokens, batched))
        assert one.ttft_s >= alone * (1 - 1e-9)


def test_steps_respect_both_limits() -> None:
    scheduler = Scheduler(made(max_num_seqs=3, max_num_batched_tokens=100))
    for _ in range(6):
        scheduler.waiting.append(Sequence([0] * 80, 5))
    seen = []
    while step := scheduler.begin():
        seen.append((len(step.batch), step.tokens))
        for sequence in scheduler.finish(step):
            if sequence.generated == 5:
                scheduler.end(sequence)
    assert max(batch for batch, _ in seen) == 3
    assert max(tokens for _, tokens in seen) <= 100
    assert seen[0] == (2, 100), "the second prompt comes in by a chunk"


def test_without_chunks_a_prompt_waits_for_a_step_of_its_own() -> None:
    asked = {"max_num_batched_tokens": 512, "max_model_len": 512, "enable_chunked_prefill": False}
    scheduler = Scheduler(made(**asked))
    scheduler.waiting.extend((Sequence([0] * 400, 2), Sequence([0] * 400, 2)))
    step = scheduler.begin()
    assert step is not None
    assert [s.chunk for s in step.batch] == [400]


def test_chunks_keep_a_long_prompt_from_holding_up_the_others() -> None:
    def longest_step_s(batched: int) -> float:
        scheduler = Scheduler(made("l4", "qwen2.5-7b", max_num_batched_tokens=batched, max_num_seqs=8))
        scheduler.waiting.append(Sequence([0] * 50, 100))
        longest = 0.0
        for number in range(60):
            if number == 10:
                scheduler.waiting.append(Sequence([0] * 3500, 10))
            step = scheduler.begin()
            assert step is not None
            scheduler.finish(step)
            longest = max(longest, step.duration_s)
        return longest

    assert longest_step_s(4096) > 5 * longest_step_s(256)


def test_a_full_cache_preempts_and_still_serves_everyone() -> None:
    tight = made("l4", "qwen2.5-7b", max_model_len=2048, max_num_seqs=64, gpu_memory_utilization=0.92)
    small = replace(tight, budget=replace(tight.budget, kv_tokens=4096))
    served = simulate(small, crowd(24, 300, 200))
    assert len(served) == 24
    assert sum(s.preemptions for s in served) > 0
    roomy = simulate(tight, crowd(24, 300, 200))
    assert sum(s.preemptions for s in roomy) == 0
    assert rate_of(served) < rate_of(roomy)


def test_more_memory_never_preempts_more() -> None:
    tight = made("l4", "qwen2.5-7b", max_model_len=2048, max_num_seqs=64)
    counts = []
    for tokens in (2048, 4096, 8192, 16384):
        built = replace(tight, budget=replace(tight.budget, kv_tokens=tokens))
        counts.append(sum(s.preemptions for s in simulate(built, crowd(24, 300, 200))))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 0 == counts[-1]


def test_a_shared_prefix_is_computed_once() -> None:
    def first_token_s(caching: bool, same: bool) -> tuple[float, int]:
        scheduler = Scheduler(made(enable_prefix_caching=caching))
        spent = 0.0
        for number in range(2):
            start = 0 if same else number * 10_000
            scheduler.add(Sequence(list(range(start, start + 1000)), 1))
            step = scheduler.begin()
            assert step is not None
            spent = step.duration_s
            for sequence in scheduler.finish(step):
                sequence.output.append(7)
                scheduler.end(sequence)
        return spent, scheduler.prefix_hits

    cold, no_hits = first_token_s(caching=True, same=False)
    warm, hits = first_token_s(caching=True, same=True)
    off, off_hits = first_token_s(caching=False, same=True)
    assert (no_hits, hits, off_hits) == (0, 992, 0)
    assert warm < cold == off


def test_an_answer_is_cached_for_the_next_turn() -> None:
    scheduler = Scheduler(made())
    first = Sequence(list(range(40)), 24)
    scheduler.add(first)
    while step := scheduler.begin():
        for sequence in scheduler.finish(step):
            sequence.output.append(1000 + sequence.generated)
            if sequence.generated == 24:
                scheduler.end(sequence)
    scheduler.add(Sequence([*first.prompt, *first.output, 1, 2, 3], 1))
    scheduler.begin()
    assert scheduler.prefix_hits == 48, "the last token of an answer was never computed: three blocks of 16"


def test_an_aborted_sequence_gives_its_blocks_back() -> None:
    scheduler = Scheduler(made())
    running, waiting = Sequence([0] * 100, 50), Sequence([0] * 100, 50)
    scheduler.add(running)
    step = scheduler.begin()
    assert step is not None
    scheduler.add(waiting)
    scheduler.abort(waiting)
    scheduler.abort(running)
    assert scheduler.finish(step) == []
    assert scheduler.begin() is None
    assert scheduler.pool.usage == 0


def test_too_much_of_the_device_kills_it_under_load_only() -> None:
    """What start-up profiled is not all: issue vllm 21410 is about configs that start and then die."""
    asked = {"max_model_len": 4096, "max_num_seqs": 64, "max_num_batched_tokens": 4096}
    greedy = made("l4", "qwen2.5-7b", gpu_memory_utilization=0.98, **asked)
    assert simulate(greedy, crowd(2, 100, 20))
    with pytest.raises(OutOfMemoryError):
        simulate(greedy, crowd(80, 1000, 20))
    assert simulate(made("l4", "qwen2.5-7b", gpu_memory_utilization=0.92, **asked), crowd(80, 1000, 20))


def test_a_closed_loop_keeps_its_number_in_flight() -> None:
    served = simulate(made(), crowd(40), concurrency=4)
    marks = sorted([(s.arrived_s, 1) for s in served] + [(s.last_s, -1) for s in served])
    level, most = 0, 0
    for _, change in marks:
        level += change
        most = max(most, level)
    assert len(served) == 40
    assert most == 4


def test_a_request_too_long_for_the_model_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_model_len is 4096"):
        simulate(made(), [SimArrival(0.0, 4000, 97)])


def test_a_rate_beyond_capacity_queues() -> None:
    calm = simulate(made(max_num_seqs=4), crowd(100, 100, 20, rate=10))
    flooded = simulate(made(max_num_seqs=4), crowd(100, 100, 20, rate=1000))
    assert max(s.ttft_s for s in flooded) > 20 * max(s.ttft_s for s in calm)


@given(
    st.sampled_from(["h200", "l4", "l40s", "cpu-2core"]),
    st.sampled_from(["none", "fp8", "w4a16", "bitsandbytes", "w8a8"]),
    st.sampled_from([1, 4, 32]),
    st.sampled_from([16, 500]),
    st.sampled_from([1, 8, 60]),
)
@settings(deadline=None, max_examples=40)
def test_no_simulation_beats_the_bound(
    gpu: str, method: str, users: int, tokens_in: int, tokens_out: int
) -> None:
    built = made(gpu, "qwen2.5-0.5b", quantization=method, max_model_len=1024)
    config = ServingConfig(engine="vllm", model="m", quantization=method, max_model_len=1024)
    load = Load("x", tokens_in, tokens_out, concurrency=users)
    served = simulate(built, crowd(users * 4, tokens_in, tokens_out), concurrency=users)
    assert rate_of(served) <= throughput_bound(config, load, built.hardware, built.shape)
