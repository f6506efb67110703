"""The engine of the simulated server: steps on an absolute schedule, tokens handed out, faults."""

from __future__ import annotations

import asyncio
import os
import random
import signal

from serving.costmodel import quantization
from serving.sim import launch
from serving.sim.metrics import Gauges, Metrics
from serving.sim.replies import SimItem, SimReply
from serving.sim.scheduler import EngineStep, OutOfMemoryError, Scheduler, Sequence, Setup

TROUBLE_TOKENS = 3
"""Tokens that a stream gets before `in_stream_error`."""
SLOWER = 10.0


class SimLoop:
    """One engine. Each step ends at the moment its predecessor ended plus its own time, so no drift accrues.

    Where the process cannot keep up, steps end late and `behind_s` says by how much.
    """

    def __init__(self, setup: Setup, salt: str) -> None:
        self.setup = setup
        self.scheduler = Scheduler(setup, salt)
        self.metrics = Metrics()
        self.loss = quality_loss(setup)
        self._clock = asyncio.get_running_loop().time
        self._wake = asyncio.Event()
        self._requests = 0
        self._stalled = False
        self._errors = random.Random(f"{setup.sim.seed}:errors")  # noqa: S311 -- a simulation

    def submit(self, reply: SimReply) -> None:
        """Takes a request in: queued, or met by a fault."""
        self._requests += 1
        fault, now = self.setup.sim.fault, self._clock()
        if fault.name == "error_rate" and self._errors.random() < fault.value:
            self.metrics.finished["error"] += 1
            reply.fail("simulated error (fault error_rate)")
            return
        if fault.strikes("slow_after", self._requests):
            self.scheduler.slowdown = SLOWER
        if fault.strikes("hang_after", self._requests):
            return
        reply.connection.on_close = lambda: self._abort(reply)
        for item in reply.items:
            sequence = item.sequence
            sequence.number, sequence.arrived_s = self._requests, now
            self.scheduler.add(sequence)
        self._wake.set()

    def gauges(self) -> Gauges:
        scheduler = self.scheduler
        return Gauges(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            kv_usage=scheduler.pool.usage,
            prefix_queries=scheduler.prefix_queries,
            prefix_hits=scheduler.prefix_hits,
            preemptions=scheduler.preemptions,
        )

    async def run(self) -> None:
        """Steps for as long as the process lives."""
        scale = self.setup.sim.time_scale
        at = self._clock()
        while True:
            try:
                step = self.scheduler.begin()
            except OutOfMemoryError as error:
                launch.die_running(launch.out_of_memory(self.setup, error.wanted, error.free))
            if step is None:
                self._wake.clear()
                await self._wake.wait()
                at = self._clock()
                continue
            for sequence in step.started:
                at += self._strike(sequence)
                if not sequence.started_s:
                    sequence.started_s = max(at, sequence.arrived_s)
                    self.metrics.queue.observe(sequence.started_s - sequence.arrived_s)
            at += step.duration_s * scale
            await asyncio.sleep(max(0.0, at - self._clock()))
            self._hand_out(step, at)

    def _hand_out(self, step: EngineStep, due: float) -> None:
        metrics, now = self.metrics, self._clock()
        metrics.steps += 1
        metrics.behind_s = now - due
        metrics.behind_max_s = max(metrics.behind_max_s, metrics.behind_s)
        for sequence in self.scheduler.finish(step):
            if sequence.state != "running":
                continue
            metrics.generation_tokens += 1
            if sequence.generated == 1:
                sequence.first_s = now
                metrics.prompt_tokens += len(sequence.prompt)
                metrics.ttft.observe(now - sequence.arrived_s)
            else:
                metrics.itl.observe(now - sequence.last_s)
            sequence.last_s = now
            item: SimItem = sequence.owner
            if item.token():
                self._end(item)
            elif self._broken(sequence):
                self._drop(item.reply, "error")
                item.reply.fail("simulated error (fault in_stream_error)")

    def _end(self, item: SimItem) -> None:
        sequence, metrics = item.sequence, self.metrics
        self.scheduler.end(sequence)
        metrics.finished[item.finish or "abort"] += 1
        metrics.e2e.observe(sequence.last_s - sequence.arrived_s)
        metrics.prefill.observe(sequence.first_s - sequence.started_s)
        metrics.decode.observe(sequence.last_s - sequence.first_s)
        if sequence.generated > 1:
            metrics.tpot.observe((sequence.last_s - sequence.first_s) / (sequence.generated - 1))
        item.reply.finished()

    def _abort(self, reply: SimReply) -> None:
        self._drop(reply, "abort")

    def _drop(self, reply: SimReply, reason: str) -> None:
        for item in reply.items:
            if item.sequence.state != "done":
                self.scheduler.abort(item.sequence)
                self.metrics.finished[reason] += 1

    def _broken(self, sequence: Sequence) -> bool:
        broken = self.setup.sim.fault.strikes("in_stream_error", sequence.number)
        return broken and sequence.generated >= TROUBLE_TOKENS

    def _strike(self, sequence: Sequence) -> float:
        """What a fault does when this sequence runs; returns the seconds it holds the engine up."""
        fault = self.setup.sim.fault
        if fault.strikes("oom_under_load", sequence.number):
            launch.die_running(launch.out_of_memory(self.setup, 786 * launch.MIB, 140 * launch.MIB))
        if fault.strikes("crash_after", sequence.number):
            launch.die_running("RuntimeError: CUDA error: an illegal memory access was encountered")
        if fault.strikes("killed_after", sequence.number):
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.name == "stall" and sequence.number >= 10 and not self._stalled:
            self._stalled = True
            return fault.value
        return 0.0


def quality_loss(setup: Setup) -> float:
    """Share of output tokens that this server's quantization changes."""
    scheme = quantization.find(setup.resolved.quantization)
    weights = scheme.loss if scheme else 0.0
    return weights + quantization.KV_LOSS.get(setup.resolved.kv_cache_dtype, 0.0)
