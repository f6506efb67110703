"""Load -> requests: planned times, prompts and rendered bodies, all before the first byte is sent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.client.job import Request
from bench.point import Load
from bench.traffic import arrivals, trace
from bench.traffic.prompts import Prompts
from serving.errors import UserError

FASTEST_REQUEST_S = 0.05
"""A closed loop with a duration and no request count has at most prompts enough for requests this short."""
MOST_PROMPT_TOKENS = 50_000_000
LARGEST_PLAN_TOKENS = 2_000_000
"""A closed loop by duration plans no more prompts than this; after them each is sent again, begun anew."""


def requests(
    load: Load, model: str, prompts: Prompts, *, seed: int, salt: str, lenient: bool
) -> tuple[list[Request], tuple[str, ...]]:
    """The requests of a load in planned order, and for a closed loop by duration words to renew them with.

    `lenient`: without vLLM's extensions to the OpenAI body. UserError for a load that cannot be planned
    (multi-turn in open loop, too many prompt tokens, nothing to send).
    """
    times, sizes, blocks = _sizes(load, seed)
    if load.turns > 1 and load.arrivals != "closed":
        raise UserError("multi-turn sessions need a closed loop", "give concurrency in place of a rate")
    total = sum(came for came, _ in sizes)
    if total > MOST_PROMPT_TOKENS:
        raise UserError(
            f"the load needs {total:,} prompt tokens made beforehand; the most is {MOST_PROMPT_TOKENS:,}",
            "fewer requests, or a shorter duration",
        )
    if not sizes:
        raise UserError("the load plans no request at all", "a longer duration, or a higher rate")
    salt = f"{salt}-{seed}"
    made_prompts = prompts.make(
        [came for came, _ in sizes],
        salt,
        chat=load.endpoint == "chat",
        shared=load.shared_prefix_tokens,
        blocks=blocks,
        block_tokens=trace.BLOCK_TOKENS,
    )
    made = []
    for number, ((came, went), prompt) in enumerate(zip(sizes, made_prompts, strict=True)):
        follow_ups: tuple[str, ...] = ()
        if load.turns > 1:
            said = prompts.make([came] * (load.turns - 1), f"{salt}-{number}")
            follow_ups = tuple(f" {more.text.lstrip()}" for more in said)
        content = body(load, model, prompt.text, went, seed + number, lenient=lenient)
        made.append(
            Request(
                index=number * load.turns,
                planned_s=times[number] if times is not None else 0.0,
                input_tokens=came,
                output_tokens=went,
                body=content,
                own=prompt.own,
                own_at=content.index(prompt.text) + prompt.own_at,
                session=number if load.turns > 1 else None,
                follow_ups=follow_ups,
            )
        )
    renew = load.arrivals == "closed" and load.requests is None and all(request.own for request in made)
    return made, tuple(prompts.order(salt)) if renew else ()


def warmups(
    load: Load, model: str, prompts: Prompts, *, seed: int, salt: str, lenient: bool
) -> list[Request]:
    """The requests before the load: of its sizes, with prompts that the load never sends."""
    if not load.warmup_requests:
        return []
    few = replace(load, arrivals="closed", concurrency=1, rate_per_s=None, trace=None, duration_s=None,
                  requests=load.warmup_requests, turns=1)  # fmt: skip
    return requests(few, model, prompts, seed=seed, salt=f"{salt}-warmup", lenient=lenient)[0]


def body(load: Load, model: str, text: str, output_tokens: int, seed: int, *, lenient: bool = False) -> str:
    """The JSON of one request. `ignore_eos` and `min_tokens` are vLLM's: they force the output length."""
    content: dict[str, Any] = {"model": model, "max_tokens": output_tokens, "temperature": load.temperature}
    if load.endpoint == "chat":
        content["messages"] = [{"role": "user", "content": text}]
    else:
        content["prompt"] = text
    if load.temperature > 0:
        content["seed"] = seed
    if load.stream:
        content["stream"] = True
        content["stream_options"] = {"include_usage": True}
    if not lenient:
        content |= {"ignore_eos": True, "min_tokens": output_tokens}
    return json.dumps(content, ensure_ascii=False)


def _sizes(load: Load, seed: int) -> tuple[list[float] | None, list[tuple[int, int]], list[tuple[int, ...]]]:
    """Planned times (None: closed loop), (input, output) tokens and prefix blocks of each request."""
    if load.arrivals == "trace":
        assert load.trace is not None
        rows = trace.read(Path(load.trace), requests=load.requests, duration_s=load.duration_s)
        return (
            [r.at_s for r in rows],
            [(r.input_tokens, r.output_tokens) for r in rows],
            [r.blocks for r in rows],
        )
    if load.arrivals != "closed":
        times = arrivals.planned(load, seed).tolist()
        return times, [(load.input_tokens, load.output_tokens)] * len(times), []
    return None, [(load.input_tokens, load.output_tokens)] * _planned_count(load), []


def _planned_count(load: Load) -> int:
    """Requests (sessions, where they have turns) that a closed loop plans."""
    if load.requests is not None:
        return -(-load.requests // load.turns)
    assert load.duration_s is not None
    users = load.concurrency or 1
    most = int(users * (load.duration_s / FASTEST_REQUEST_S + 1))
    return min(most, max(2 * users, LARGEST_PLAN_TOKENS // load.input_tokens))
