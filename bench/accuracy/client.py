"""One Ask over HTTP, and what came back as an Answer. Every answer is held against the server's own count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from bench.accuracy.task import Ask, Reply
from bench.point import first_within_s
from serving import wire
from serving.engine import Endpoint
from serving.keys import authorization, masked


class AskError(Exception):
    """One request without a usable answer. `gone`: the connection failed, so the server may be dead."""

    def __init__(self, kind: str, detail: str, *, gone: bool = False, status: int | None = None) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail, self.gone, self.status = kind, detail, gone, status


class AskClient:
    """Asks one endpoint. Use as an async context; `concurrency` bounds the open connections."""

    def __init__(self, endpoint: Endpoint, *, concurrency: int, timeout_s: float) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            base_url=endpoint.url,
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            headers=authorization(endpoint.api_key_env),
            trust_env=False,
        )

    async def __aenter__(self) -> AskClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, ask: Ask) -> Reply:
        """The answer; AskError when there is none that can be used."""
        path = "/v1/chat/completions" if ask.kind == "chat" else "/v1/completions"
        reply = await self._post(path, {"model": self.endpoint.served_model, **body(ask)})
        return answer_of(ask, reply)

    def _patience(self, payload: Mapping[str, Any]) -> httpx.Timeout:
        """A long answer, which comes whole, may take longer than a short one."""
        tokens = payload.get("max_tokens")
        within_s = first_within_s(self._timeout_s, tokens if isinstance(tokens, int) else 0)
        return httpx.Timeout(within_s, connect=10.0)

    async def _post(self, path: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        try:
            response = await self._http.post(path, json=payload, timeout=self._patience(payload))
        except httpx.TimeoutException as error:
            raise AskError("timeout", type(error).__name__) from error
        except httpx.HTTPError as error:
            raise AskError("connection", f"{type(error).__name__}: {error}", gone=True) from error
        if response.status_code != 200:
            raise AskError(
                "http_status",
                f"{response.status_code}: {self._words(response.content)}",
                gone=response.status_code >= 500,
                status=response.status_code,
            )
        return reply_of(response.content)

    def _words(self, body: bytes) -> str:
        said = body[: 2 * wire.WORDS].decode(errors="replace")
        return wire.line(masked(said, self.endpoint.api_key_env))


def reply_of(data: bytes) -> dict[str, Any]:
    """The JSON object of a reply. AskError where it is none."""
    try:
        found = wire.loads(data)
    except wire.WireError as error:
        raise AskError("malformed", str(error)) from error
    if not isinstance(found, dict):
        raise AskError("malformed", f"not a JSON object but a {type(found).__name__}")
    return found


def answer_of(ask: Ask, reply: Mapping[str, Any]) -> Reply:
    """`read`, with AskError for everything that a reply can lack or twist."""
    try:
        return read(ask, reply)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, RecursionError) as error:
        raise AskError("malformed", f"{type(error).__name__}: {wire.line(str(error))}") from error


def body(ask: Ask) -> dict[str, Any]:
    """The request's body, without the model's name."""
    if ask.kind == "chat":
        return {"messages": [dict(message) for message in ask.messages], "stream": False, **ask.options}
    if ask.kind == "generate":
        return {"prompt": ask.text, "stream": False, **ask.options}
    prompts = [ask.text + choice for choice in ask.choices] if ask.kind == "rank" else [ask.text]
    echo = {"echo": True, "max_tokens": 0, "temperature": 0.0, "stream": False}
    return {"prompt": prompts, "logprobs": max(1, ask.top), **echo}


def read(ask: Ask, reply: Mapping[str, Any]) -> Reply:
    """The Answer in a server's reply. ValueError where it contradicts itself."""
    usage = reply.get("usage") or {}
    counted = (
        wire.count(usage.get("prompt_tokens"), "usage.prompt_tokens") or 0,
        wire.count(usage.get("completion_tokens"), "usage.completion_tokens") or 0,
    )
    choices = sorted(reply["choices"], key=lambda choice: choice.get("index", 0))
    if ask.kind in ("generate", "chat"):
        first = choices[0]
        text = (first["message"]["content"] if ask.kind == "chat" else first["text"]) or ""
        finish = first.get("finish_reason")
        if not isinstance(text, str) or not isinstance(finish, str | None):
            raise TypeError("text or finish_reason is no text")
        return Reply(*counted, text=wire.text(text), finish=finish and wire.text(finish))
    parts = [_prompt_part(choice) for choice in choices]
    if sum(len(tokens) for tokens, _, _ in parts) != counted[0]:
        raise ValueError(f"{[len(p[0]) for p in parts]} log-probabilities for {counted[0]} prompt tokens")
    if ask.kind == "score":
        tokens, values, tops = parts[0]
        return Reply(counted[0], tokens=tokens, logprobs=values, tops=tops)
    if len(parts) != len(ask.choices):
        raise ValueError(f"{len(parts)} answers to {len(ask.choices)} prompts")
    tails = [tail(p[0], p[1], choice) for p, choice in zip(parts, ask.choices, strict=True)]
    return Reply(
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
    tokens, values = tuple(wire.text(token) for token in found["tokens"]), tuple(found["token_logprobs"])
    tops = tuple(wire.scrubbed(found.get("top_logprobs") or [None] * len(tokens)))
    if not len(tokens) == len(values) == len(tops) or not tokens:
        raise ValueError(f"{len(tokens)} tokens, {len(values)} log-probabilities, {len(tops)} alternatives")
    if any(not _is_logprob(value) for value in values[1:]) or not (
        values[0] is None or _is_logprob(values[0])
    ):
        raise ValueError("a log-probability that is none")
    if any(top is not None and not all(_is_logprob(v) for v in top.values()) for top in tops):
        raise ValueError("an alternative's log-probability that is none")
    return tokens, values, tops


def _is_logprob(value: object) -> bool:
    """A number up to 0 (rounding apart); minus infinity too, as 1e999 reads."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value <= 1e-6
