"""The words of what could not be used: a server's own out of an error's JSON, or why bytes are unreadable."""

from __future__ import annotations

import json
import zlib
from typing import Any

import httptools

from serving import wire

DEFECT = "servetune cannot read this answer, please report it"


def message(error: Any) -> str:
    """What went wrong in the words of OpenAI's, FastAPI's and other servers' JSON; else all of it."""
    if isinstance(error, dict):
        for name in ("message", "detail"):
            if isinstance(error.get(name), str):
                return str(error[name])
        inner = error.get("error")
        if isinstance(inner, dict) or (isinstance(inner, str) and len(error) == 1):
            return message(inner)
    return error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)


def words(body: bytes) -> str:
    """The server's own words in the body of an error."""
    try:
        found = wire.loads(body)
    except wire.WireError:
        return excerpt(body)
    return message(found) if isinstance(found, dict) else excerpt(body)


def excerpt(body: bytes) -> str:
    return body[:300].decode(errors="replace")


def unreadable(error: Exception) -> str:
    """Why bytes could not be read; llhttp wraps what its callbacks raise."""
    cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else error
    if isinstance(cause, zlib.error):
        return f"not gzip: {cause}"
    if isinstance(cause, RecursionError):
        return "JSON nested too deeply"
    if isinstance(cause, httptools.HttpParserUpgrade):
        return "the server asks to switch to another protocol"
    if isinstance(cause, httptools.HttpParserError):
        return f"not HTTP: {cause}"
    return f"{DEFECT}: {type(cause).__name__}: {cause}"
