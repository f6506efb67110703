"""The whole flow on one screen: launch, warm up, load, sample, keep. A failure is data; the plan goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench.client.dialect import STRICT_NOTE, is_strict
from bench.client.drive import Drive, drive
from bench.client.lengths import fitted
from bench.evaluation.run import evaluate_launch, not_evaluated, owed
from bench.plan.planning import Launch, Plan
from bench.point import Point
from bench.progress import Watch
from bench.records.folder import RunFolder
from bench.records.model import Record, RequestError, Run
from bench.telemetry.probe import Sampler
from bench.traffic.prompts import Prompts, prompts_for
from serving.engines import engine
from serving.errors import EngineError, Failure
from serving.launch.launch import Server
from serving.launch.launch import launch as start

DEATH_NOTICED_S = 3.0
STREAMING_S = 5.0
"""A request whose last output came so shortly before its end was being answered."""


def never() -> bool:
    """The `should_stop` of a plan that is measured to its end."""
    return False


def measure(plan: Plan, folder: RunFolder, watch: Watch, should_stop: Callable[[], bool] = never) -> None:
    """Every point of the plan that `folder` does not hold yet, one launch after the other.

    should_stop   asked before each launch and after each point that did not fail: True leaves out the rest
    """
    done = folder.done()
    for number, launch in enumerate(plan.launches, 1):
        todo = [point for point in launch.points if point.key not in done]
        attempt = 1
        while (todo or owed(plan, folder, launch)) and not should_stop():
            watch.launch_started(launch.config, number, len(plan.launches))
            todo = _serve(plan, folder, launch, todo, attempt, watch, should_stop)
            attempt += 1
    watch.finished()


def _serve(
    plan: Plan, folder: RunFolder, launch: Launch, todo: Sequence[Point], attempt: int, watch: Watch,
    should_stop: Callable[[], bool],
) -> list[Point]:  # fmt: skip
    """Measures points on one server, then scores it; returns the points left when it died.

    Each death costs one point. A server that dies after its last point leaves its evaluation to the next
    launch, one that dies while it is scored leaves a failed evaluation.
    """
    name = launch.name if attempt == 1 else f"{launch.name}-{attempt}"
    chosen = engine(launch.config.engine)
    folder.append("launch", name=name, config=launch.config.key)
    left, started = list(todo), time.monotonic()
    try:
        with start(
            chosen,
            launch.config,
            folder.path / "launches" / name,
            ready_timeout_s=plan.scenario.limits.ready_s,
        ) as server:
            watch.ready(server.endpoint.ready_s)
            prompts = prompts_for(launch.config)
            while left and server.alive():
                point = left.pop(0)
                watch.point_started(point)
                run = _measure_point(plan, point, server, prompts, folder.path / "points" / point.key, watch)
                folder.save(replace(run, launch=name))
                watch.point_finished(run)
                if run.failure is None and should_stop():
                    return left
                more = plan.more(run)
                if more is not None and more.key not in folder.done():
                    left.insert(0, more)
            if not left and (server.alive() or not todo):
                evaluate_launch(plan, folder, launch, server, watch, time.monotonic() - started)
    except EngineError as error:
        watch.launch_failed(error.failure)
        for point in left:
            folder.save(Run(point, failure=error.failure, simulated=chosen.simulated, launch=name))
        not_evaluated(plan, folder, launch, error.failure)
        return []
    return left


def _measure_point(
    plan: Plan, point: Point, server: Server, prompts: Prompts, scratch: Path, watch: Watch
) -> Run:
    """Warm-up, cache reset, then the load with telemetry beside it."""
    endpoint, telemetry = server.endpoint, plan.scenario.telemetry
    strict = is_strict(endpoint, point.load)
    notes = [STRICT_NOTE] if strict else []
    if not endpoint.simulated:  # whose tokens are words
        prompts, said = fitted(endpoint, point.load, prompts, lenient=strict)
        notes += said
    sampler = Sampler(
        endpoint.pid,
        endpoint.url if telemetry.server_metrics else None,
        plan.device,
        interval_s=telemetry.interval_s,
    )
    with ExitStack() as stack:

        def before_start() -> None:
            if not engine(point.config.engine).reset_prefix_cache(endpoint.url):
                notes.append("the engine cannot empty its prefix cache; prompts are unique instead")
            stack.enter_context(sampler)

        driven = drive(endpoint, point.load, seed=point.seed, prompts=prompts, folder=scratch / "load",
                       salt=point.key, lenient=strict, before_start=before_start, alive=server.alive,
                       progress=watch.load_progress)  # fmt: skip
    return Run(
        point=point,
        records=driven.records,
        samples=sampler.samples(driven.started_monotonic_s),
        client=driven.client,
        failure=_failure(server, driven),
        load_end_s=driven.load_end_s,
        started_unix_s=driven.started_unix_s,
        ready_s=endpoint.ready_s,
        effective=endpoint.effective,
        engine_version=endpoint.version,
        simulated=endpoint.simulated,
        notes=(*notes, *sampler.notes),
    )


def _failure(server: Server, driven: Drive) -> Failure | None:
    """Why the server is no longer of use: dead, or silent on every request."""
    errors = {record.error for record in driven.records}
    if errors & {RequestError.CONNECT, RequestError.RESET}:
        # Broken connections are noticed at once, the end of the process a moment later.
        deadline = time.monotonic() + DEATH_NOTICED_S
        while server.alive() and time.monotonic() < deadline:
            time.sleep(0.05)
    if not server.alive():
        return server.why_dead()
    if driven.records and errors <= {RequestError.SILENT, RequestError.TIMEOUT, RequestError.CENSORED}:
        return None if any(map(_streamed, driven.records)) else server.why_silent(driven.records)
    return None


def _streamed(record: Record) -> bool:
    """Whether output still came when the request was given up: slow or without end, but not silent."""
    if record.last_s is None or record.closed_s is None or record.error is RequestError.SILENT:
        return False
    return record.closed_s - record.last_s < STREAMING_S
