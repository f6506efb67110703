"""Rule: one cause of an engine's end, as its log shows it."""

from __future__ import annotations

from dataclasses import dataclass

from serving.errors import FailureKind


@dataclass(frozen=True)
class Rule:
    """A cause, the log text that shows it, and what to do. `OOM_LAUNCH` becomes `OOM_LOAD` under load.

    The detail of the failure is the whole line that `pattern` matches, or all lines where it runs over
    several; a group named `detail` narrows it down.
    `launch_only`: under load the same words come from requests, and say nothing about the server.
    `consequence`: at launch, an exception further up in the log is the better answer.
    """

    kind: FailureKind
    pattern: str
    hint: str
    launch_only: bool = False
    consequence: bool = False
