"""What one JSON object of OpenAI's API carries: its first choice, the output in it, the token counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving import wire


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a request as its server tells them; None: not told."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None


def usage(content: dict[str, Any]) -> Usage | None:
    """The counts, each in its range; None without any. WireError: one that is none, by name and value."""
    told = content.get("usage")
    if not isinstance(told, dict):
        return None
    details = told.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    spent = told.get("completion_tokens_details")
    reasoning = spent.get("reasoning_tokens") if isinstance(spent, dict) else None
    return Usage(
        wire.count(told.get("prompt_tokens"), "usage.prompt_tokens"),
        wire.count(told.get("completion_tokens"), "usage.completion_tokens"),
        wire.count(cached, "usage.prompt_tokens_details.cached_tokens"),
        wire.count(reasoning, "usage.completion_tokens_details.reasoning_tokens"),
    )


def choice(content: dict[str, Any]) -> dict[str, Any]:
    """The first choice; empty where there is none."""
    choices = content.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    return first if isinstance(first, dict) else {}


def output(choice: dict[str, Any]) -> tuple[str, str]:
    """Text of the answer and of the reasoning that one chunk carries."""
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        text = choice.get("text")
        return (text, "") if isinstance(text, str) else ("", "")
    answer = delta.get("content") or delta.get("refusal") or ""
    if not answer and delta.get("tool_calls"):
        answer = json.dumps(delta["tool_calls"])
    reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
    return str(answer), str(reasoning)


def believable(told: Sequence[int], events: int, total: int) -> bool:
    """Whether the tokens told with the events are one count of each, and together those of the usage.

    Two may be missing at the end, or 1%: a special token has no text and no event of its own.
    """
    if len(told) != events or min(told, default=1) < 1:
        return False
    return not told or 0 <= total - sum(told) <= max(2, total // 100)
