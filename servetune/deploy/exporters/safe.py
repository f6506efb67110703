"""What may not leave in any file: settings that open the server, values that turn into flags, secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from servetune.deploy.exporters.deployment import Deployment
from serving.errors import UserError

NEVER_FLAGS = frozenset({"host", "port", "api-key", "trust-remote-code", "config", "uds", "middleware"})
"""Flags that decide who reaches the server or what code it runs; a spec does not carry them."""

NEVER_ENV = frozenset(
    {"VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_ALLOW_INSECURE_SERIALIZATION",
     "LD_PRELOAD", "PYTHONPATH", "PATH"}
)  # fmt: skip
"""Switches of vLLM that open administrative routes or unpickle input (vLLM docs/usage/security.md)."""

SECRET_NAME = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$")
SECRET_VALUE = re.compile(
    r"hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\."
)
"""Tokens that can be told by their form: Hugging Face, OpenAI-like, GitHub, AWS, PEM keys, JWTs."""

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OBJECT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
OBJECT_KEY = re.compile(r"[A-Za-z0-9._-]{1,253}")
FLAG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,100}")
ROUTE = re.compile(r"/[A-Za-z0-9/_-]*")


def check(deployment: Deployment) -> None:
    """UserError that names everything in the deployment that must not be exported."""
    found = list(_problems(deployment))
    if found:
        raise UserError(
            "the spec cannot be exported: " + "; ".join(found), "mend the study and write the spec again"
        )


def _problems(deployment: Deployment) -> Iterator[str]:
    for name in deployment.flags:
        if not FLAG.fullmatch(name):
            yield f"{name!r} is not the name of a flag"
        elif name.removeprefix("no-") in NEVER_FLAGS:
            yield f"flag {name} may not be part of a spec"
    for name, value in deployment.env.items():
        if not ENV_NAME.fullmatch(name) or name in NEVER_ENV:
            yield f"environment variable {name!r} may not be part of a spec"
        elif SECRET_NAME.search(name.upper()):
            yield f"environment variable {name} would hold a secret; refer to it under secrets"
        elif "\0" in value:
            yield f"environment variable {name} holds a NUL"
    if deployment.revision is not None and not REVISION.fullmatch(deployment.revision):
        yield f"revision {deployment.revision!r} is neither a commit nor a name"
    for secret in deployment.secrets:
        known = OBJECT_NAME.fullmatch(secret.name) and OBJECT_KEY.fullmatch(secret.key)
        if not known or not ENV_NAME.fullmatch(secret.env):
            yield f"secret reference {secret.name!r}/{secret.key!r} is not a name and a key"
    for route in deployment.routes:
        if not ROUTE.fullmatch(route):
            yield f"route {route!r} is not a plain path"
    for place, text in _texts(deployment):
        if text.startswith("-") and not _is_number(text):
            yield f"{place}: {text!r} would be read as a flag"
        if SECRET_VALUE.search(text):
            yield f"{place} holds what looks like a secret"


def _texts(deployment: Deployment) -> Iterator[tuple[str, str]]:
    """Every text that becomes an argument or a value of the server, with its place."""
    yield "model", deployment.model
    yield "served model name", deployment.served_model
    yield "revision", deployment.revision or ""
    for name, value in deployment.flags.items():
        for text in _leaves(value):
            yield f"flag {name}", text
    for name, value in deployment.env.items():
        if not value.startswith("-"):  # an environment variable is never read as a flag
            yield f"environment variable {name}", value


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _leaves(inner)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
