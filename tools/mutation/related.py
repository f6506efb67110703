"""Which test files are related to a module: those that import it, or import a file that does."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

PACKAGES = ("serving", "bench", "search", "servetune")


def modules(root: Path) -> dict[str, Path]:
    """Every module of the packages, the tests and the tools by its dotted name."""
    found = {}
    for folder in (*PACKAGES, "tests", "tools"):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: Mapping[str, Path]) -> set[str]:
    """What a file imports of the known modules, inside functions too; a tool is imported from inside tools/."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {module for name in names if (module := _longest(name, known) or _longest(f"tools.{name}", known))}


def _longest(name: str, known: Mapping[str, Path]) -> str:
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name if name != "tools" else ""


def related_tests(root: Path) -> dict[str, list[str]]:
    """For each module, the test files (paths from `root`) that import it: directly first, then through one other."""
    known = modules(root)
    edges = {name: imports(path, known) - {name} for name, path in known.items()}
    found: dict[str, list[str]] = {}
    tests = [name for name in known if known[name].name.startswith("test_")]
    for name in known:
        direct = [test for test in tests if name in edges[test]]
        hop = [test for test in tests if test not in direct and any(name in edges[by] for by in edges[test])]
        found[str(known[name].relative_to(root))] = [
            str(known[test].relative_to(root)) for test in direct + hop
        ]
    return found
