"""Pytest in a process forked from one that has the libraries loaded: the unchanged tree once, then each mutant.

Every run is in a copy of the tree, never in the checkout. On the unchanged copy each test file runs alone under
coverage, which says how long each test takes, which lines it runs, and which tests fail without any mutation.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

QUICK = "not engine and not slow"
STUCK_S = 600.0
"""A test file that has not ended this long after its share of the time is stuck."""
MARGIN_S, FACTOR = 30.0, 6.0
"""A mutant may take this much longer than its tests took unchanged; then it is a timeout."""


@dataclass(frozen=True)
class TestCost:
    """One test on the unchanged tree: seconds, and the lines of the mutated files that it runs."""

    seconds: float
    passed: bool
    lines: dict[str, list[int]]


def copy_tree(root: Path, into: Path) -> None:
    """What git has or would take, and links to what it ignores but tests read."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, capture_output=True, check=True
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (root / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, into / name)
    for name in (".venv", ".models"):
        if (root / name).exists():
            (into / name).symlink_to((root / name).resolve())


def forked(copy: Path, limit_s: float, log: Path, work: Callable[[], int]) -> int | None:
    """Exit status of `work` in a forked process that stands in `copy`; None when it took longer than `limit_s`."""

    def child() -> None:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.chdir(copy)
        os.environ["PYTHONPATH"] = str(copy)
        sys.path[:] = [
            str(copy),
            *(path for path in sys.path if not path.startswith(str(Path(__file__).parents[1]))),
        ]
        code = work()
        sys.stdout.flush()
        os._exit(code)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(limit_s)
    late = process.exitcode is None
    with suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    return None if late else process.exitcode


class _Recorder:
    """Seconds and outcome of each test, and coverage told which test runs; no new test after `file_s` seconds."""

    def __init__(self, coverage: Any, file_s: float) -> None:
        self.coverage = coverage
        self.until = time.monotonic() + file_s
        self.tests: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self.coverage.switch_context(item.nodeid)
        if time.monotonic() > self.until:
            item.session.shouldstop = "enough of this file"
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self.tests.setdefault(report.nodeid, {"seconds": 0.0, "passed": True})
        test["seconds"] += report.duration
        test["passed"] = test["passed"] and report.outcome != "failed"


def measure_file(
    copy: Path, test: str, targets: Sequence[str], file_s: float, scratch: Path
) -> dict[str, TestCost]:
    """The quick tests of one file that `file_s` seconds suffice for; none when the file cannot be collected."""
    out = scratch / "base.json"
    out.unlink(missing_ok=True)

    def work() -> int:
        import coverage

        cover = coverage.Coverage(data_file=None, include=[str(copy / target) for target in targets])
        recorder = _Recorder(cover, file_s)
        cover.start()
        pytest.main([test, "-m", QUICK, "-p", "no:cacheprovider"], plugins=[recorder])
        cover.stop()
        data = cover.get_data()
        lines: dict[str, dict[str, list[int]]] = {}
        for target in targets:
            for line, contexts in data.contexts_by_lineno(str(copy / target)).items():
                for context in contexts:
                    lines.setdefault(context, {}).setdefault(target, []).append(line)
        out.write_text(
            json.dumps(
                {name: {**test, "lines": lines.get(name, {})} for name, test in recorder.tests.items()}
            )
        )
        return 0

    if forked(copy, file_s + STUCK_S, scratch / "base.log", work) != 0 or not out.exists():
        return {}
    return {name: TestCost(**cost) for name, cost in json.loads(out.read_text()).items()}


def imported_lines(copy: Path, targets: Sequence[str], scratch: Path) -> dict[str, set[int]]:
    """Lines of each file that run when it is imported: every test that imports it has run them."""
    out = scratch / "imported.json"

    def work() -> int:
        import coverage

        cover = coverage.Coverage(data_file=None, include=[str(copy / target) for target in targets])
        cover.start()
        for target in targets:
            importlib.import_module(".".join(Path(target).with_suffix("").parts).removesuffix(".__init__"))
        cover.stop()
        data = cover.get_data()
        out.write_text(json.dumps({target: data.lines(str(copy / target)) or [] for target in targets}))
        return 0

    if forked(copy, STUCK_S, scratch / "imported.log", work) != 0:
        raise SystemExit((scratch / "imported.log").read_text())
    return {target: set(lines) for target, lines in json.loads(out.read_text()).items()}


def measure(
    copy: Path, tests: Sequence[str], targets: Sequence[str], file_s: float, cache: Path
) -> dict[str, dict[str, TestCost]]:
    """Each test file on the unchanged copy; one measured before, on the same tree, is read from `cache`."""
    tree = hashlib.sha256(f"{file_s} {targets}".encode())
    for path in sorted(copy.rglob("*.py")):
        if not path.name.startswith("test_") and path.relative_to(copy).parts[0] not in {"tools", ".venv"}:
            tree.update(path.read_bytes())
    cache.mkdir(parents=True, exist_ok=True)
    found = {}
    for at, test in enumerate(tests, 1):
        key = hashlib.sha256(tree.digest() + test.encode() + (copy / test).read_bytes()).hexdigest()[:24]
        stored = cache / f"{key}.json"
        if stored.exists():
            found[test] = {name: TestCost(**cost) for name, cost in json.loads(stored.read_text()).items()}
            continue
        found[test] = measure_file(copy, test, targets, file_s, cache)
        stored.write_text(json.dumps({name: vars(cost) for name, cost in found[test].items()}))
        seconds = sum(cost.seconds for cost in found[test].values())
        failed = [name for name, cost in found[test].items() if not cost.passed]
        print(
            f"  {at}/{len(tests)} {test}: {len(found[test])} tests, {seconds:.1f} s",
            *failed,
            sep="\n    left out, fails unchanged: ",
            file=sys.stderr,
        )
    return found


class _Picker:
    """Only the tests of `order`, in that order; remembers the first that failed."""

    def __init__(self, order: Sequence[str]) -> None:
        self.rank = {name: at for at, name in enumerate(order)}
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (one for one in items if one.nodeid in self.rank), key=lambda one: self.rank[one.nodeid]
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid


def try_tests(copy: Path, costs: dict[str, TestCost], scratch: Path) -> tuple[str, str]:
    """("killed", by which test), ("survived", "") or ("timeout", "") after the given tests, in the order given."""
    if not costs:
        return "survived", ""
    out = scratch / "failed"
    out.write_text("")

    def work() -> int:
        sys.dont_write_bytecode = True
        picker = _Picker(list(costs))
        files = dict.fromkeys(name.partition("::")[0] for name in costs)
        code = pytest.main([*files, "-x", "-p", "no:cacheprovider", "--tb=short"], plugins=[picker])
        out.write_text(picker.failed or "while the tests are collected")
        return int(code)

    limit_s = MARGIN_S + FACTOR * sum(cost.seconds for cost in costs.values())
    code = forked(copy, limit_s, scratch / "mutant.log", work)
    if code is None:
        return "timeout", ""
    return ("survived", "") if code == 0 else ("killed", out.read_text() or f"exit status {code}")
