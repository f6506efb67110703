"""The layers of the tree, top first, and every import held against them: `python tools/layers.py`.

The layers are those of the import contracts in pyproject.toml. Imports inside functions and for type checking
count. Exit status 1 when an import runs back up, a unit is in no layer, or files import each other in a circle.
"""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import grimp
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Layers:
    """One contract: inside `container` (empty: the packages themselves), top first; units of a row are siblings."""

    container: str
    rows: tuple[tuple[str, ...], ...]

    def unit(self, module: str) -> str | None:
        """The unit of this contract that `module` lies in; None when it lies outside the container."""
        names = [name for row in self.rows for name in row]
        fitting = [name for name in names if module == name or module.startswith(f"{name}.")]
        return max(fitting, key=len, default=None)


def layers(pyproject: Path = ROOT / "pyproject.toml") -> list[Layers]:
    """The contracts of kind `layers`, in the order of the file."""
    told = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    found = []
    for contract in (one for one in told if one["type"] == "layers"):
        for container in contract.get("containers", [""]):
            prefix = f"{container}." if container else ""
            rows = tuple(tuple(prefix + u.strip() for u in row.split("|")) for row in contract["layers"])
            found.append(Layers(container, rows))
    return found


def imports() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports, anywhere in its file."""
    roots = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "root_packages"
    ]
    graph = grimp.build_graph(*roots, cache_dir=None)
    return {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}


def upward(of: Layers, found: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Imports from a unit to one above or beside it."""
    rank = {unit: number for number, row in enumerate(of.rows) for unit in row}
    wrong = []
    for module, targets in found.items():
        mine = of.unit(module)
        for target in targets:
            theirs = of.unit(target)
            if mine is not None and theirs is not None and mine != theirs and rank[theirs] <= rank[mine]:
                wrong.append((module, target))
    return sorted(wrong)


def homeless(of: Layers, found: dict[str, set[str]]) -> list[str]:
    """Modules inside the container that no row names."""
    inside = [m for m in found if of.container and m.startswith(f"{of.container}.")]
    return sorted(m for m in inside if of.unit(m) is None and not m.endswith(".__main__"))


def circles(found: dict[str, set[str]]) -> list[list[str]]:
    """Sets of files that import each other, each way round."""
    names = sorted(found)
    place = {name: number for number, name in enumerate(names)}
    pairs = [(place[a], place[b]) for a, targets in found.items() for b in targets if b in place]
    rows, columns = np.array(pairs).T
    links = csr_array((np.ones(len(pairs)), (rows, columns)), shape=(len(names), len(names)))
    _, label = connected_components(links, directed=True, connection="strong")
    groups: dict[int, list[str]] = {}
    for name, number in zip(names, label, strict=True):
        groups.setdefault(int(number), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def main() -> int:
    found = imports()
    back, lost = 0, 0
    for one in layers():
        print(one.container or "the packages")
        for row in one.rows:
            print(f"    {'  |  '.join(unit.removeprefix(f'{one.container}.') for unit in row)}")
        for module, target in upward(one, found):
            print(f"  runs back up: {module} -> {target}")
            back += 1
        for module in homeless(one, found):
            print(f"  in no layer: {module}")
            lost += 1
    rings = circles(found)
    for ring in rings:
        print(f"circle: {', '.join(ring)}")
    total = sum(map(len, found.values()))
    print(
        f"{len(found)} files, {total} imports: {back} imports run back up, {len(rings)} circles, {lost} in no layer"
    )
    return 1 if back or rings or lost else 0


if __name__ == "__main__":
    sys.exit(main())
