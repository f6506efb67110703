"""Launches an engine and hands out a server that is ready and what was asked for; stops it afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from serving.config import ServingConfig
from serving.engine import Endpoint, Engine
from serving.errors import EngineError, Failure, FailureKind
from serving.failure.classify import Behaviour, classify, tail
from serving.launch import ready, supervisor
from serving.launch.child import GRACE_S, Child, free_port, port_is_free, start
from serving.wire import WireError

PORT_TRIES = 3
LEAST_HANG_S = 10.0
"""A server that is silent for less than this before the readiness limit was late, and need not hang."""


@dataclass(frozen=True)
class Server:
    """A server that answers: a child of ours, or one that runs elsewhere (`child` is None)."""

    endpoint: Endpoint
    config: ServingConfig
    child: Child | None

    def alive(self) -> bool:
        """Whether its process runs; for a server we did not start, whether it accepts connections."""
        if self.child is not None:
            return self.child.runs()
        return ready.listens(self.endpoint.url, self.config)

    def log_text(self) -> str:
        """Everything the engine wrote so far; empty for a server we did not start."""
        return self.child.log_text() if self.child else ""

    def why_dead(self) -> Failure:
        """Why it is gone, once `alive` is false."""
        return _failure(self.child, self.config, "exited", load=True)

    def why_silent(self, records: Sequence[object]) -> Failure:
        """Why a living server, that said nothing more to any of these requests, is taken to hang."""
        failure = _failure(self.child, self.config, "silent", load=True)
        return replace(failure, detail=f"{failure.detail}: {len(records)} requests fell silent")


@contextmanager
def launch(
    engine: Engine,
    config: ServingConfig,
    folder: Path,
    *,
    ready_timeout_s: float = 300.0,
    hang_s: float = 90.0,
    port: int | None = None,
) -> Iterator[Server]:
    """A ready server of `config` while the body runs; afterwards nothing of it is left.

    Ready: healthy, and through with a real generation, within `ready_timeout_s` of its start (a healthy
    server that does not finish a few tokens in `hang_s` hangs); it lists the model that was asked for, and
    reports the settings as they were asked. Anything else raises EngineError with the classified Failure.
    `folder` gets command.json and engine.log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if engine.command(config, 0) is None:
        yield _elsewhere(engine, config, ready_timeout_s)
        return
    for attempt in range(1, PORT_TRIES + 1):
        child = _start(engine, config, folder, port or free_port())
        try:
            try:
                endpoint = _until_ready(engine, config, child, ready_timeout_s, hang_s)
            except EngineError as error:
                taken = error.failure.kind is FailureKind.PORT_TAKEN
                child.held_port = not taken
                if taken and port is None and attempt < PORT_TRIES:
                    continue  # another process took it between our choice and the engine's start
                raise
            yield Server(endpoint, config, child)
            return
        finally:
            child.stop()


def _start(engine: Engine, config: ServingConfig, folder: Path, port: int) -> Child:
    if not port_is_free(port):
        detail, hint = f"port {port} on 127.0.0.1 is in use", "leave the choice of the port to servetune"
        raise EngineError(Failure(FailureKind.PORT_TAKEN, detail, hint, settings=config.settings))
    command = engine.command(config, port)
    assert command is not None
    return start(command, folder, port, config.env, gpu=config.device == "cuda" and not engine.simulated)


