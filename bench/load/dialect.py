"""Which request body a server takes: with vLLM's extensions to OpenAI's, or without."""

from __future__ import annotations

import os

from bench.grid import Load
from bench.load import schedule
from serving.engine import Endpoint

STRICT_NOTE = "the server refuses ignore_eos and min_tokens; output lengths are its own choice"
PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
REFUSALS = (400, 422)
ANSWERS_WITHIN_S = 30.0


def is_strict(endpoint: Endpoint, load: Load) -> bool:
    """Whether a request with `ignore_eos` and `min_tokens` is refused and one without them is taken.

    Two tiny requests at most. A server that does not answer is not called strict: the load will say why.
    """
    return _status(endpoint, load, lenient=False) in REFUSALS and _status(endpoint, load, lenient=True) == 200


def _status(endpoint: Endpoint, load: Load, *, lenient: bool) -> int | None:
    import httpx

    key = os.environ.get(endpoint.api_key_env or "")
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    body = schedule.body(load, endpoint.served_model, "Hello", 1, 0, lenient=lenient)
    try:
        with httpx.Client(trust_env=False, timeout=min(ANSWERS_WITHIN_S, load.request_timeout_s)) as client:
            return client.post(endpoint.url + PATHS[load.endpoint], content=body, headers=headers).status_code
    except httpx.HTTPError:
        return None
