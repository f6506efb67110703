"""Can this server give what the tasks need? Tried on it before anything starts, never assumed by name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from bench.accuracy.asking import Halt
from bench.accuracy.client import AskError, Client
from bench.accuracy.limits import Asks, Backoff, Patient
from bench.accuracy.stability import SCHEMA, valid
from bench.accuracy.task import Answer, Ask, Need, Task
from serving.engine import Endpoint

TEXT = "The capital of France is the city of Paris, which lies on the river Seine."
DRIFT = 1e-3
"""Largest difference between log-probabilities of one prompt, asked twice with others in between."""

KNOWN_LACKS: dict[str, dict[Need, str]] = {
    "transformers": {
        Need.PROMPT_LOGPROBS: "`transformers serve` answers `echo` and `logprobs` with 422",
        Need.JSON_SCHEMA: "`transformers serve` answers `response_format` with 422",
    },
}
"""Engine -> what it is known not to give (read in its 5.23.0 and tried), so that a plan can say it before
anything starts. An engine that is not listed is tried when it runs; so are these."""


def known_lack(engine: str, need: Need) -> str | None:
    """Why `engine` is known not to give `need`; None: it may."""
    why = KNOWN_LACKS.get(engine, {}).get(need)
    return f"{need.value}: {why}" if why else None


@dataclass(frozen=True)
class Findings:
    """`lacking`: need -> why not. `notes`: what to know about the instrument itself."""

    lacking: dict[Need, str]
    notes: tuple[str, ...] = ()

    def refusal(self, task: Task) -> str | None:
        """Why this task cannot be scored here, or None."""
        why = [f"{need.value}: {self.lacking[need]}" for need in sorted(task.needs) if need in self.lacking]
        return "; ".join(why) or None


def preflight(
    endpoint: Endpoint, tasks: Iterable[Task], timeout_s: float = 120.0, backoff: Backoff | None = None
) -> Findings:
    """Tries every need of the tasks once, one request at a time. Halt when nobody answers at all."""
    wanted = sorted({need for task in tasks for need in task.needs})

    async def all_of_them() -> Findings:
        lacking: dict[Need, str] = {}
        notes: tuple[str, ...] = ()
        async with Client(endpoint, concurrency=1, timeout_s=timeout_s) as client:
            for need in wanted:
                try:
                    notes += await _try(Patient(client, backoff or Backoff()), need)
                except AskError as error:
                    if error.kind == "timeout":
                        raise Halt(f"no answer to a first request: {error}", silent=True) from error
                    if error.gone and error.status is None:
                        raise Halt(f"no connection for a first request: {error}", silent=False) from error
                    lacking[need] = str(error)[:300]
        return Findings(lacking, notes)

    return asyncio.run(all_of_them())


async def _try(client: Asks, need: Need) -> tuple[str, ...]:
    short = {"max_tokens": 4, "temperature": 0.0}
    if need == Need.PROMPT_LOGPROBS:
        return await _log_probabilities(client)
    if need == Need.COMPLETIONS:
        _some(await client.ask(Ask("generate", TEXT, options=short)))
        return ()
    message = ({"role": "user", "content": "Say hello."},)
    if need == Need.CHAT:
        _some(await client.ask(Ask("chat", messages=message, options=short)))
        return ()
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    options = {"max_tokens": 200, "temperature": 0.0, "response_format": form}
    answer = await client.ask(Ask("chat", messages=message, options=options))
    # An answer cut at max_tokens may still have been held to the schema; free text was not.
    if not valid(answer.text) and not (answer.finish == "length" and answer.text.lstrip().startswith("{")):
        raise AskError("ignored", f"response_format was accepted and the answer was {answer.text[:80]!r}")
    return ()


def _some(answer: object) -> None:
    said = isinstance(answer, Answer) and (answer.text or answer.reasoning or answer.output_tokens)
    if not said:
        raise AskError("empty", "the answer has no text")


async def _log_probabilities(client: Asks) -> tuple[str, ...]:
    """Whole, one for each prompt token, for several prompts at once, and the same when asked again."""
    first = await client.ask(Ask("score", TEXT, top=5))
    if len(first.tokens) < 8:
        raise AskError("too few", f"{len(first.tokens)} tokens echoed of a prompt of {len(TEXT)} characters")
    if not "".join(first.tokens).endswith(TEXT[-12:]):
        raise AskError("other text", f"the echoed tokens are not the prompt's: {first.tokens[-3:]}")
    ranked = await client.ask(Ask("rank", "The capital of France is", choices=(" Paris", " seven")))
    if len(ranked.logliks) != 2:
        raise AskError("too few", "two prompts in one request were not answered")
    await client.ask(Ask("score", TEXT[:40], top=5))
    again = await client.ask(Ask("score", TEXT, top=5))
    gaps = [
        abs(a - b)
        for a, b in zip(first.logprobs, again.logprobs, strict=True)
        if a is not None and b is not None
    ]
    if max(gaps) > DRIFT:
        what = (
            f"log-probabilities of one prompt differ by up to {max(gaps):.4f} when asked again after others"
        )
        return (f"{what}: switch prefix caching off to score",)
    return ()
