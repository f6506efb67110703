"""The layout's promises: whose packages these are, what may be imported where, how long a file is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from bench.records.model import Validity
from serving.claims import Verdict
from tools import layers

ROOT = Path(__file__).parents[2]
SOURCES = [
    f for part in ("serving", "bench", "search", "servetune") for f in sorted((ROOT / part).rglob("*.py"))
]
TOOLS = sorted((ROOT / "tools").glob("*.py"))


@pytest.mark.parametrize("name", ["serving", "bench", "search", "servetune"])
def test_the_packages_are_this_checkout(name: str) -> None:
    found = import_module(name).__file__
    assert found is not None
    assert Path(found).parent == ROOT / name


def test_no_test_folder_shadows_a_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


TESTS = sorted((ROOT / "tests").rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Names of modules that a file imports, anywhere in it, also in a program that it holds as text."""
    return set(re.findall(r"^\s*(?:from|import)\s+([\w.]+)", file.read_text(), re.M))


@pytest.mark.parametrize("file", TESTS, ids=lambda f: str(f.relative_to(ROOT)))
def test_no_test_imports_a_test(file: Path) -> None:
    """What several tests share lies in tests/support/."""
    assert not {
        name
        for name in imported(file)
        if (name.startswith("tests.") or name == "tests") and not name.startswith("tests.support")
    }


def test_helpers_hold_no_test() -> None:
    assert not [
        f for f in TESTS if ("support" in f.parts) == f.name.startswith("test_") and f.name != "conftest.py"
    ]


def test_imports_go_one_way() -> None:
    run = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_layers_have_no_import_up_no_circle_and_nothing_outside() -> None:
    run = subprocess.run(
        [sys.executable, "tools/layers.py"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1].endswith(": 0 imports run back up, 0 circles, 0 in no layer")


def test_an_import_that_runs_back_up_and_a_circle_are_seen() -> None:
    one = layers.Layers("a", (("a.top",), ("a.left", "a.right"), ("a.base",)))
    found = {
        "a.top.x": {"a.base"},
        "a.left": {"a.right"},
        "a.right": set[str](),
        "a.base": {"a.top.x"},
        "a.lost": set[str](),
    }
    assert layers.upward(one, found) == [("a.base", "a.top.x"), ("a.left", "a.right")]
    assert layers.homeless(one, found) == ["a.lost"]
    assert [sorted(ring) for ring in layers.circles(found)] == [["a.base", "a.top.x"]]


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_a_file_stays_readable(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 300


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from servetune.cli.main import main; main(['--help']); "
        "heavy = {'torch', 'vllm', 'locust', 'gevent', 'pandas', 'plotly', 'pyarrow', 'scipy', 'optuna'}; "
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "heavy: []" in run.stdout
    assert "doctor" in run.stdout


FORBIDDEN = ("shell=True", "yaml.load(", "trust_remote_code=True", "os.system(", "killall", "pkill")


@pytest.mark.parametrize("text", FORBIDDEN)
def test_nothing_unsafe_is_written(text: str) -> None:
    assert not [str(f) for f in (*SOURCES, *TOOLS) if text in f.read_text()]


KINDS = {
    frozenset(get_args(Verdict)): {"serving/claims.py", "servetune/report/marks.py"},
    frozenset(get_args(Validity)): {"bench/records/model.py", "servetune/report/marks.py"},
}


def test_verdicts_have_one_type_and_one_map_of_each_kind() -> None:
    """Neither spelt out again as a Literal, nor given colours or exit statuses a second time."""
    found = []
    for file in SOURCES:
        name = str(file.relative_to(ROOT))
        for node in ast.walk(ast.parse(file.read_text())):
            words = [w.value for w in _words(node) if isinstance(w, ast.Constant)]
            if name not in KINDS.get(frozenset(words), {name}):
                found.append(f"{name}:{getattr(node, 'lineno', 0)}")
    assert found == []


def _words(node: ast.AST) -> Sequence[ast.AST | None]:
    """What a Literal lists; the keys of a dict whose values are single words or numbers."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal":
        return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if isinstance(node, ast.Dict) and all(
        isinstance(v, ast.Constant) and len(str(v.value).split()) == 1 for v in node.values
    ):
        return node.keys
    return []


def test_a_public_type_is_defined_once() -> None:
    """A reader who meets the name knows which one is meant: classes and type aliases of all packages."""
    places: dict[str, list[str]] = {}
    for file in SOURCES:
        for node in ast.parse(file.read_text()).body:
            name = _type_name(node)
            if name and not name.startswith("_"):
                places.setdefault(name, []).append(str(file.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
    assert len(places) > 200


def _type_name(node: ast.stmt) -> str | None:
    """The name of a class, or of an alias such as `Seconds = Annotated[...]` or `Scalar = str | int`."""
    if isinstance(node, ast.ClassDef):
        return node.name
    if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
        return ast.unparse(node.target)
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
        return None
    name, value = node.targets[0].id, node.value
    typed = isinstance(value, ast.Subscript | ast.Name) or (
        isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)
    )
    return name if typed and re.fullmatch(r"[A-Z]+[a-z][A-Za-z]*", name) else None


def test_no_two_functions_are_called_show() -> None:
    """`show_plan`, `show_run`: what is shown is in the name, as several are imported in one place."""
    functions = [
        f"{file.relative_to(ROOT)}:{node.name}"
        for file in SOURCES
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.lstrip("_") == "show"
    ]
    assert len(functions) <= 1, functions
    assert not [str(f) for f in (*SOURCES, *TOOLS, *(ROOT / "tools").rglob("*.py")) if f.name == "command.py"]
