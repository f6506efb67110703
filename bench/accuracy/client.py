"""One Ask over HTTP, and what came back as an Answer. Every answer is held against the server's own count."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import httpx

from bench.accuracy.task import Answer, Ask
from serving.engine import Endpoint
from serving.errors import UserError


class AskError(Exception):
    """One request without a usable answer. `gone`: the connection failed, so the server may be dead."""

    def __init__(self, kind: str, detail: str, *, gone: bool = False, status: int | None = None) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail, self.gone, self.status = kind, detail, gone, status


class Client:
    """Asks one endpoint. Use as an async context; `concurrency` bounds the open connections."""

    def __init__(self, endpoint: Endpoint, *, concurrency: int, timeout_s: float) -> None:
        self.endpoint = endpoint
        key = os.environ.get(endpoint.api_key_env, "") if endpoint.api_key_env else ""
        if endpoint.api_key_env and not key:
            raise UserError(f"the environment variable {endpoint.api_key_env} is not set", "export it first")
        self._http = httpx.AsyncClient(
            base_url=endpoint.url,
            timeout=httpx.Timeout(timeout_s, connect=10.0),
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            trust_env=False,
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, ask: Ask) -> Answer:
        """The answer; AskError when there is none that can be used."""
        path = "/v1/chat/completions" if ask.kind == "chat" else "/v1/completions"
        reply = await self._post(path, {"model": self.endpoint.served_model, **body(ask)})
        try:
            return read(ask, reply)
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise AskError("malformed", f"{type(error).__name__}: {error}") from error

    async def _post(self, path: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        try:
            response = await self._http.post(path, json=payload)
        except httpx.TimeoutException as error:
            raise AskError("timeout", type(error).__name__) from error
        except httpx.HTTPError as error:
            raise AskError("connection", f"{type(error).__name__}: {error}", gone=True) from error
        if response.status_code != 200:
            raise AskError(
                "http_status",
                f"{response.status_code}: {response.text[:300]}",
                gone=response.status_code >= 500,
                status=response.status_code,
            )
        try:
            found: dict[str, Any] = response.json()
        except ValueError as error:
            raise AskError("malformed", f"not JSON: {response.text[:100]!r}") from error
        return found


def body(ask: Ask) -> dict[str, Any]:
    """The request's body, without the model's name."""
    if ask.kind == "chat":
        return {"messages": [dict(message) for message in ask.messages], "stream": False, **ask.options}
    if ask.kind == "generate":
        return {"prompt": ask.text, "stream": False, **ask.options}
    prompts = [ask.text + choice for choice in ask.choices] if ask.kind == "rank" else [ask.text]
    echo = {"echo": True, "max_tokens": 0, "temperature": 0.0, "stream": False}
    return {"prompt": prompts, "logprobs": max(1, ask.top), **echo}


def read(ask: Ask, reply: Mapping[str, Any]) -> Answer:
    """The Answer in a server's reply. ValueError where it contradicts itself."""
    usage = reply.get("usage") or {}
    counted = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    choices = sorted(reply["choices"], key=lambda choice: choice.get("index", 0))
    if ask.kind in ("generate", "chat"):
        first = choices[0]
        text = (first["message"]["content"] if ask.kind == "chat" else first["text"]) or ""
        return Answer(*counted, text=text, finish=first.get("finish_reason"))
    parts = [_prompt_part(choice) for choice in choices]
    if sum(len(tokens) for tokens, _, _ in parts) != counted[0]:
        raise ValueError(f"{[len(p[0]) for p in parts]} log-probabilities for {counted[0]} prompt tokens")
    if ask.kind == "score":
        tokens, values, tops = parts[0]
        return Answer(counted[0], tokens=tokens, logprobs=values, tops=tops)
    if len(parts) != len(ask.choices):
        raise ValueError(f"{len(parts)} answers to {len(ask.choices)} prompts")
    tails = [tail(p[0], p[1], choice) for p, choice in zip(parts, ask.choices, strict=True)]
    return Answer(
        counted[0], logliks=tuple(value for value, _ in tails), sizes=tuple(size for _, size in tails)
    )


def tail(tokens: tuple[str, ...], values: tuple[float | None, ...], choice: str) -> tuple[float, int]:
    """Log-likelihood and token count of the last tokens that spell `choice`, counted from the end.

    From the end, so that a BOS token in front does not matter. A token that straddles the border
    counts to the choice.
    """
    length, count, total = 0, 0, 0.0
    while length < len(choice):
        count += 1
        value = values[-count]
        if value is None:
            raise ValueError("the choice reaches back to the first token")
        total += value
        length += len(tokens[-count])
    return total, count


def _prompt_part(
    choice: Mapping[str, Any],
) -> tuple[tuple[str, ...], tuple[float | None, ...], tuple[Mapping[str, float] | None, ...]]:
    found = choice["logprobs"]
    tokens, values = tuple(found["tokens"]), tuple(found["token_logprobs"])
    tops = tuple(found.get("top_logprobs") or [None] * len(tokens))
    if not len(tokens) == len(values) == len(tops) or not tokens:
        raise ValueError(f"{len(tokens)} tokens, {len(values)} log-probabilities, {len(tops)} alternatives")
    if any(value is None or value != value or value > 1e-6 for value in values[1:]):
        raise ValueError("a log-probability that is none")
    return tokens, values, tops
