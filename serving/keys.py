"""A server's key: read from the environment when it is needed, kept nowhere, repeated nowhere."""

from __future__ import annotations

import os

from serving.errors import UserError


def key_of(variable: str | None) -> str | None:
    """The key in an environment variable, without white space around it; None without a variable.

    UserError names the variable: not set, empty, or with a character that no header line may hold.
    """
    if not variable:
        return None
    found = os.environ.get(variable)
    if found is None or not found.strip():
        state = "not set" if found is None else "empty"
        raise UserError(f"the environment variable {variable} is {state}", f"export {variable}=...")
    key = found.strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(
            f"the key in {variable} holds a line break or another character that no header may hold",
            f"export {variable} again with the key alone",
        )
    return key


def authorization(variable: str | None) -> dict[str, str]:
    """The header that carries the key; none without a variable. UserError as `key_of`."""
    key = key_of(variable)
    return {"Authorization": f"Bearer {key}"} if key else {}


def masked(text: str, variable: str | None) -> str:
    """A server's words, should they repeat the key."""
    key = os.environ.get(variable, "").strip() if variable else ""
    return text.replace(key, "(the key)") if key else text
