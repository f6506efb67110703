"""Bytes as an OpenAI-compatible server sends them: heads, chunks, events."""

from __future__ import annotations

import json
from typing import Any

CHUNKED = (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
           b"Transfer-Encoding: chunked\r\n\r\n")  # fmt: skip
BARE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(content: dict[str, Any] | str, kind: str = "") -> bytes:
    """One server-sent event as one HTTP chunk."""
    text = content if isinstance(content, str) else json.dumps(content)
    return chunk((f"event: {kind}\n" if kind else "").encode() + f"data: {text}\n\n".encode())


def token(asked: dict[str, Any], text: str = " x", finish: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk of OpenAI's stream: `text` for completions, a delta for chat."""
    said = {"delta": {"content": text}} if "messages" in asked else {"text": text}
    return {**envelope(asked), "choices": [{"index": 0, **said, "finish_reason": finish}], **more}


def envelope(asked: dict[str, Any]) -> dict[str, Any]:
    """What every chunk of OpenAI's stream carries besides; some clients refuse one without."""
    kind = "chat.completion.chunk" if "messages" in asked else "text_completion"
    return {"id": "scripted", "object": kind, "created": 0, "model": asked.get("model", "")}


def prompt_of(asked: dict[str, Any]) -> str:
    """The prompt, or the text of the last message; its content may come in parts."""
    content = asked["prompt"] if "prompt" in asked else asked["messages"][-1]["content"]
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def prompt_tokens(asked: dict[str, Any]) -> int:
    """Words; for a model `pieces:N:M` each is N tokens on average (by its letter), with M before them."""
    words = prompt_of(asked).split()
    name, *numbers = str(asked.get("model", "")).split(":")
    if name != "pieces" or len(numbers) != 2:
        return len(words)
    odd = sum(word[0] < "n" for word in words)
    return round(float(numbers[0]) * (len(words) + 0.2 * (2 * odd - len(words)))) + int(numbers[1])


def usage(asked: dict[str, Any], output_tokens: int | None = None) -> dict[str, Any]:
    count = asked["max_tokens"] if output_tokens is None else output_tokens
    told = {"prompt_tokens": prompt_tokens(asked), "completion_tokens": count}
    return {**envelope(asked), "choices": [], "usage": told}


def whole_body(status: int, body: bytes, more: bytes = b"") -> bytes:
    """A response with a length; `more`: further header lines."""
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b" % (
        status, more, len(body), body)  # fmt: skip


def unchunked(data: bytes) -> bytes:
    """What whole chunks hold."""
    out = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        out, data = out + rest[:length], rest[length + 2 :]
    return out
