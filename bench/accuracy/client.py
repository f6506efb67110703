"""One Ask over HTTP, and what came back as an Answer. Every answer is held against the server's own count."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from bench.accuracy.task import Answer, Ask
from bench.accuracy.thinking import parted
from bench.load.deadline import first_within_s
from serving import wire
from serving.engine import Endpoint
from serving.keys import authorization, masked


class AskError(Exception):
    """One request without a usable answer. `gone`: the connection failed, so the server may be dead.

    retry_after_s: how long to wait, where the server says
    """

    def __init__(
        self, kind: str, detail: str, *, gone: bool = False, status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail, self.gone, self.status = kind, detail, gone, status
        self.retry_after_s = retry_after_s


class Client:
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

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, ask: Ask) -> Answer:
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
                retry_after_s=retry_after_s(response.headers.get("retry-after")),
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


def answer_of(ask: Ask, reply: Mapping[str, Any]) -> Answer:
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


def read(ask: Ask, reply: Mapping[str, Any]) -> Answer:
    """The Answer in a server's reply. ValueError where it contradicts itself."""
    came, went = _counted(reply.get("usage"))
    choices = sorted(reply["choices"], key=lambda choice: choice.get("index", 0))
    if ask.kind in ("generate", "chat"):
        first = choices[0]
        said, thought = _said(first["message"]) if ask.kind == "chat" else (first["text"] or "", "")
        finish = first.get("finish_reason")
        if not isinstance(said, str) or not isinstance(finish, str | None):
            raise TypeError("text or finish_reason is no text")
        inline, answer = parted(wire.text(said))
        return Answer(came, went, answer, wire.text(thought) + inline, finish and wire.text(finish))
    parts = [_prompt_part(choice) for choice in choices]
    if came is not None and sum(len(tokens) for tokens, _, _ in parts) != came:
        raise ValueError(f"{[len(p[0]) for p in parts]} log-probabilities for {came} prompt tokens")
    if ask.kind == "score":
        tokens, values, tops = parts[0]
        return Answer(came, 0, tokens=tokens, logprobs=values, tops=tops)
    if len(parts) != len(ask.choices):
        raise ValueError(f"{len(parts)} answers to {len(ask.choices)} prompts")
    tails = [tail(p[0], p[1], choice) for p, choice in zip(parts, ask.choices, strict=True)]
    return Answer(came, 0, logliks=tuple(value for value, _ in tails), sizes=tuple(size for _, size in tails))


def _counted(usage: object) -> tuple[int | None, int | None]:
    """Prompt and output tokens by the usage; None for what it does not say: no prompt has 0 tokens."""
    told = usage or {}
    if not isinstance(told, Mapping):
        raise TypeError("usage is no object")
    came = wire.count(told.get("prompt_tokens"), "usage.prompt_tokens")
    return came or None, wire.count(told.get("completion_tokens"), "usage.completion_tokens")


def _said(message: Mapping[str, Any]) -> tuple[object, str]:
    """Answer and thinking of a chat message; content may be null, a text, or parts."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("text"))
    thought = message.get("reasoning_content") or message.get("reasoning") or ""
    return content or message.get("refusal") or "", thought if isinstance(thought, str) else ""


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


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3); None for neither."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            at = parsedate_to_datetime(header)
        except ValueError:
            return None
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        seconds = (at - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if seconds == seconds else None
