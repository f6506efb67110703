"""Why an engine has no numbers to give: exit code, log and behaviour to one `Failure`.

`RULES` are tried in order and the first that matches names the kind: causes stand before their
consequences, because an engine's log usually ends with the consequence. They are in
`serving.failure.rules_broken` and `serving.failure.rules_refused`; `tests/logs/` holds the logs they are
judged by.

Lines at the level of information and warnings are left out first: a healthy start says "out of memory",
"failed" and "not supported" often enough.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from typing import Literal

from serving.errors import Failure, FailureKind
from serving.failure import rules_broken, rules_refused
from serving.failure.rule import Rule

Phase = Literal["launch", "load"]
Behaviour = Literal["exited", "not_ready", "silent", "failing"]

TAIL_LINES = 60
READ_CHARACTERS = 400_000
DETAIL_CHARACTERS = 300
LINE_CHARACTERS = 20_000
UNKNOWN_HINT = "the log's tail is kept with this failure; env VLLM_LOGGING_LEVEL=DEBUG makes vLLM say more"

RULES: tuple[Rule, ...] = (
    *rules_broken.TAKEN,
    *rules_broken.MEMORY,
    *rules_refused.COMMAND_LINE,
    *rules_refused.MODEL,
    *rules_broken.DRIVER,
    *rules_refused.PARALLEL,
    *rules_refused.SETTINGS,
    *rules_broken.GPU_FAULT,
    *rules_broken.MACHINE,
    *rules_broken.TOOLS,
    *rules_broken.PROCESSES,
)

BY_BEHAVIOUR: Mapping[Behaviour, tuple[FailureKind, str, str]] = {
    "not_ready": (
        FailureKind.NOT_READY,
        "not ready in time",
        "raise limits.ready_s in the scenario; a first start compiles and may take minutes",
    ),
    "silent": (
        FailureKind.HANG,
        "accepted requests and sent no token",
        "the log's tail is kept; a running engine can be looked at with py-spy dump --pid",
    ),
    "failing": (
        FailureKind.CRASH,
        "answers with an error",
        "the log's tail is kept with this failure",
    ),
}

_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_HARMLESS = re.compile(r"(?:\([^()]{1,80}\) ?){0,4}(?:INFO|DEBUG|WARNING)\b")
_ASIDE = re.compile(
    r"NCCL INFO |Warning: |dump_input\.py"
    r"|^[\s>│|]{0,40}(?:\([^()]{1,80}\) ?){0,4}(?:[^\]]{0,60}\])?\s{0,80}raise \w"
)
_PREFIX = re.compile(
    r"^[\s>│|]*(?:\[rank\d+\]:\s*)?(?:\([^()]{0,60}(?:pid|rank)[= ][^()]{1,80}\)\s?){0,4}"
    r"(?:(?:ERROR|CRITICAL) (?:[\d-]+ [\d:.]+ )?)?(?:\[?[\w/]+\.py:\d+\]\s*)?"
)
_EXCEPTION = re.compile(r"(?m)^(?!.*\bexcept\b).*?\b(\w+(?:Error|Exception|Interrupt)(?:: .*)?)$")
_CONSEQUENCE = re.compile(
    r"See (?:root cause|stack trace)|EngineDeadError|EngineGenerateError|CancelledError"
    r"|RuntimeError: cancelled|KeyboardInterrupt|ConnectionResetError|BrokenPipeError|died unexpectedly"
)


def classify(
    exit_code: int | None,
    log: str,
    *,
    phase: Phase,
    behaviour: Behaviour = "exited",
    waited_s: float | None = None,
    out_of_host_memory: bool = False,
    settings: Mapping[str, object] | None = None,
) -> Failure:
    """The failure of an engine that did not start, died (`exited`), or no longer answers.

    `exit_code` as `subprocess` gives it (None: still running). `out_of_host_memory`: the kernel's
    out-of-memory killer was at work meanwhile. Never raises; without a known cause an exit is a CRASH,
    or KILLED when a signal from outside ended it.
    """
    seen = log[-READ_CHARACTERS:]
    on_gpu = (settings or {}).get("device") == "cuda"
    kind, detail, hint = _cause(exit_code, seen, phase, behaviour, waited_s, out_of_host_memory, on_gpu)
    return Failure(kind, detail, hint, exit_code, tail(log), dict(settings or {}))


def tail(log: str, lines: int = TAIL_LINES) -> tuple[str, ...]:
    """The last lines of a log, without the blank ones."""
    return tuple(line.rstrip()[:2000] for line in log.splitlines() if line.strip())[-lines:]


def _cause(
    exit_code: int | None,
    log: str,
    phase: Phase,
    behaviour: Behaviour,
    waited_s: float | None,
    out_of_host_memory: bool,
    on_gpu: bool,
) -> tuple[FailureKind, str, str]:
    oom = FailureKind.OOM_LAUNCH if phase == "launch" else FailureKind.OOM_LOAD
    if out_of_host_memory and (exit_code is None or exit_code != 0):
        return oom, "the kernel ended it: the machine ran out of memory", rules_broken.MEMORY_HINT
    said = _said(log, on_gpu)
    for rule in RULES:
        if phase == "load" and rule.launch_only:
            continue
        found = re.search(rule.pattern, said)
        if found is None:
            continue
        if rule.consequence and phase == "launch" and _exceptions(said[: found.start()]):
            continue
        kind = oom if rule.kind is FailureKind.OOM_LAUNCH else rule.kind
        return kind, _lines(said, *found.span("detail" if "detail" in found.groupdict() else 0)), rule.hint
    if behaviour != "exited":
        kind, text, hint = BY_BEHAVIOUR[behaviour]
        after = f" (waited {waited_s:.0f} s)" if waited_s is not None else ""
        return kind, f"{text}{after}", hint
    if exit_code is not None and exit_code < 0 and -exit_code in (signal.SIGKILL, signal.SIGTERM):
        name = signal.Signals(-exit_code).name
        return FailureKind.KILLED, f"ended from outside by {name}", "something else on this machine ended it"
    return FailureKind.CRASH, _last_error(said, exit_code), UNKNOWN_HINT


def _said(log: str, on_gpu: bool) -> str:
    """The log without colours, asides and what is only source code in a traceback.

    torch warns of a driver it cannot use; without a GPU asked for, that is an aside too.
    """
    lines = (line[:LINE_CHARACTERS] for line in _COLOUR.sub("", log).splitlines())
    return "\n".join(
        line
        for line in lines
        if (on_gpu and "CUDA initialization: " in line) or not (_HARMLESS.match(line) or _ASIDE.search(line))
    )


def _lines(log: str, start: int, end: int) -> str:
    """The whole lines from start to end as one, without the engine's own prefixes.

    Of a very long line, what stands from the last exception before the words that were found.
    """
    first = log.rfind("\n", 0, start) + 1
    last = log.find("\n", end)
    if start - first > DETAIL_CHARACTERS // 2:
        named = [found.start() for found in re.finditer(r"\b\w+(?:Error|Exception): ", log[first:start])]
        first = first + named[-1] if named else start
    text = log[first : None if last < 0 else last]
    return " ".join(_plain(line) for line in text.splitlines())[:DETAIL_CHARACTERS].strip()


def _plain(line: str) -> str:
    return _PREFIX.sub("", line).strip(" \t│|")


def _exceptions(log: str) -> list[str]:
    """Every exception the log names, one a line, without those that only report another."""
    named = (_plain(found[0])[:DETAIL_CHARACTERS] for found in _EXCEPTION.finditer(log))
    return [line for line in named if not _CONSEQUENCE.search(line)]


def _last_error(log: str, exit_code: int | None) -> str:
    """The last exception, else the exit status or signal."""
    named = _exceptions(log)
    how = "it is gone" if exit_code is None else f"exit status {exit_code}"
    if exit_code is not None and exit_code < 0:
        try:
            how = f"ended by {signal.Signals(-exit_code).name}"
        except ValueError:
            how = f"ended by signal {-exit_code}"
    return f"{how}: {named[-1]}" if named else how
