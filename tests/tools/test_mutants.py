"""What `make mutants` mutates and with which tests it tries it; the operators are cosmic-ray's and not needed here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from mutation.places import inside, spared, statement_lines  # noqa: E402
from mutation.related import related_tests  # noqa: E402

SOURCE = '''"""A module."""
from typing import TYPE_CHECKING
Number = int | float
LIMIT = 1 + 1
if TYPE_CHECKING:
    SEEN = 1 + 1
@cache(maxsize=1 + 1)
def f(a: int | None, b: int = 1 + 1) -> int | None:
    assert a + 1 > 0
    if a > b + 1:
        raise ValueError("too many", a + b)
    text = f"{a + b} é {a + b}" + ", ".join(str(a + 1))
    found: int | None = a + b
    return zip(a + 1, strict=1 > 0) if isinstance(a, int | float) else g(a + b, hint=a + b)
'''


def at(line: int, text: str, nth: int = 1) -> bool:
    """Whether the nth occurrence of a text on a line is spared."""
    row, column = SOURCE.splitlines()[line - 1], -1
    for _ in range(nth):
        column = row.index(text, column + 1)
    return inside((line, column), (line, column + len(text)), spared(SOURCE))


@pytest.mark.parametrize(
    ("line", "text", "nth", "is_spared"),
    [
        (3, "|", 1, True), (4, "+", 1, False), (6, "+", 1, True), (7, "+", 1, True), (8, "|", 1, True),
        (8, "+", 1, False), (8, "|", 2, True), (9, "+", 1, True), (10, ">", 1, False), (10, "+", 1, False),
        (11, "+", 1, True), (12, "+", 1, True), (12, "+", 2, True), (12, "+", 3, False), (12, "+", 4, True),
        (13, "|", 1, True), (13, "+", 1, False), (14, "+", 1, False), (14, ">", 1, True), (14, "|", 1, True),
        (14, "+", 2, False), (14, "+", 3, True),
    ],
)  # fmt: skip
def test_annotations_messages_and_declarations_are_spared(
    line: int, text: str, nth: int, is_spared: bool
) -> None:
    assert at(line, text, nth) == is_spared


def test_a_line_runs_with_its_statement() -> None:
    source = "def f(\n    a,\n    b=1,\n):\n    if a:\n        return g(\n            a,\n            b)\n    return b\n"
    assert [statement_lines(source, line) for line in (3, 5, 8, 9)] == [
        range(1, 5), range(5, 6), range(6, 9), range(9, 10),
    ]  # fmt: skip


def test_related_tests_are_at_most_one_import_away(tmp_path: Path) -> None:
    files = {
        "bench/__init__.py": "",
        "bench/deep.py": "x = 1",
        "bench/middle.py": "def f():\n    from bench.deep import x",
        "bench/far.py": "import bench.middle",
        "tests/bench/test_deep.py": "from bench.deep import x",
        "tests/bench/test_middle.py": "from bench import middle",
        "tests/bench/test_far.py": "from bench.far import y",
        "tests/support/helper.py": "import bench.deep",
        "tests/cli/test_helped.py": "from tests.support.helper import z",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert related_tests(tmp_path)["bench/deep.py"] == [
        "tests/bench/test_deep.py", "tests/bench/test_middle.py", "tests/cli/test_helped.py",
    ]  # fmt: skip


def test_every_equivalent_mutant_is_of_a_line_that_is_there_and_says_why() -> None:
    listed = yaml.safe_load((ROOT / "tools" / "mutants_equivalent.yaml").read_text())
    for one in listed:
        assert set(one) == {"file", "was", "becomes", "reason"}
        source = " ".join(line.strip() for line in (ROOT / one["file"]).read_text().splitlines())
        assert one["was"] in source, one
        assert one["was"] != one["becomes"]
    assert len({(one["file"], one["was"], one["becomes"]) for one in listed}) == len(listed)
