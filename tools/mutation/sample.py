"""The mutants themselves: drawn by a seed, or the survivors of an earlier run made again."""

from __future__ import annotations

import ast
import difflib
import json
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutation.places import inside, spared

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".cache" / "mutants"
"""Where `make mutants` installs the operators and coverage."""


@dataclass(frozen=True)
class Mutant:
    """One change: where, by which operator, the lines before and after, and what came of it."""

    path: str
    line: int
    operator: str
    was: str
    becomes: str
    diff: str
    source: str
    text: str
    status: str = ""
    by: str = ""
    seconds: float = 0.0


def _operators(what: str, asked: list[Any]) -> list[Any]:
    command = [str(ENVIRONMENT / "bin" / "python"), str(ROOT / "tools" / "mutation" / "operators.py"), what]
    done = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, check=True, cwd=ROOT
    )
    return list(json.loads(done.stdout))


def sample(targets: list[str], n: int, seed: int) -> list[Mutant]:
    """`n` places drawn evenly from all that may be mutated, at each one of its mutations drawn evenly."""
    sources = {path: (ROOT / path).read_text() for path in targets}
    silent = {path: spared(source) for path, source in sources.items()}
    places: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for one in _operators("list", targets):
        start, end = tuple(one["start"]), tuple(one["end"])
        if not inside(start, end, silent[one["path"]]):
            places.setdefault((one["path"], start, end), []).append(one)
    draw = random.Random(seed)  # noqa: S311
    order = draw.sample(sorted(places), len(places))
    choices = [draw.sample(places[place], len(places[place])) for place in order]
    mutants: list[Mutant] = []
    for first in range(0, len(choices), n):
        part = choices[first : first + n]
        texts = iter(_operators("apply", [one for choice in part for one in choice]))
        for choice in part:
            made = [
                (one, text)
                for one, text in [(one, next(texts)) for one in choice]
                if _differs(sources[one["path"]], text)
            ]
            if made and len(mutants) < n:
                mutants.append(_mutant(*made[0], sources[made[0][0]["path"]]))
        if len(mutants) == n:
            break
    return mutants


def _differs(source: str, text: str | None) -> bool:
    try:
        return text is not None and ast.dump(ast.parse(text)) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def _mutant(one: dict[str, Any], text: str, source: str) -> Mutant:
    diff = list(
        difflib.unified_diff(
            source.splitlines(), text.splitlines(), one["path"], one["path"], lineterm="", n=1
        )
    )
    was, becomes = (
        " ".join(line[1:].strip() for line in diff[2:] if line.startswith(sign)) for sign in ("-", "+")
    )
    return Mutant(one["path"], one["start"][0], one["operator"], was, becomes, "\n".join(diff), source, text)


def stored(path: Path) -> list[Mutant]:
    """The survivors of an earlier run, made again on today's text; one whose line is gone is left out."""
    mutants = []
    for row in json.loads(path.read_text())["mutants"]:
        source = (ROOT / row["path"]).read_text()
        if row["status"] == "survived" and row["was"] in source and "  " not in row["was"]:
            text = source.replace(row["was"], row["becomes"], 1)
            mutants.append(Mutant(**{**row, "source": source, "text": text}))
    return mutants
