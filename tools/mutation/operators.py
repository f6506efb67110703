"""The mutations of a file, by cosmic-ray's operators. Runs in an environment of its own (`make mutants`).

    operators.py list < ["path", ...]                     -> [{"path", "operator", "occurrence", "start", "end"}, ...]
    operators.py apply < [{"path", "operator", ...}, ...] -> [text of the changed file, or null where nothing changed]

A replacement that could only crash would flatter the figure (a shift of floats, `<` where `==` stood on words), so an
operator is replaced by its like only: arithmetic by arithmetic, an order by an order, a set operator by a set operator.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ALIKE = (
    {"Add", "Sub", "Mul", "Div"},
    {"FloorDiv", "Mod", "Mul", "Div"},
    {"Pow", "Mul"},
    {"BitOr", "BitAnd", "BitXor"},
    {"Eq", "NotEq"},
    {"Lt", "LtE", "Gt", "GtE"},
    {"Is", "IsNot"},
    {"USub", "Delete"},
    {"Not", "Delete"},
)
LEFT_OUT = {
    "core/RemoveDecorator",  # mypy and the import of the file notice it, or it was a cache
    "core/VariableReplacer",  # want a variable's name
    "core/VariableInserter",
}


def wanted(name: str) -> bool:
    """Whether an operator of cosmic-ray is used: see the head of this file."""
    if name in LEFT_OUT:
        return False
    if name.startswith("core/Replace") and "Operator_" in name:
        was, _, becomes = name.partition("Operator_")[2].partition("_")
        return any(was in alike and becomes in alike for alike in ALIKE)
    return True


EXPRESSIONS = {"arith_expr", "term", "power", "expr", "and_expr", "xor_expr", "factor"}
"""Where a sign is an operator; elsewhere `*` is a marker in a signature or in a call."""


def places(path: str) -> list[dict[str, Any]]:
    """Every mutation of a file: operator, which of its occurrences, and where (line, column in characters)."""
    tree = get_ast(Path(path).read_text())
    found: list[dict[str, Any]] = []
    for name in filter(wanted, operator_names()):
        operator = get_operator(name)()
        occurrence = 0
        for node in ast_nodes(tree):
            for start, end in operator.mutation_positions(node):
                if "BinaryOperator" not in name or node.parent.type in EXPRESSIONS:
                    found.append(
                        {"path": path, "operator": name, "occurrence": occurrence, "start": start, "end": end}
                    )
                occurrence += 1
    return found


def main() -> None:
    """One JSON list in, one out."""
    asked = json.load(sys.stdin)
    if sys.argv[1] == "list":
        json.dump([place for path in asked for place in places(path)], sys.stdout)
        return
    json.dump(
        [
            mutate_code(Path(one["path"]).read_text(), get_operator(one["operator"])(), one["occurrence"])
            for one in asked
        ],
        sys.stdout,
    )


if __name__ == "__main__":
    main()
