"""Why an engine has no numbers to give: exit code, log and behaviour to one `Failure`, by a table.

The rules are tried in order and the first that matches names the kind: causes stand before their
consequences, because an engine's log usually ends with the consequence. Texts are those of the engines'
own logs; `tests/logs/` holds the ones they were written from.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from serving.errors import Failure, FailureKind

Phase = Literal["launch", "load"]
Behaviour = Literal["exited", "not_ready", "silent", "failing"]

TAIL_LINES = 60
READ_CHARACTERS = 400_000
DETAIL_CHARACTERS = 300


@dataclass(frozen=True)
class Rule:
    """A cause, the log text that shows it, and what to do. `OOM_LAUNCH` becomes `OOM_LOAD` under load.

    `launch_only`: under load the same words come from requests, and say nothing about the server.
    """

    kind: FailureKind
    pattern: str
    hint: str
    launch_only: bool = False


MEMORY_HINT = "lower max_model_len, max_num_seqs or kv_cache_bytes, or quantize the weights"

RULES: tuple[Rule, ...] = (
    Rule(
        FailureKind.PORT_TAKEN,
        r"address already in use|Errno 98|EADDRINUSE|only one usage of each socket address",
        "another process listens there; leave the port to servetune",
        launch_only=True,
    ),
    Rule(
        FailureKind.OOM_LAUNCH,
        r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
        r"|HIP out of memory|DefaultCPUAllocator: can't allocate memory|Cannot allocate memory|MemoryError\b",
        MEMORY_HINT,
    ),
    Rule(
        FailureKind.OOM_LAUNCH,
        r"No available memory for the cache blocks|KV cache is needed, which is larger than the available"
        r"|larger than the maximum number of tokens that can be stored in KV cache"
        r"|is less than requested memory for kv|is less than desired (GPU|CPU) memory utilization",
        f"{MEMORY_HINT}, or raise gpu_memory_utilization; see what else uses the memory: servetune doctor",
    ),
    Rule(
        FailureKind.BAD_FLAG,
        r"(?m)^.*(error: (unrecognized arguments|argument |ambiguous option|the following arguments)"
        r"|No such option|Invalid value for|Got unexpected extra argument|invalid choice).*$",
        "the engine's own parser refused the command line; servetune-flags.txt beside it lists its flags",
        launch_only=True,
    ),
    Rule(
        FailureKind.UNSUPPORTED,
        r"Failed to find a kernel|No compiled .* kernel|has no attribute '(cutlass|marlin|gptq|awq)[^']*'"
        r"|'_OpNamespace' '_C' object has no attribute|Could not run '[^']+' with arguments from the"
        r"|_C::\w+\(\) expected at most 0 argument|no kernel image is available"
        r"|not implemented for '(Half|BFloat16|Float8|Char)",
        "this build of the engine lacks the kernel on this device; serving/support.py lists what works",
    ),
    Rule(
        FailureKind.UNSUPPORTED,
        r"Unknown quantization method|Unsupported quantization method|(?i:quantization) is not supported"
        r"|is not supported for the current GPU|Minimum capability|currently not supported in this platform"
        r"|(?i:quantization method) \S+ is not|bfloat16 is only supported|Bfloat16 is only supported"
        r"|Invalid `?repository ID|requires (the )?bitsandbytes|Please install (the )?\S*bitsandbytes"
        r"|No module named 'bitsandbytes'|ImportError: (Using|Loading) .*(bitsandbytes|bnb)",
        "choose another quantization, dtype or engine version: serving/support.py lists what works",
        launch_only=True,
    ),
    Rule(
        FailureKind.UNSUPPORTED,
        r"(?m)^ *Value error, .*$",
        "the engine refused this setting or combination of settings",
        launch_only=True,
    ),
    Rule(
        FailureKind.UNSUPPORTED,
        r"ValidationError: \d+ validation errors? for|NotImplementedError"
        r"|ValueError: .*(not supported|unsupported|must be|should be|is greater than the derived|cannot be)",
        "the engine refused this setting or combination of settings",
        launch_only=True,
    ),
    Rule(
        FailureKind.KILLED,
        r"died unexpectedly \(exit code: -(9|15)\)",
        "something else on this machine ended a process of the engine",
    ),
    Rule(
        FailureKind.CRASH,
        r"(Worker proc|Engine core proc|EngineCore) ?\S* died unexpectedly",
        "one of its processes ended without a word: killed from outside, or a crash in native code",
    ),
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

_PREFIX = re.compile(
    r"^\s*(\(\S+ pid=\d+\)\s*)?((INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:.]+ \[[^\]]*\]\s*)?"
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
    kind, detail, hint = _cause(exit_code, seen, phase, behaviour, waited_s, out_of_host_memory)
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
) -> tuple[FailureKind, str, str]:
    oom = FailureKind.OOM_LAUNCH if phase == "launch" else FailureKind.OOM_LOAD
    if out_of_host_memory and (exit_code is None or exit_code != 0):
        return oom, "the kernel ended it: the machine ran out of memory", MEMORY_HINT
    for rule in RULES:
        if phase == "load" and rule.launch_only:
            continue
        found = re.search(rule.pattern, log)
        if found:
            kind = oom if rule.kind is FailureKind.OOM_LAUNCH else rule.kind
            return kind, _line(log, found.start()), rule.hint
    if behaviour != "exited":
        kind, text, hint = BY_BEHAVIOUR[behaviour]
        after = f" (waited {waited_s:.0f} s)" if waited_s is not None else ""
        return kind, f"{text}{after}", hint
    if exit_code is not None and exit_code < 0 and -exit_code in (signal.SIGKILL, signal.SIGTERM):
        name = signal.Signals(-exit_code).name
        return FailureKind.KILLED, f"ended from outside by {name}", "something else on this machine ended it"
    return FailureKind.CRASH, _last_error(log, exit_code), "the log's tail is kept with this failure"


def _line(log: str, position: int) -> str:
    """The whole line at a position, without the engine's own prefix."""
    start = log.rfind("\n", 0, position) + 1
    end = log.find("\n", position)
    return _PREFIX.sub("", log[start : None if end < 0 else end]).strip()[:DETAIL_CHARACTERS]


def _last_error(log: str, exit_code: int | None) -> str:
    """The last line that names an exception, else the exit status or signal."""
    named = [
        line
        for line in re.findall(r"(?m)^.*?\b(\w+(?:Error|Exception|Interrupt)\b: ?.*)$", log)
        if not re.search(r"See (root cause|stack trace)|EngineDeadError", line)
    ]
    how = "it is gone" if exit_code is None else f"exit status {exit_code}"
    if exit_code is not None and exit_code < 0:
        try:
            how = f"ended by {signal.Signals(-exit_code).name}"
        except ValueError:
            how = f"ended by signal {-exit_code}"
    return f"{how}: {named[-1].strip()[:DETAIL_CHARACTERS]}" if named else how
