"""`make mutants`: do the tests notice? A seeded sample of small changes of the code, each tried with its related tests.

Related are the tests that import the changed file directly or through one other, without those that start an engine or
are slow; of them those that run the changed line are tried (all, where it runs on import or in no test), the cheapest file
first. All of it runs in a copy of the tree. A mutant that no test can notice is listed in tools/mutants_equivalent.yaml
with the reason, and counts neither way.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Loaded before the forks, so that no mutant pays for them; nothing of servetune may be.
import httpx  # noqa: F401
import hypothesis  # noqa: F401
import numpy  # noqa: F401
import optuna  # noqa: F401
import pandas  # noqa: F401
import pydantic  # noqa: F401
import scipy.stats
import yaml
from mutation.places import statement_lines
from mutation.related import related_tests
from mutation.runs import TestCost, copy_tree, imported_lines, measure, try_tests
from mutation.sample import ENVIRONMENT, ROOT, Mutant, sample, stored

EQUIVALENT = ROOT / "tools" / "mutants_equivalent.yaml"
TARGETS = (
    "bench/metrics/*.py", "bench/checks/*.py", "bench/plan/*.py",
    "bench/accuracy/floor.py", "bench/accuracy/mean_test.py", "bench/accuracy/sequential_test.py",
    "bench/accuracy/scorecard.py",
    "search/loop.py", "search/objective.py", "search/space.py", "search/budget.py", "search/trial.py",
    "search/finals/*.py", "search/searchers/*.py",
)  # fmt: skip
CONFIRM_S = 1.0
"""A test this long may fail because the machine is busy: what it killed must fail a second time."""


def main() -> int:
    """0 when the tests let at most --allow of the mutants live, else 1; 2 when the environment is missing."""
    options = _parsed()
    if not ENVIRONMENT.exists():
        print(
            "error: no environment for the mutation operators\nhint: make mutants sets it up", file=sys.stderr
        )
        return 2
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.path.append(
        str(next((ENVIRONMENT / "lib").glob("python3*/site-packages")))
    )  # coverage, behind our own
    mutants = (
        stored(options.again)
        if options.again
        else sample(_files(options.only or TARGETS), options.n, options.seed)
    )
    done: list[Mutant] = []
    for ending in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # ended early, also in a shell's background: the report is of what was tried
        signal.signal(ending, signal.default_int_handler)
    try:
        for mutant in _tried(mutants, options.file_s):
            done.append(mutant)
            print(f"{len(done)}/{len(mutants)} {mutant.status} {mutant.path}:{mutant.line} "
                  f"{mutant.operator} ({mutant.seconds:.0f} s) {mutant.by}", file=sys.stderr)  # fmt: skip
    except KeyboardInterrupt:
        print(f"ended after {len(done)} of {len(mutants)}", file=sys.stderr)
    report = summary(done, options.seed)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    print(_shown(report))
    return int(report["survivor_rate"] > options.allow)


def _files(patterns: Sequence[str]) -> list[str]:
    return sorted({str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)})


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--n", type=int, default=300, help="how many mutants")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--file-s", type=float, default=120.0, help="no more than these seconds of one test file"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="PATTERN", help="files to mutate, from the root of the tree"
    )
    parser.add_argument(
        "--again", type=Path, metavar="JSON", help="try those that survived in an earlier --json"
    )
    parser.add_argument("--allow", type=float, default=0.05, help="share of survivors for exit status 0")
    parser.add_argument("--json", type=Path, help="write every mutant and the figures here")
    return parser.parse_args()


def _tried(mutants: list[Mutant], file_s: float) -> Iterator[Mutant]:
    """Each mutant with what came of it, in the order given."""
    reasons = {
        (e["file"], e["was"], e["becomes"]): e["reason"] for e in yaml.safe_load(EQUIVALENT.read_text()) or []
    }
    related = related_tests(ROOT)
    tests = list(dict.fromkeys(test for mutant in mutants for test in related[mutant.path]))
    with tempfile.TemporaryDirectory(prefix="servetune-mutants-") as folder:
        copy, scratch = Path(folder) / "tree", Path(folder)
        copy.mkdir()
        copy_tree(ROOT, copy)
        imported = imported_lines(copy, _files(TARGETS), scratch)
        costs = measure(copy, tests, _files(TARGETS), file_s, ENVIRONMENT / "unchanged")
        for mutant in mutants:
            reason = reasons.get((mutant.path, mutant.was, mutant.becomes))
            if reason:
                yield Mutant(**{**asdict(mutant), "status": "equivalent", "by": reason})
                continue
            began = time.monotonic()
            target = copy / mutant.path
            stat = target.stat()
            target.write_text(mutant.text)
            os.utime(target, (stat.st_atime, stat.st_mtime + 7))  # no compiled file of the unchanged one fits
            try:
                status, by = _judged(
                    copy, mutant, imported[mutant.path], {t: costs[t] for t in related[mutant.path]}, scratch
                )
            finally:
                target.write_text(mutant.source)
                os.utime(target, (stat.st_atime, stat.st_mtime))
            seconds = time.monotonic() - began
            yield Mutant(**{**asdict(mutant), "status": status, "by": by, "seconds": seconds})


def _judged(
    copy: Path, mutant: Mutant, imported: set[int], files: dict[str, dict[str, TestCost]], scratch: Path
) -> tuple[str, str]:
    """By the related tests that run the line, or by all where none does or the import; the cheapest file first."""
    lines = set(statement_lines(mutant.source, mutant.line))
    passing = {file: {n: c for n, c in costs.items() if c.passed} for file, costs in files.items()}
    run = {
        file: {n: c for n, c in costs.items() if lines & set(c.lines.get(mutant.path, ()))}
        for file, costs in passing.items()
    }
    chosen = passing if lines & imported or not any(run.values()) else run
    ranked = sorted(
        (dict(sorted(costs.items(), key=lambda one: one[1].seconds)) for costs in chosen.values() if costs),
        key=lambda costs: sum(cost.seconds for cost in costs.values()),
    )
    # Most mutants fall to the first file, and every further one costs its imports: the others run as one.
    for group in (*ranked[:1], {name: cost for tests in ranked[1:] for name, cost in tests.items()}):
        status, by = try_tests(copy, group, scratch)
        if status == "killed" and by in group and group[by].seconds >= CONFIRM_S:
            again, _ = try_tests(copy, {by: group[by]}, scratch)
            if again == "survived":
                others = {name: cost for name, cost in group.items() if name != by}
                status, by = try_tests(copy, others, scratch)
        if status != "survived":
            return status, by
    return "survived", ""


def summary(mutants: list[Mutant], seed: int) -> dict[str, Any]:
    """Counts, and the share of survivors among the mutants that a test could notice, with its exact 95% interval."""
    count = {s: sum(m.status == s for m in mutants) for s in ("killed", "survived", "timeout", "equivalent")}
    tried = count["killed"] + count["survived"] + count["timeout"]
    interval = scipy.stats.binomtest(count["survived"], max(1, tried)).proportion_ci(method="exact")
    return {
        "seed": seed, **count, "survivor_rate": count["survived"] / max(1, tried),
        "interval_95": [interval.low, interval.high],
        "mutants": [{k: v for k, v in asdict(m).items() if k not in {"source", "text"}} for m in mutants],
    }  # fmt: skip


def _shown(report: dict[str, Any]) -> str:
    lines = [
        f"{one['path']}:{one['line']}\n{one['diff']}\n"
        for one in report["mutants"]
        if one["status"] == "survived"
    ]
    low, high = report["interval_95"]
    lines.append(
        f"seed {report['seed']}: {report['killed']} killed, {report['timeout']} timeout, {report['survived']} survived, "
        f"{report['equivalent']} equivalent; survivors {report['survivor_rate']:.1%} (95% interval {low:.1%} to {high:.1%})"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
