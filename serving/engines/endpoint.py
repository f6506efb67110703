"""endpoint: a server that runs already, or a hosted OpenAI-compatible provider; never started nor stopped."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from serving import masking, wire
from serving.config import ServingConfig
from serving.engine import Command
from serving.errors import UserError
from serving.keys import authorization, key_of

TIMEOUT_S = 30.0
ROUTES = ("/chat/completions", "/completions", "/models")


class RunningEndpoint:
    """Engine protocol (`serving.engine`) for a URL. Its key is read from the environment, and never kept."""

    name = "endpoint"
    simulated = False
    honours = frozenset({"url", "api_key_env", "gpus"})

    def problems(self, config: ServingConfig) -> list[str]:
        """No URL, one that is none, or a key's variable that is not set. Does not ask the server."""
        if not config.url:
            return ["endpoint needs `url`, the base URL of a running server, such as http://127.0.0.1:8000"]
        found = url_problems(config.url)
        if config.url.rstrip("/").endswith("/v1"):
            found.append(f"url {masking.text(config.url)!r} is the base of the server: leave /v1 away")
        try:
            key_of(config.api_key_env)
        except UserError as error:
            found.append(f"api_key_env: {error.message}")
        return found

    def version(self, config: ServingConfig) -> str:
        return "unknown"

    def command(self, config: ServingConfig, port: int) -> Command | None:
        return None

    def served_model(self, config: ServingConfig) -> str:
        return config.model

    def effective(self, url: str, config: ServingConfig, log: str) -> dict[str, object]:
        """Where the server tells: its version (GET /version), max_model_len, and whether it is simulated."""
        headers = authorization(config.api_key_env)
        found: dict[str, object] = {}
        with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S) as http:
            version = _json(http, "/version")
            if isinstance(version, dict) and isinstance(version.get("version"), str):
                found["version"] = wire.line(version["version"], 100)
            info = _json(http, "/server_info")
            if isinstance(info, dict) and info.get("simulated") is True:
                found["simulated"] = True
            listed = _json(http, "/v1/models")
        for row in wire.models(listed):
            if row.get("id") == config.model and isinstance(row.get("max_model_len"), int):
                try:
                    found["max_model_len"] = wire.count(row["max_model_len"], "max_model_len") or None
                except wire.WireError:
                    continue  # not told
        return {name: value for name, value in found.items() if value is not None}

    def without_effect(
        self, config: ServingConfig, effective: Mapping[str, object], log: str
    ) -> dict[str, str]:
        return {}

    def reset_prefix_cache(self, url: str) -> bool:
        """Never: somebody else's cache is not ours to empty."""
        return False


def url_problems(url: str) -> list[str]:
    """Why `url` is no base address of a server: its scheme, a name or key in it, a query, a whole route."""
    shown = masking.text(url)
    try:
        parts = urlsplit(url)
        named = parts.hostname
        parts.port  # noqa: B018 -- raises where it is no number
    except ValueError as error:
        return [f"url {shown!r} is no URL: {error}"]
    found: list[str] = []
    if parts.scheme not in ("http", "https") or not named:
        found.append(f"url {shown!r} is no http:// or https:// URL")
    if parts.username or parts.password:
        return ["url must carry no name or password; name the key's variable in api_key_env"]
    if parts.query or parts.fragment:
        found.append(
            f"url must carry no query, which would not be sent: {masking.text(parts.query or parts.fragment)}"
        )
    for route in ROUTES:
        if parts.path.rstrip("/").endswith(route):
            found.append(f"url {shown!r} is the base of the server: leave {route} away")
            break
    return found


def _json(http: httpx.Client, path: str) -> object:
    """JSON, or None where the server has no such route or answers something else."""
    try:
        status, body = wire.get(http, path)
        return wire.loads(body) if status == 200 else None
    except (httpx.HTTPError, wire.WireError):
        return None
