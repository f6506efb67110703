"""Is a faster configuration still as right, as steady and as safe as the baseline? TASKS says on what."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name

from bench.accuracy.lmeval import LmEvalTask
from bench.accuracy.task import Task
from bench.accuracy.user_tasks import read
from serving.errors import UserError

TASKS: dict[str, str] = {
    "facts": "bench.accuracy.fact_tasks:Facts",
    "places": "bench.accuracy.fact_tasks:Places",
    "currencies": "bench.accuracy.fact_tasks:Currencies",
    "languages": "bench.accuracy.fact_tasks:Languages",
    "elements": "bench.accuracy.fact_tasks:Elements",
    "answers": "bench.accuracy.answers:ShortAnswers",
    "chat": "bench.accuracy.answers:ChatAnswers",
    "text": "bench.accuracy.text:Text",
    "continuations": "bench.accuracy.text:Continuations",
    "wordings": "bench.accuracy.stability:Wordings",
    "perturbed": "bench.accuracy.stability:Perturbed",
    "repeats": "bench.accuracy.stability:RepeatedAnswers",
    "structured": "bench.accuracy.stability:Structured",
    "temperature": "bench.accuracy.stability:Temperature",
    "canaries": "bench.accuracy.security:Canaries",
    "harmful": "bench.accuracy.security:Harmful",
    "harmless": "bench.accuracy.security:Harmless",
}

SUITES: dict[str, tuple[str, ...]] = {
    "quick": ("facts", "text"),
    "generation": ("answers", "chat", "continuations"),
    "stability": ("wordings", "perturbed", "repeats", "structured", "temperature"),
    "security": ("canaries", "harmful", "harmless"),
}
SUITES["full"] = tuple(name for suite in SUITES.values() for name in suite)


def tasks(names: Sequence[str], beside: Path = Path()) -> list[Task]:
    """The tasks of these names, each once: rows of TASKS, SUITES, `file.jsonl`, `file.yaml`, `lm-eval:NAME`,
    or `module:Class`; files relative to the folder `beside`. UserError for a name that is none of these.
    """
    found: dict[str, Task] = {}
    for name in names:
        for one in SUITES.get(name, (name,)):
            task = _task(one, beside)
            found.setdefault(task.name, task)
    return list(found.values())


def _task(name: str, beside: Path) -> Task:
    if name in TASKS:
        made: Task = resolve_name(TASKS[name])()
        return made
    if name.endswith(".jsonl"):
        return read(beside / name)
    if name.startswith(("lm-eval:", "lm-eval-chat:")) or name.endswith((".yaml", ".yml")):
        return LmEvalTask(name if name.startswith("lm-eval") else str((beside / name).resolve()))
    if ":" in name:
        try:
            own: Task = resolve_name(name)()
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(f"task {name!r}: {error}", "module:Class, importable from here") from error
        return own
    near = difflib.get_close_matches(name, [*TASKS, *SUITES], n=1)
    raise UserError(
        f"unknown task {name!r}; known: {', '.join([*SUITES, *TASKS])}, a .jsonl or .yaml file, lm-eval:NAME",
        f"did you mean {near[0]!r}?" if near else "",
    )
