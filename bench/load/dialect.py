"""Which request body a server takes: with vLLM's extensions to OpenAI's, or without."""

from __future__ import annotations

from bench.grid import Load
from bench.load import schedule
from serving.engine import Endpoint
from serving.keys import authorization

STRICT_NOTE = "the server refuses ignore_eos and min_tokens; output lengths are its own choice"
PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
REFUSALS = (400, 422)
ANSWERS_WITHIN_S = 30.0


def is_strict(endpoint: Endpoint, load: Load) -> bool:
    """Whether a request with `ignore_eos` and `min_tokens` is refused and one without them is taken.

    Three tiny requests at most: a refusal is asked again after the other was taken, for a server that was not
    ready yet refuses anything. One that does not answer is not called strict: the load will say why.
    """

    def refused() -> bool:
        return _status(endpoint, load, lenient=False) in REFUSALS

    return refused() and _status(endpoint, load, lenient=True) == 200 and refused()


def _status(endpoint: Endpoint, load: Load, *, lenient: bool) -> int | None:
    import httpx

    headers = {"Content-Type": "application/json", **authorization(endpoint.api_key_env)}
    body = schedule.body(load, endpoint.served_model, "Hello", 1, 0, lenient=lenient)
    try:
        with (
            httpx.Client(trust_env=False, timeout=min(ANSWERS_WITHIN_S, load.request_timeout_s)) as client,
            client.stream(
                "POST", endpoint.url + PATHS[load.endpoint], content=body, headers=headers
            ) as answer,
        ):
            return answer.status_code  # of a body that may never end
    except httpx.HTTPError:
        return None