def _until_ready(
    engine: Engine, config: ServingConfig, child: Child, ready_timeout_s: float, hang_s: float
) -> Endpoint:
    """The endpoint of a server that is ready and what was asked; EngineError when it will not be."""
    url, model = f"http://127.0.0.1:{child.port}", engine.served_model(config)
    deadline = child.started_s + ready_timeout_s
    behaviour: Behaviour
    if not ready.wait_healthy(url, config, deadline, child.runs):
        behaviour = "not_ready" if child.runs() else "exited"
        raise EngineError(_failure(child, config, behaviour, waited_s=ready_timeout_s))
    stranger = ready.identity(url, config, model)
    if stranger:
        raise EngineError(_wrong(stranger, child.log_text(), config))
    left_s = max(1.0, deadline - time.monotonic())
    trouble = ready.generate(url, config, model, min(hang_s, left_s))
    if trouble:
        dead = child.exit_code(wait_s=0.5) is not None
        late = trouble.behaviour == "silent" and left_s < min(hang_s, LEAST_HANG_S)
        behaviour = "exited" if dead else "not_ready" if late else trouble.behaviour
        failure = _failure(child, config, behaviour)
        raise EngineError(replace(failure, detail=f"{failure.detail}: {trouble.text}"))
    ready_s = time.monotonic() - child.started_s
    version = engine.version(config)
    effective = _account(engine, url, config, version, child.log_text())
    return Endpoint(
        url=url,
        served_model=model,
        engine=engine.name,
        version=str(effective.get("version") or version),
        simulated=engine.simulated,
        pid=child.engine_pid(),
        log=child.folder / "engine.log",
        api_key_env=config.api_key_env,
        ready_s=ready_s,
        effective=effective,
    )


def _elsewhere(engine: Engine, config: ServingConfig, ready_timeout_s: float) -> Server:
    """A server that somebody else runs: asked the same questions, never started nor stopped."""
    url, model = (config.url or "").rstrip("/"), engine.served_model(config)
    started = time.monotonic()
    stranger = ready.identity(url, config, model)
    if stranger:
        raise EngineError(_wrong(stranger, "", config))
    trouble = ready.generate(url, config, model, ready_timeout_s)
    if trouble:
        hint = "is it the base URL, without /v1, and is the variable with the key set? try curl URL/v1/models"
        detail = f"{url}: {trouble.text}"
        raise EngineError(Failure(FailureKind.NOT_READY, detail, hint, settings=config.settings))
    ready_s = time.monotonic() - started
    effective = _account(engine, url, config, "unknown", "")
    version = str(effective.get("version") or engine.version(config))
    return Server(
        Endpoint(
            url=url,
            served_model=model,
            engine=engine.name,
            version=version,
            simulated=engine.simulated or bool(effective.get("simulated")),
            api_key_env=config.api_key_env,
            ready_s=ready_s,
            effective=effective,
        ),
        config,
        None,
    )


def _account(engine: Engine, url: str, config: ServingConfig, version: str, log: str) -> dict[str, object]:
    """The server's own account of its settings; EngineError when it is another than asked, or none at all."""
    try:
        effective, differs = ready.account(engine, url, config, version, log)
    except (httpx.HTTPError, WireError) as error:
        detail = f"its account of its settings cannot be read: {error}"
        hint = "the log's tail is kept with this failure"
        failure = Failure(FailureKind.NOT_READY, detail, hint, log_tail=tail(log), settings=config.settings)
        raise EngineError(failure) from error
    if differs:
        raise EngineError(differs)
    return effective


def _wrong(detail: str, log: str, config: ServingConfig) -> Failure:
    hint = "another server answers there, or it serves the model under another name"
    return Failure(FailureKind.WRONG_IDENTITY, detail, hint, log_tail=tail(log), settings=config.settings)


def _failure(
    child: Child | None,
    config: ServingConfig,
    behaviour: Behaviour,
    *,
    load: bool = False,
    waited_s: float | None = None,
) -> Failure:
    """The classified failure of a child at launch, or under load; of a server elsewhere by behaviour only."""
    if child is None:
        return classify(None, "", phase="load", behaviour=behaviour, settings=config.settings)
    code, log = child.exit_code(wait_s=GRACE_S if behaviour == "exited" else 0), child.log_text()
    if code == supervisor.NOT_FOUND and "cannot start " in log:
        return Failure(
            FailureKind.NOT_INSTALLED, log.strip(), "make engines", code, tail(log), config.settings
        )
    return classify(
        code,
        log,
        phase="load" if load else "launch",
        behaviour=behaviour,
        waited_s=waited_s,
        out_of_host_memory=child.out_of_host_memory(),
        settings=config.settings,
    )
