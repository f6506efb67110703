"""endpoint: a server that runs already, or a hosted OpenAI-compatible provider; never started nor stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from serving import masking
from serving.config import ServingConfig
from serving.engine import Command

TIMEOUT_S = 30.0


class RunningEndpoint:
    """Engine protocol (`serving.engine`) for a URL. Its key is read from the environment, and never kept."""

    name = "endpoint"
    simulated = False
    honours = frozenset({"url", "api_key_env", "gpus"})

    def problems(self, config: ServingConfig) -> list[str]:
        """No URL, one that is none, or a key's variable that is not set. Does not ask the server."""
        if not config.url:
            return ["endpoint needs `url`, the base URL of a running server, such as http://127.0.0.1:8000"]
        parts = urlsplit(config.url)
        found = []
        if parts.scheme not in ("http", "https") or not parts.hostname:
            found.append(f"url {masking.text(config.url)!r} is no http:// or https:// URL")
        if parts.username or parts.password or parts.query:
            found.append("url must carry no name, password or query; name the key's variable in api_key_env")
        if parts.path.rstrip("/").endswith("/v1"):
            found.append(f"url {masking.text(config.url)!r} is the base of the server: leave /v1 away")
        if config.api_key_env and not os.environ.get(config.api_key_env):
            found.append(f"the environment variable {config.api_key_env} (api_key_env) is not set")
        return found

    def version(self, config: ServingConfig) -> str:
        return "unknown"

    def command(self, config: ServingConfig, port: int) -> Command | None:
        return None

    def served_model(self, config: ServingConfig) -> str:
        return config.model

    def effective(self, url: str, config: ServingConfig, log: str) -> dict[str, object]:
        """Where the server tells: its version (GET /version), max_model_len, and whether it is simulated."""
        key = os.environ.get(config.api_key_env) if config.api_key_env else None
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        found: dict[str, object] = {}
        with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S) as http:
            version = _json(http, "/version")
            if version and isinstance(version.get("version"), str):
                found["version"] = version["version"]
            info = _json(http, "/server_info")
            if info and info.get("simulated") is True:
                found["simulated"] = True
            listed = (_json(http, "/v1/models") or {}).get("data")
        for row in listed if isinstance(listed, list) else []:
            if row.get("id") == config.model and row.get("max_model_len"):
                found["max_model_len"] = row["max_model_len"]
        return found

    def without_effect(
        self, config: ServingConfig, effective: Mapping[str, object], log: str
    ) -> dict[str, str]:
        return {}

    def reset_prefix_cache(self, url: str) -> bool:
        """Never: somebody else's cache is not ours to empty."""
        return False


def _json(http: httpx.Client, path: str) -> dict[str, object] | None:
    """A JSON object, or None where the server has no such route or answers something else."""
    try:
        answer = http.get(path)
        body = answer.json() if answer.status_code == 200 else None
    except (httpx.TransportError, ValueError):
        return None
    return body if isinstance(body, dict) else None
