"""Is a server ready, and is it the one that was asked for? Health, a real generation, then identity."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from serving.config import ServingConfig
from serving.engine import Engine
from serving.errors import Failure, FailureKind
from serving.failure import Behaviour, tail

POLL_S = 0.1
PROBE_TOKENS = 8
PROBE = {"prompt": "Once upon a time", "max_tokens": PROBE_TOKENS, "temperature": 0.0, "stream": True}
IDENTITY = frozenset(
    {"engine", "engine_version", "device", "model", "revision", "checkpoint", "tokenizer", "url",
     "gpus", "api_key_env", "extra_args", "env", "sim", "attempt"}
)  # fmt: skip
"""Fields that say what is run and where; the others are settings, and compared by value."""


@dataclass(frozen=True)
class Trouble:
    """Why a generation did not come to its end: `silent` (no token in time) or `failing` (an error)."""

    behaviour: Behaviour
    text: str


def client(url: str, config: ServingConfig, timeout_s: float) -> httpx.Client:
    """HTTP client for one server. The key is read from the environment now, and kept nowhere else."""
    key = os.environ.get(config.api_key_env) if config.api_key_env else None
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=config.url is not None)


def wait_healthy(url: str, config: ServingConfig, deadline: float, alive: Callable[[], bool]) -> bool:
    """True once GET /health answers 200 (or 404: no such route, but a server); False at the deadline."""
    with client(url, config, 5.0) as http:
        while alive() and time.monotonic() < deadline:
            try:
                if http.get("/health").status_code in (200, 404):
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
                        text = _without_key(answer.read().decode(errors="replace"), config)
                        return Trouble("failing", f"{path}: status {answer.status_code}: {text[:300]}")
                    return _read(answer, deadline)
            except httpx.TimeoutException:
                return Trouble("silent", f"{path}: the answer did not end within {timeout_s:.0f} s")
            except httpx.TransportError as error:
                return Trouble("failing", f"{path}: {error or type(error).__name__}")
    return last


def identity(url: str, config: ServingConfig, model: str) -> str | None:
    """Why the server is not the one asked for by name; None when it lists `model`, or does not list."""
    try:
        with client(url, config, 10.0) as http:
            answer = http.get("/v1/models")
    except httpx.TransportError:
        return None  # a server that does not answer is found out by `generate`
    if answer.status_code != 200:
        return None
    names = [str(row.get("id")).removesuffix("@main") for row in answer.json().get("data", [])]
    return None if not names or model in names else f"it serves {', '.join(names)}, not {model}"


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
    for name in sorted(set(asked) - IDENTITY):
        want, got = asked[name], effective.get(name)
        if got is None or want == "auto" or _equal(want, got):
            continue
        found.append(f"{name}: asked {want}, the server says {got}")
    return found


def listens(url: str, config: ServingConfig) -> bool:
    """Whether anything answers HTTP there."""
    try:
        with client(url, config, 10.0) as http:
            http.get("/health")
    except httpx.TransportError:
        return False
    return True


def _requests(model: str) -> list[tuple[str, dict[str, object]]]:
    chat = {k: v for k, v in PROBE.items() if k != "prompt"}
    message = [{"role": "user", "content": PROBE["prompt"]}]
    return [
        ("/v1/completions", {**PROBE, "model": model}),
        ("/v1/chat/completions", {**chat, "model": model, "messages": message}),
    ]


def _read(answer: httpx.Response, deadline: float) -> Trouble | None:
    """Reads events to the end of the stream: at least one must carry output."""
    seen = 0
    for line in answer.iter_lines():
        if time.monotonic() > deadline:
            return Trouble("silent", f"the stream did not end in time ({seen} events)")
        if not line.startswith("data:") or line[5:].strip() == "[DONE]":
            continue
        event = json.loads(line[5:])
        if event.get("error"):
            return Trouble("failing", f"error in the stream: {event['error']}")
        seen += any(_has_output(choice) for choice in event.get("choices") or [])
    return None if seen else Trouble("failing", "the stream ended without a token")


def _without_key(text: str, config: ServingConfig) -> str:
    """A provider's words, should they repeat the key."""
    key = os.environ.get(config.api_key_env) if config.api_key_env else None
    return text.replace(key, "(the key)") if key else text


def _has_output(choice: Mapping[str, object]) -> bool:
    delta = choice.get("delta")
    inner = [v for k, v in delta.items() if k != "role"] if isinstance(delta, Mapping) else []
    return bool(choice.get("text") or any(inner))


def _equal(a: object, b: object) -> bool:
    if isinstance(a, float) or isinstance(b, float):
        return isinstance(a, int | float) and isinstance(b, int | float) and abs(a - b) <= 1e-6 * abs(a)
    return a == b


def _same_version(a: str, b: str) -> bool:
    return a.split("+")[0] == b.split("+")[0]
