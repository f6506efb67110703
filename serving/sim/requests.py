"""What a client asks the simulated server for: bodies of the two completions endpoints, checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from serving.sim.kv_blocks import Token
from serving.sim.text import Vocabulary

COMPLETION_DEFAULT_TOKENS = 16


class RefusedError(Exception):
    """The request cannot be served: HTTP status, message and error type as vLLM gives them."""

    def __init__(
        self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param = status, message, kind, param


@dataclass(frozen=True, slots=True)
class SimRequest:
    """One request. `logprobs`: None or how many alternatives. `prompt_only`: max_tokens 0 with echo.

    `salt`: what sampling depends on beside the prompt.
    """

    prompts: tuple[list[Token], ...]
    max_tokens: tuple[int, ...]
    chat: bool
    min_tokens: int
    ignore_eos: bool
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    continuous_usage: bool
    echo: bool
    prompt_only: bool
    logprobs: int | None
    salt: str


def parse(body: bytes, *, chat: bool, model: str, max_model_len: int, vocabulary: Vocabulary) -> SimRequest:
    """The request; RefusedError when it cannot be served."""
    try:
        read = json.loads(body)
    except ValueError as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from None
    if not isinstance(read, dict):
        raise RefusedError(400, "the body is not a JSON object")
    if read.get("model") not in (None, model):
        raise RefusedError(404, f"The model `{read['model']}` does not exist.", "NotFoundError", "model")
    for name in ("n", "best_of"):
        if read.get(name) not in (None, 1):
            raise RefusedError(400, f"{name} must be 1 on the simulated engine", param=name)
    prompts = _chat_prompt(read, vocabulary) if chat else _prompts(read, vocabulary)
    echo = bool(read.get("echo", False)) and not chat
    options = read.get("stream_options") or {}
    if not isinstance(options, dict):
        raise RefusedError(400, "stream_options must be an object", param="stream_options")
    stream = _flag(read, "stream")
    limit = _whole(read, "max_completion_tokens", None) if chat else None
    if limit is None:
        limit = _whole(read, "max_tokens", None if chat else COMPLETION_DEFAULT_TOKENS)
    return SimRequest(
        prompts=tuple(prompts),
        max_tokens=tuple(_limit(limit, len(prompt), max_model_len, echo) for prompt in prompts),
        chat=chat,
        min_tokens=_whole(read, "min_tokens", 0) or 0,
        ignore_eos=_flag(read, "ignore_eos"),
        stop=_stop(read),
        stream=stream,
        include_usage=stream and bool(options.get("include_usage")),
        continuous_usage=stream and bool(options.get("continuous_usage_stats")),
        echo=echo,
        prompt_only=echo and limit == 0,
        logprobs=_logprobs(read, chat),
        salt=f"|{read.get('seed')}|{read['temperature']}" if read.get("temperature") else "",
    )


def _prompts(read: dict[str, Any], vocabulary: Vocabulary) -> list[list[Token]]:
    prompt = read.get("prompt")
    if isinstance(prompt, str):
        found: list[list[Token]] = [vocabulary.encode(prompt)]
    elif isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        found = [list(prompt)]
    elif isinstance(prompt, list) and prompt and all(isinstance(text, str) for text in prompt):
        found = [vocabulary.encode(text) for text in prompt]
    elif isinstance(prompt, list) and prompt and all(_is_ids(part) for part in prompt):
        found = [list(part) for part in prompt]
    else:
        raise RefusedError(400, "prompt must be a text, token ids, or a list of either", param="prompt")
    if not all(found):
        raise RefusedError(400, "The decoder prompt cannot be empty", param="prompt")
    return found


def _is_ids(part: object) -> bool:
    return isinstance(part, list) and bool(part) and all(type(token) is int for token in part)


def _chat_prompt(read: dict[str, Any], vocabulary: Vocabulary) -> list[list[Token]]:
    """Each message is its content after one role marker; one more marker opens the answer."""
    messages = read.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusedError(400, "messages must be a non-empty list", param="messages")
    parts = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            texts = [part.get("text") for part in content if isinstance(part, dict)]
            content = " ".join(text for text in texts if isinstance(text, str))
        if not isinstance(content, str):
            raise RefusedError(400, "every message needs a content of text", param="messages")
        parts.append(f"<|{message.get('role', 'user')}|> {content}")
    return [vocabulary.encode(" ".join([*parts, "<|assistant|>"]))]


def _limit(asked: int | None, prompt: int, max_model_len: int, echo: bool) -> int:
    """How many tokens may be generated; at least one is computed even when none is to be shown."""
    wanted = max_model_len - prompt if asked is None else asked
    if wanted < 1 and not (echo and asked == 0):
        if asked is not None:
            raise RefusedError(400, f"max_tokens must be at least 1, got {asked}.", param="max_tokens")
        wanted = 1
    wanted = max(1, wanted)
    if prompt + wanted > max_model_len:
        raise RefusedError(
            400,
            f"This model's maximum context length is {max_model_len} tokens. However, you requested {wanted} "
            f"output tokens and your prompt contains {prompt} input tokens, for a total of {prompt + wanted} "
            "tokens. Please reduce the length of the input prompt or the number of requested output tokens.",
        )
    return wanted


def _whole(read: dict[str, Any], name: str, default: int | None) -> int | None:
    value = read.get(name, default)
    if value is not None and (type(value) is not int or value < 0):
        raise RefusedError(400, f"{name} must be a whole number from 0, got {value!r}", param=name)
    return value


def _flag(read: dict[str, Any], name: str) -> bool:
    value = read.get(name, False)
    if not isinstance(value, bool) and value is not None:
        raise RefusedError(400, f"{name} must be true or false, got {value!r}", param=name)
    return bool(value)


def _stop(read: dict[str, Any]) -> tuple[str, ...]:
    stop = read.get("stop") or []
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(text, str) and text for text in stops):
        raise RefusedError(400, "stop must be a text or a list of texts", param="stop")
    return tuple(stops)


def _logprobs(read: dict[str, Any], chat: bool) -> int | None:
    if chat:
        return (_whole(read, "top_logprobs", 0) or 0) if _flag(read, "logprobs") else None
    return _whole(read, "logprobs", None)
