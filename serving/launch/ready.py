"""Is a server ready, and is it the one that was asked for? Health, a real generation, then identity."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import httpx

from serving import wire
from serving.config import SETTINGS, ServingConfig
from serving.engine import Engine
from serving.errors import Failure, FailureKind
from serving.failure.classify import Behaviour, tail
from serving.keys import authorization, masked
from serving.sse import Splitter

POLL_S = 0.1
PROBE_TOKENS = 8
SAID_BYTES = 2000
PROBE = {"prompt": "Once upon a time", "max_tokens": PROBE_TOKENS, "temperature": 0.0, "stream": True}


@dataclass(frozen=True)
class Trouble:
    """Why a generation did not come to its end: `silent` (no token in time) or `failing` (an error)."""

    behaviour: Behaviour
    text: str


def client(url: str, config: ServingConfig, timeout_s: float) -> httpx.Client:
    """HTTP client for one server. The key is read from the environment now, and kept nowhere else."""
    return httpx.Client(
        base_url=url,
        headers=authorization(config.api_key_env),
        timeout=timeout_s,
        trust_env=config.url is not None,
    )


def wait_healthy(url: str, config: ServingConfig, deadline: float, alive: Callable[[], bool]) -> bool:
    """True once GET /health answers 200 (or 404: no such route, but a server); False at the deadline."""
    with client(url, config, 5.0) as http:
        while alive() and time.monotonic() < deadline:
            try:
                with http.stream("GET", "/health") as answer:
                    if answer.status_code in (200, 404):
                        return True
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(POLL_S)
    return False


def generate(url: str, config: ServingConfig, model: str, timeout_s: float) -> Trouble | None:
    """Has the server generate a few tokens to the end of the stream; None when it did, else why not.

    The whole answer must come: an engine that stalls after its first token is not ready.
    """
    deadline = time.monotonic() + timeout_s
    last = Trouble("failing", "no answer")
    with client(url, config, timeout_s) as http:
        for path, body in _requests(model):
            try:
                with http.stream("POST", path, json=body) as answer:
                    if answer.status_code in (404, 405):
                        last = Trouble("failing", f"{path}: status {answer.status_code}")
                        continue
                    if answer.status_code != 200:
                        said = masked(_beginning(answer), config.api_key_env)
                        return Trouble("failing", f"{path}: status {answer.status_code}: {wire.line(said)}")
                    found = _read(answer.iter_bytes(), deadline)
                    return found and Trouble(found.behaviour, masked(found.text, config.api_key_env))
            except httpx.TimeoutException:
                return Trouble("silent", f"{path}: the answer did not end within {timeout_s:.0f} s")
            except httpx.HTTPError as error:
                return Trouble("failing", f"{path}: {wire.line(str(error)) or type(error).__name__}")
    return last


def identity(url: str, config: ServingConfig, model: str) -> str | None:
    """Why the server is not the one asked for by name; None when it lists `model`, or does not list.

    A list that cannot be read says nothing: many servers answer that address with something of their own.
    """
    try:
        with client(url, config, 10.0) as http:
            status, body = wire.get(http, "/v1/models")
        listed = wire.loads(body) if status == 200 else None
    except (httpx.HTTPError, wire.WireError):
        return None  # a server that does not answer is found out by `generate`
    names = [name.removesuffix("@main") for name in wire.model_names(listed)]
    if not names or model in names:
        return None
    return f"it serves {wire.line(', '.join(names))}, not {model}"


def account(
    engine: Engine, url: str, config: ServingConfig, version: str, log: str
) -> tuple[dict[str, object], Failure | None]:
    """The server's own account of its settings, and the failure when it differs from what was asked."""
    effective = engine.effective(url, config, log)
    idle = engine.without_effect(config, effective, log)
    if idle:
        said = "; ".join(f"{name}={config.settings.get(name)}: {why}" for name, why in idle.items())
        return effective, Failure(
            FailureKind.NO_EFFECT,
            said,
            "the engine accepted the setting and did nothing; what would be measured is the setting left out",
            log_tail=tail(log),
            settings=config.settings,
        )
    said_version = effective.get("version")
    wrong = differences(config.settings, effective)
    if said_version is not None and version != "unknown" and not _same_version(str(said_version), version):
        wrong.append(f"version: asked {version}, the server says {said_version}")
    if wrong:
        return effective, Failure(
            FailureKind.WRONG_IDENTITY,
            "; ".join(wrong),
            "the engine changed what was asked; ask for what it does, or find the setting that it needs",
            log_tail=tail(log),
            settings=config.settings,
        )
    return effective, None


def differences(asked: Mapping[str, object], effective: Mapping[str, object]) -> list[str]:
    """Settings that the server reports otherwise than asked; what it does not report is not compared."""
    found = []
    for name in sorted(set(asked).intersection(SETTINGS)):
        want, got = asked[name], effective.get(name)
        if got is None or want == "auto" or _equal(want, got):
            continue
        found.append(f"{name}: asked {want}, the server says {got}")
    return found


def listens(url: str, config: ServingConfig) -> bool:
    """Whether anything answers HTTP there."""
    try:
        with client(url, config, 10.0) as http, http.stream("GET", "/health"):
            return True
    except httpx.TransportError:
        return False


def _requests(model: str) -> list[tuple[str, dict[str, object]]]:
    chat = {k: v for k, v in PROBE.items() if k != "prompt"}
    message = [{"role": "user", "content": PROBE["prompt"]}]
    return [
        ("/v1/completions", {**PROBE, "model": model}),
        ("/v1/chat/completions", {**chat, "model": model, "messages": message}),
    ]


def _read(parts: Iterable[bytes], deadline: float) -> Trouble | None:
    """Reads events to the end of the stream: at least one must carry output."""
    seen, splitter = 0, Splitter()
    for part in parts:
        if time.monotonic() > deadline:
            return Trouble("silent", f"the stream did not end in time ({seen} events)")
        for sent in splitter.feed(part):
            if sent.data.strip() == b"[DONE]":
                continue
            try:
                event = wire.loads(sent.data)
            except wire.WireError as error:
                return Trouble("failing", f"an event of the stream is {error}")
            if not isinstance(event, dict):
                return Trouble(
                    "failing", f"an event of the stream is no JSON object: {wire.line(str(sent.data))}"
                )
            if event.get("error"):
                return Trouble("failing", f"error in the stream: {wire.line(str(event['error']))}")
            choices = event.get("choices")
            seen += any(_has_output(choice) for choice in choices) if isinstance(choices, list) else 0
    return None if seen else Trouble("failing", "the stream ended without a token")


def _beginning(answer: httpx.Response) -> str:
    """The first words of a body that may be endless."""
    body = bytearray()
    for part in answer.iter_bytes():
        body += part
        if len(body) > SAID_BYTES:
            break
    return body[:SAID_BYTES].decode(errors="replace")


def _has_output(choice: object) -> bool:
    if not isinstance(choice, Mapping):
        return False
    delta = choice.get("delta")
    inner = [v for k, v in delta.items() if k != "role"] if isinstance(delta, Mapping) else []
    return bool(choice.get("text") or any(inner))


def _equal(a: object, b: object) -> bool:
    if isinstance(a, float) or isinstance(b, float):
        return isinstance(a, int | float) and isinstance(b, int | float) and abs(a - b) <= 1e-6 * abs(a)
    return a == b


def _same_version(a: str, b: str) -> bool:
    return a.split("+")[0] == b.split("+")[0]
