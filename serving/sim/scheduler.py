"""Continuous batching, simulated: which sequences a step holds, what it costs, when one is preempted.

The rules are vLLM's (V1): running sequences first, then waiting ones, under max_num_batched_tokens and
max_num_seqs; prompts in chunks when chunked prefill is on; when no block is free, the youngest sequence is
put back and computed again later. No clock here: `begin` says how long the step takes, `finish` ends it.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from serving.costmodel.defaults import Resolved
from serving.costmodel.hardware import Hardware
from serving.costmodel.memory import MemoryBudget, budget, spike_bytes
from serving.costmodel.roofline import Costs, costs, step_time_s
from serving.costmodel.shapes import Shape
from serving.sim.kv_blocks import BlockPool, HeldBlocks, Token
from serving.sim.settings import SimSettings


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything that the physics of one simulated server depends on."""

    resolved: Resolved
    hardware: Hardware
    shape: Shape
    sim: SimSettings
    budget: MemoryBudget
    cost: Costs


def setup(resolved: Resolved, hardware: Hardware, shape: Shape, sim: SimSettings) -> Setup:
    """With the memory and step costs worked out. KeyError for a quantization whose physics is not known."""
    memory, cost = budget(resolved, hardware, shape), costs(resolved, hardware, shape)
    return Setup(resolved, hardware, shape, sim, memory, cost)


class OutOfMemoryError(Exception):
    """A step needed more memory than start-up had profiled; `bytes` more than there was."""

    def __init__(self, wanted: int, free: int) -> None:
        super().__init__(f"{wanted} bytes wanted, {free} free")
        self.wanted, self.free = wanted, free


@dataclass(slots=True, eq=False)
class Sequence:
    """One prompt on its way. `computed` tokens are cached; a step that computes the last one samples.

    The stamps (`arrived_s` and so on) are seconds on its user's clock, and `owner` is its user's too.
    """

    prompt: list[Token]
    max_tokens: int
    number: int = 0
    hashes: list[int] = field(default_factory=list)
    held: HeldBlocks = field(default_factory=HeldBlocks)
    computed: int = 0
    generated: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    chunk: int = 0
    state: str = "waiting"
    output: list[Token] = field(default_factory=list)
    arrived_s: float = 0.0
    started_s: float = 0.0
    first_s: float = 0.0
    last_s: float = 0.0
    owner: Any = None

    @property
    def length(self) -> int:
        return len(self.prompt) + self.generated


@dataclass(slots=True)
class EngineStep:
    """One step under way: nominal seconds (time scale not applied), its sequences, who was just started."""

    duration_s: float
    batch: list[Sequence]
    started: list[Sequence]
    tokens: int


