"""What an evaluation found, and its folder.

evaluation.json       what was asked of which server, with which settings; how it ended
<task>.jsonl          answers as they came (`bench.accuracy.journal`)
<task>.scores.json    scores of those answers; made again from them by `evaluate`
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.accuracy.task import Measures
from serving.errors import BrokenRunError, Failure, FailureKind

SCHEMA = 1
REFUSED = re.compile(r"http_status: (400|413|422)\b")
"""Errors with which a server refuses the prompt itself."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One item: `value` in [0, 1]; an `error` scores 0, and so does what was not answered.

    `cut`: the answer ended at its token limit. `unanswered`: why there is no answer to score. Tokens are
    None where the server tells none.
    """

    value: float
    choice: str
    prompt: str
    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cluster: str = ""
    cut: bool = False
    error: str = ""
    unanswered: str = ""

    @property
    def lost(self) -> bool:
        """Whether the request failed on its way; a prompt that the server refuses is its own failure."""
        return bool(self.error) and not REFUSED.match(self.error)


@dataclass(frozen=True)
class TaskResult:
    """Scores by item. `rejected_at`: items after which the sequential test said FAIL."""

    name: str
    measures: Measures
    chance: float
    scored: Mapping[str, Scored]
    rejected_at: int | None = None
    backend: str = "built-in"

    @property
    def mean(self) -> float | None:
        """Mean score; None without items."""
        return sum(s.value for s in self.scored.values()) / len(self.scored) if self.scored else None

    @property
    def errors(self) -> int:
        return sum(bool(s.error) for s in self.scored.values())

    @property
    def lost(self) -> int:
        return sum(s.lost for s in self.scored.values())

    @property
    def unanswered(self) -> int:
        return sum(bool(s.unanswered) for s in self.scored.values())


@dataclass(frozen=True)
class Evaluation:
    """One server, scored. `identity` says what was served (`bench.accuracy.cache.identity`).

    `refused`: task -> what the engine cannot give it. `failure`: the server died or fell silent; what
    was scored before stays. `asked`: requests of this session, `seconds` their wall time.
    """

    folder: Path
    identity: Mapping[str, Any]
    tasks: Mapping[str, TaskResult]
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failure: Failure | None = None
    concurrency: int = 1
    asked: int = 0
    seconds: float = 0.0
    simulated: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rejected(self) -> str | None:
        """The task whose sequential test has rejected this configuration, or None."""
        return next((t.name for t in self.tasks.values() if t.rejected_at is not None), None)


def total(tokens: Sequence[int | None]) -> int | None:
    """The sum; None where one is not known."""
    known = [count for count in tokens if count is not None]
    return sum(known) if len(known) == len(tokens) else None


def save_scores(folder: Path, result: TaskResult) -> None:
    """Writes `<task>.scores.json`, whole or not at all."""
    plain = {
        "schema": SCHEMA,
        "name": result.name,
        "measures": result.measures,
        "chance": result.chance,
        "rejected_at": result.rejected_at,
        "backend": result.backend,
        "scored": {item: asdict(scored) for item, scored in result.scored.items()},
    }
    write_whole(folder / f"{result.name}.scores.json", plain)


def load(folder: Path) -> Evaluation:
    """The evaluation kept in `folder`. BrokenRunError when it is none."""
    try:
        head = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        if head["schema"] > SCHEMA:
            raise BrokenRunError(f"{folder} has evaluation schema {head['schema']}", "update servetune")
        results = {}
        for name in head["tasks"]:
            file = folder / f"{name}.scores.json"
            if file.exists():
                results[name] = _task_result(json.loads(file.read_text(encoding="utf-8")))
        failure = head.get("failure")
        return Evaluation(
            folder, head["identity"], results, head["refused"], tuple(head["notes"]),
            _failure(failure) if failure else None, head["concurrency"], head["asked"], head["seconds"],
            head["simulated"],
            head["settings"],
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenRunError(f"{folder} is not an evaluation: {error}", "evaluate it again") from error


def state(folder: Path) -> str | None:
    """How the evaluation in `folder` ended: started, interrupted, failed, finished; None: there is none."""
    try:
        found: str = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["state"]
    except (OSError, ValueError, KeyError):
        return None
    return found


def _task_result(plain: dict[str, Any]) -> TaskResult:
    scored = {item: Scored(**fields) for item, fields in plain["scored"].items()}
    return TaskResult(
        plain["name"], plain["measures"], plain["chance"], scored, plain["rejected_at"], plain["backend"]
    )


def _failure(plain: dict[str, Any]) -> Failure:
    return Failure(**{**plain, "kind": FailureKind(plain["kind"]), "log_tail": tuple(plain["log_tail"])})


def save_head(
    evaluation: Evaluation, tasks: Mapping[str, Any], settings: Mapping[str, Any], state: str
) -> None:
    """Writes `evaluation.json`; `state` is started, interrupted, failed or finished."""
    write_whole(
        evaluation.folder / "evaluation.json",
        {
            "schema": SCHEMA,
            "state": state,
            "identity": dict(evaluation.identity),
            "tasks": dict(tasks),
            "settings": dict(settings),
            "refused": dict(evaluation.refused),
            "notes": list(evaluation.notes),
            "failure": asdict(evaluation.failure) if evaluation.failure else None,
            "concurrency": evaluation.concurrency,
            "asked": evaluation.asked,
            "seconds": evaluation.seconds,
            "simulated": evaluation.simulated,
        },
    )


def write_whole(path: Path, plain: Mapping[str, Any]) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(
        json.dumps(plain, indent=1, default=str, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    temporary.replace(path)
