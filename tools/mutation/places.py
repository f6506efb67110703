"""Where a mutation says nothing about behaviour: annotations, messages, aliases, what mypy or ruff already hold."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

Position = tuple[int, int]
Span = tuple[Position, Position]

ALIAS = re.compile(r"[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*")
"""A name in CamelCase on the left of an assignment at the top of a file names a type."""


def spared(source: str) -> list[Span]:
    """The spans (line from 1, column in characters from 0) that are not mutated."""
    lines = source.splitlines()

    def position(line: int, column_bytes: int) -> Position:
        return line, len(lines[line - 1].encode()[:column_bytes].decode())

    tree = ast.parse(source)
    return [
        (position(node.lineno, node.col_offset), position(node.end_lineno or 0, node.end_col_offset or 0))  # type: ignore[attr-defined]
        for node in [*_aliases(tree), *(one for node in ast.walk(tree) for one in _silent(node))]
    ]


def _aliases(tree: ast.Module) -> Iterator[ast.AST]:
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and (ALIAS.fullmatch(node.targets[0].id) or node.targets[0].id == "__all__")
        ) or (
            isinstance(node, ast.If)
            and any(
                isinstance(name, ast.Name) and name.id in {"TYPE_CHECKING", "__name__"}
                for name in ast.walk(node.test)
            )
        ):
            yield node


def _silent(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
        yield node.annotation
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if node.returns is not None:
            yield node.returns
        yield from node.decorator_list
    elif isinstance(node, ast.ClassDef):
        yield from node.decorator_list
    elif isinstance(node, ast.JoinedStr | ast.Raise | ast.Assert | ast.Import | ast.ImportFrom):
        # f-strings and what is raised are messages; an assert states an invariant that no input reaches
        yield node
    elif isinstance(node, ast.Call):
        yield from (
            keyword.value
            for keyword in node.keywords
            if keyword.arg in {"strict", "hint", "remedy", "repr", "compare"}
        )
        if isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            yield node.args[1]
        if isinstance(node.func, ast.Attribute) and node.func.attr == "join":
            joined = node.func.value
            if isinstance(joined, ast.Constant) and isinstance(joined.value, str):
                yield node


def inside(start: Position, end: Position, spans: list[Span]) -> bool:
    """Whether a place lies in one of the spans."""
    return any(first <= start and end <= last for first, last in spans)


def statement_lines(source: str, line: int) -> range:
    """Lines that run with `line`: of the innermost statement that holds it, a compound one's header only."""
    best = range(line, line + 1)
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.stmt):
            continue
        body = getattr(node, "body", None) or getattr(node, "cases", None)
        last = (
            body[0].lineno - 1 if isinstance(body, list) and hasattr(body[0], "lineno") else node.end_lineno
        )
        if node.lineno <= line <= (last or node.lineno) and (len(best) == 1 or node.lineno >= best.start):
            best = range(node.lineno, (last or node.lineno) + 1)
    return best