class Scheduler:
    """The queue, the batch and the KV cache of one server."""

    def __init__(self, setup: Setup, salt: str = "") -> None:
        self.setup = setup
        memory, resolved = setup.budget, setup.resolved
        self.pool = BlockPool(
            memory.kv_tokens // memory.block_tokens,
            memory.block_tokens,
            caching=resolved.enable_prefix_caching,
        )
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.slowdown = 1.0
        self._random = random.Random(f"{setup.sim.seed}:steps:{salt}")  # noqa: S311 -- a simulation
        launch = random.Random(f"{setup.sim.seed}:launch:{salt}")  # noqa: S311
        self.launch_factor = _lognormal(launch, setup.sim.noise)
        kv_bytes = round(memory.kv_tokens * memory.kv_per_token)
        self._headroom = memory.total - memory.used - kv_bytes

    def add(self, sequence: Sequence) -> None:
        """Queues it. It must fit: len(prompt) + max_tokens <= max_model_len (the server's check)."""
        sequence.hashes = self.pool.hashes(sequence.prompt)
        self.waiting.append(sequence)

    def abort(self, sequence: Sequence) -> None:
        """Forgets a sequence wherever it is; its blocks are free at once."""
        if sequence.state == "running":
            self.running.remove(sequence)
        elif sequence.state == "waiting" and sequence in self.waiting:
            self.waiting.remove(sequence)
        self.pool.release(sequence.held)
        sequence.state = "done"

    def begin(self) -> EngineStep | None:
        """The next step, or None when nothing can run. OutOfMemoryError when it would not fit the device."""
        resolved, pool = self.setup.resolved, self.pool
        left = resolved.max_num_batched_tokens
        batch: list[Sequence] = []
        preempted = False
        index = 0
        while index < len(self.running) and left > 0:
            sequence = self.running[index]
            chunk = min(sequence.length - sequence.computed, left)
            while not pool.grow(sequence.held, sequence.computed + chunk):
                victim = self.running.pop()
                self._preempt(victim)
                preempted = True
                if victim is sequence:
                    break
            if sequence.state != "running":
                break
            sequence.chunk = chunk
            left -= chunk
            batch.append(sequence)
            index += 1
        started: list[Sequence] = []
        if not preempted:
            started = self._admit(left)
            batch += started
        return self._step(batch, started) if batch else None

    def finish(self, step: EngineStep) -> list[Sequence]:
        """Ends a step: returns the sequences that got a token, in batch order. Aborted ones get none."""
        sampled = []
        pool = self.pool
        for sequence in step.batch:
            if sequence.state != "running":
                continue
            sequence.computed += sequence.chunk
            if sequence.hashes and sequence.held.committed < len(sequence.hashes):
                pool.commit(sequence.held, sequence.hashes, sequence.computed)
            if sequence.computed == sequence.length:
                sequence.generated += 1
                sampled.append(sequence)
        return sampled

    def end(self, sequence: Sequence) -> None:
        """The sequence has its last token: what it leaves in the cache serves later turns."""
        if sequence.output and self.pool.caching:
            whole = len(sequence.hashes) * self.pool.block_tokens
            rest = [*sequence.prompt[whole:], *sequence.output]
            more = self.pool.hashes(rest, before=sequence.hashes[-1] if sequence.hashes else 0)
            self.pool.commit(sequence.held, sequence.hashes + more, sequence.computed)
        self.abort(sequence)

    def _admit(self, left: int) -> list[Sequence]:
        resolved, pool = self.setup.resolved, self.pool
        started: list[Sequence] = []
        while self.waiting and left > 0 and len(self.running) < resolved.max_num_seqs:
            sequence = self.waiting[0]
            shared = pool.share(sequence.held, sequence.hashes, (sequence.length - 1) // pool.block_tokens)
            cached = shared * pool.block_tokens
            need = sequence.length - cached
            if not resolved.enable_chunked_prefill and need > left:
                pool.release(sequence.held)
                break
            chunk = min(need, left)
            if not pool.grow(sequence.held, cached + chunk):
                pool.release(sequence.held)
                break
            self.waiting.popleft()
            if pool.caching and not sequence.preemptions:
                self.prefix_queries += sequence.length
                self.prefix_hits += cached
                sequence.cached_tokens = cached
            sequence.computed, sequence.chunk, sequence.state = cached, chunk, "running"
            left -= chunk
            self.running.append(sequence)
            started.append(sequence)
        return started

    def _preempt(self, sequence: Sequence) -> None:
        self.pool.release(sequence.held)
        sequence.computed, sequence.state = 0, "waiting"
        sequence.preemptions += 1
        self.preemptions += 1
        self.waiting.appendleft(sequence)

    def _step(self, batch: list[Sequence], started: list[Sequence]) -> EngineStep:
        tokens = sampled = behind = 0
        pairs = 0.0
        for sequence in batch:
            chunk, computed = sequence.chunk, sequence.computed
            tokens += chunk
            behind += computed + chunk
            pairs += chunk * computed + chunk * (chunk + 1) / 2
            sampled += computed + chunk == sequence.length
        resolved = self.setup.resolved
        wanted = spike_bytes(
            self.setup.budget, len(batch) / resolved.max_num_seqs, tokens / resolved.max_num_batched_tokens
        )
        if wanted > self._headroom:
            raise OutOfMemoryError(wanted, max(0, self._headroom))
        nominal = step_time_s(
            self.setup.cost,
            tokens=tokens,
            sequences=len(batch),
            sampled=sampled,
            kv_tokens=behind,
            pairs=pairs,
        )
        spread = _lognormal(self._random, self.setup.sim.noise)
        return EngineStep(nominal * self.launch_factor * spread * self.slowdown, batch, started, tokens)


def _lognormal(source: random.Random, sigma: float) -> float:
    """A factor of mean 1."""
    return source.lognormvariate(-sigma * sigma / 2, sigma) if sigma else 1.0
