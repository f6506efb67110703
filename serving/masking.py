"""Secrets in settings: the engine gets them, nothing that is shown or stored does.

What looks like one by its name (HF_TOKEN, --api-key) or by its form (hf_..., sk-..., a password in a URL) is
replaced by `masked-` and six hex digits. Equal secrets give equal digits, so that configurations stay apart
and keep their keys; the digits are of a slow hash, and too few to find a secret by. Masking twice changes
nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import yaml

ROUNDS = 100_000
LEAST = 4
"""A shorter value is not looked for in other texts: it would be found in any."""
MASKED = re.compile(r"\bmasked-[0-9a-f]{6}\b")
"""Plain in YAML, in a shell and in a URL."""

SURE = re.compile(
    r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTHORIZATION)$", re.IGNORECASE
)
LIKELY = re.compile(
    r"TOKEN(?!IZ)|KEY(?!FILE|WORD|BOARD)|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|AUTHORIZATION",
    re.IGNORECASE,
)
PLAIN = re.compile(r"[+-]?\d+(?:\.\d+)?|true|false|none|null|auto|on|off|yes|no|", re.IGNORECASE)
"""Values that are no secret where the name only may be one's: a number of tokens, a switch."""

FORMS = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,}|sk-(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{16,}|gsk_[A-Za-z0-9]{20,}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}|A(?:KIA|SIA)[0-9A-Z]{16}|AIza[A-Za-z0-9_-]{30,}"
    r"|nvapi-[A-Za-z0-9_-]{20,}|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
"""Tokens that can be told by their form: Hugging Face, OpenAI-like, Groq, GitHub, GitLab, Slack, AWS, Google,
NVIDIA, JSON web tokens, PEM keys."""
INSIDE = (
    re.compile(r"(?<=://)[^/\s@?#'\"]+(?=@)"),
    re.compile(r"(?i)(?<=\bbearer )(?=[a-z._~+/-]*\d)[a-z0-9._~+/=-]{8,}"),
    re.compile(r"(?i)(?<=\bauthorization: basic )[a-z0-9+/=]{8,}"),
)
"""Names and passwords in URLs, and what an Authorization header carries."""
PAIR = re.compile(
    r"(?<![A-Za-z0-9_-])([\"']?)"
    rf"([A-Za-z0-9_-]*(?:{LIKELY.pattern})[A-Za-z0-9_-]*)"
    r"\1(\s*[=:]\s*)(\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\s,;&#\"'{}\[\]]+)",
    re.IGNORECASE,
)
"""`"api_key": "x"`, `token=x`: a name and its value inside a text."""


@lru_cache(maxsize=4096)
def mask(secret: str) -> str:
    """What stands for one secret; nothing for an empty text, and what is masked stays."""
    if not secret or MASKED.fullmatch(secret):
        return secret
    digest = hashlib.pbkdf2_hmac("sha256", secret.encode("utf-8", "surrogatepass"), b"servetune", ROUNDS)
    return f"masked-{digest.hex()[:6]}"


def is_secret(name: str, value: object) -> bool:
    """Whether a setting or variable of that name holds a secret. Switches never do."""
    if value is None or value == "" or isinstance(value, bool):
        return False
    return bool(SURE.search(name)) or (bool(LIKELY.search(name)) and not PLAIN.fullmatch(str(value)))


def formed(value: str) -> str:
    """The same text with every part masked that is a secret by its form."""
    for pattern in (FORMS, *INSIDE):
        value = pattern.sub(lambda match: mask(match[0]), value)
    return value


def text(value: str) -> str:
    """The same, and what is a secret by the name before it: `token=...`."""

    def pair(match: re.Match[str]) -> str:
        quote, name, between, told = match.groups()
        inner = told[1:-1] if told[:1] in "\"'" else told
        if not is_secret(name, inner):
            return match[0]
        return f"{quote}{name}{quote}{between}{told.replace(inner, mask(inner)) if inner else told}"

    return PAIR.sub(pair, formed(value))


def shown(name: str, value: Any) -> Any:
    """A setting's value as it may be shown and stored: tables and lists with each of their values."""
    if isinstance(value, Mapping):
        return {key: shown(str(key), inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(name, inner) for inner in value]
    if is_secret(name, value):
        return mask(str(value))
    return text(value) if isinstance(value, str) else value


def holds_secret(name: str, value: Any) -> bool:
    """Whether there is one in it, masked or not."""
    return bool(is_secret(name, value) or shown(name, value) != value or MASKED.search(str(value)))


def is_masked(value: Any) -> bool:
    """Whether a part of it stands for a secret that is not there."""
    return MASKED.search(str(value)) is not None


def hiding(env: Mapping[str, str], argv: Sequence[str]) -> Callable[[str], str]:
    """A function that masks in any text the secrets of one command, whatever stands around them."""
    named = [*env.items()]
    for flag, value in zip(argv, (*argv[1:], ""), strict=True):
        name, equals, own = flag.partition("=")
        named += [(name, own if equals else value)] if name.startswith("-") else []
    known = {value: mask(value) for name, value in named if len(value) >= LEAST and is_secret(name, value)}
    if not known:
        return formed
    any_of = re.compile("|".join(re.escape(s) for s in sorted(known, key=len, reverse=True)))
    return lambda said: formed(any_of.sub(lambda match: known[match[0]], said))


def command_line(argv: Sequence[str]) -> list[str]:
    """An argument list as it may be stored."""
    found: list[str] = []
    for place, part in enumerate(argv):
        before = argv[place - 1] if place else ""
        name, equals, value = part.partition("=")
        if name.startswith("-") and equals:
            found.append(f"{name}={shown(name, value)}")
        else:
            found.append(shown(before if before.startswith("-") and "=" not in before else "", part))
    return found


def document(raw: bytes, tables: Collection[str]) -> bytes:
    """A scenario's bytes as they are stored: the same where it holds no secret, else with each one masked.

    `tables`: parts of it in which the names say which values are secrets (`env`); elsewhere only the form of
    a value counts, so that `input_tokens` is no secret. yaml.YAMLError when it is no YAML.
    """
    data = yaml.safe_load(raw)
    wanted = _masked(data, tables)
    found = FORMS.sub(lambda match: mask(match[0]), raw.decode("utf-8"))
    for secret, instead in sorted(_pairs(data, wanted), key=lambda pair: -len(pair[0])):
        found = found.replace(secret, instead)
    if found.encode("utf-8") == raw and wanted == data:
        return raw
    with contextlib.suppress(yaml.YAMLError):
        if yaml.safe_load(found) == wanted:
            return found.encode("utf-8")
    # A secret is written in another way than it reads, or is part of another word.
    text = yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True)
    return f"# Secrets are masked; comments and layout are lost with them.\n{text}".encode()


def _masked(node: Any, tables: Collection[str], name: str = "", inside: bool = False) -> Any:
    if isinstance(node, dict):
        within = inside or name in tables
        return {key: _masked(value, tables, str(key), within) for key, value in node.items()}
    if isinstance(node, list):
        return [_masked(value, tables, name, inside) for value in node]
    return shown(name if inside else "", node)


def _pairs(before: Any, after: Any) -> Iterator[tuple[str, str]]:
    """Every value that was changed, with what stands for it."""
    if isinstance(before, dict):
        for key, value in before.items():
            yield from _pairs(value, after[key])
    elif isinstance(before, list):
        for value, other in zip(before, after, strict=True):
            yield from _pairs(value, other)
    elif before != after:
        yield str(before), str(after)
