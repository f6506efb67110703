"""What another program sent, checked at the door: text, JSON, counts, whole answers to a GET.

A server may send anything. What passes here can be written to every file, printed in every terminal and
summed; what does not is a WireError, which costs the one request or question it belongs to.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

MOST_COUNT = 2**31 - 1
"""Tokens of one request: what a 32-bit column holds, far above any context."""
MOST_BYTES = 8 << 20
"""Of an answer to a GET (a list of models, a version): a longer one is no such answer."""
WORDS = 300
"""Characters of somebody else's words that one line shows."""

_DECODER = json.JSONDecoder(parse_constant=lambda name: None)


class WireError(ValueError):
    """Something that cannot be used; the text says what it is and what is allowed."""


def text(words: str) -> str:
    """`words` without half characters (lone surrogates), which no file can hold.

    JSON may escape the two halves of a character, and a gateway may cut between them: halves that stand side
    by side are joined, a half alone becomes U+FFFD.
    """
    if words.isascii():
        return words
    try:
        words.encode()
    except UnicodeEncodeError:
        return words.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return words


def scrubbed(data: Any) -> Any:
    """JSON data with `text` applied to every string, keys included."""
    if isinstance(data, str):
        return text(data)
    if isinstance(data, dict):
        return {scrubbed(key): scrubbed(value) for key, value in data.items()}
    return [scrubbed(value) for value in data] if isinstance(data, list) else data


def line(words: str, most: int = WORDS) -> str:
    """Somebody else's words as one line that does nothing to a terminal: controls are shown, not obeyed."""
    cut = text(words[: 4 * most])
    shown = "".join(c if c.isprintable() else " " if c.isspace() else _escaped(c) for c in cut)
    whole = " ".join(shown.split())
    return whole if len(whole) <= most and len(words) <= 4 * most else whole[: most - 1].rstrip() + "…"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def loads(data: bytes | str) -> Any:
    """JSON from the network: bytes that are not UTF-8 become U+FFFD, NaN and Infinity null. WireError."""
    content = data.decode(errors="replace") if isinstance(data, bytes) else data
    try:
        return _DECODER.decode(content)
    except RecursionError:
        raise WireError("JSON nested too deeply") from None
    except ValueError as error:  # no JSON, or a number of more digits than Python reads
        raise WireError(f"not JSON ({line(str(error), 80)}): {line(content, 120)}") from None


def count(value: object, name: str) -> int | None:
    """A number of tokens; None for null. WireError: anything but a whole number from 0 to MOST_COUNT."""
    if value is None:
        return None
    if type(value) is int and 0 <= value <= MOST_COUNT:
        return value
    raise WireError(f"{name} is {_shown(value)}; allowed: a whole number from 0 to {MOST_COUNT}")


def _shown(value: object) -> str:
    if isinstance(value, int | float | str):
        return line(repr(value), 40)
    return f"a {type(value).__name__}"


def get(http: httpx.Client, path: str, within_s: float = 30.0) -> tuple[int, bytes]:
    """Status and body of GET `path`. WireError: too long or too slow; httpx.HTTPError as httpx raises it."""
    deadline = time.monotonic() + within_s
    body = bytearray()
    with http.stream("GET", path) as answer:
        for part in answer.iter_bytes():
            body += part
            if len(body) > MOST_BYTES:
                raise WireError(f"{path} answers more than {MOST_BYTES} bytes")
            if time.monotonic() > deadline:
                raise WireError(f"the answer of {path} did not end within {within_s:g} s")
        return answer.status_code, bytes(body)


def get_ok(http: httpx.Client, path: str) -> bytes:
    """The body of GET `path` with status 200; httpx.HTTPStatusError with another one, else as `get`."""
    import httpx

    status, body = get(http, path)
    if status != 200:
        asked = http.build_request("GET", path)
        words = f"{path} answers status {status}: {line(body[:WORDS].decode(errors='replace'))}"
        raise httpx.HTTPStatusError(words, request=asked, response=httpx.Response(status, request=asked))
    return body


def said(http: httpx.Client, path: str) -> Any:
    """JSON of GET `path`; errors as `get_ok` and `loads`."""
    return loads(get_ok(http, path))


def models(listed: object) -> list[dict[str, Any]]:
    """The rows of GET /v1/models: OpenAI's `{"data": [...]}` or a bare list; none where it is neither."""
    rows = listed.get("data") if isinstance(listed, dict) else listed
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def model_names(listed: object) -> list[str]:
    """Their names."""
    return [text(row["id"]) for row in models(listed) if isinstance(row.get("id"), str)]
