"""Every error of servetune, drawn once.

ServetuneError              message + hint; the command line prints `error:` then `hint:`
├── UserError               what was asked cannot be done: the user's to fix           exit 2
│   ├── ScenarioError       a scenario file: file, line, key, found, allowed
│   └── BusyError           a lock is held by another run, which is named
├── EngineError             an engine did not start, died or hung: carries a Failure, becomes data
└── BrokenRunError          a results folder that cannot be read                       exit 1

An EngineError never ends a campaign: `bench.measure` keeps its `Failure` in the results and goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class FailureKind(StrEnum):
    """Why a point has no numbers. The value is what results, reports and searches show."""

    OOM_LAUNCH = "oom_at_launch"
    OOM_LOAD = "oom_under_load"
    UNSUPPORTED = "unsupported_setting"
    BAD_FLAG = "bad_flag"
    CRASH = "crash"
    HANG = "hang"
    NOT_READY = "readiness_timeout"
    PORT_TAKEN = "port_taken"
    NO_EFFECT = "setting_without_effect"
    WRONG_IDENTITY = "wrong_identity"
    NOT_SCORED = "evaluation_failed"
    NOT_INSTALLED = "engine_not_installed"
    KILLED = "killed"


@dataclass(frozen=True)
class Failure:
    """One failure, whole enough to be understood a year later.

    `detail` is one line of cause; `log_tail` the last lines the engine wrote; `settings` what was
    attempted (neutral names); `exit_code` as `subprocess` gives it (negative: the signal).
    """

    kind: FailureKind
    detail: str
    hint: str = ""
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)


class ServetuneError(Exception):
    """Base of all: a cause in `message`, a way out in `hint`."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UserError(ServetuneError):
    exit_code = 2


class ScenarioError(UserError):
    """A scenario file that cannot be used: `file:line: key: found ..., allowed ...`."""

    def __init__(
        self, file: Path, line: int | None, key: str, found: str, allowed: str, hint: str = ""
    ) -> None:
        self.file, self.line, self.key, self.found, self.allowed = file, line, key, found, allowed
        place = f"{file}:{line}" if line is not None else str(file)
        super().__init__(f"{place}: {key}: found {found}; allowed: {allowed}", hint)


class BusyError(UserError):
    """A device or results folder is in use by another run; the message says whose."""


class EngineError(ServetuneError):
    """An engine failed; `failure` is what the results keep."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.detail}", failure.hint)
        self.failure = failure


class BrokenRunError(ServetuneError):
    """A results folder that is not one, or whose files contradict each other."""
