"""`make conformance`: the load client against every case it can get wrong, as a table."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from bench.proof.conformance import EXPECTED, check, scripted_server
from bench.testservers.cases import CASES


def main() -> int:
    table = Table("case", "what the server does", "recorded as", "worst stamp, ms", "conforms")
    failed = 0
    with scripted_server() as url:
        for name, expected in EXPECTED.items():
            outcome = check(url, name)
            failed += bool(outcome.wrong)
            does = " ".join((CASES[name].__doc__ or "").split())
            worst = "-" if outcome.worst_ms is None else f"{outcome.worst_ms:.1f}"
            verdict = "yes" if not outcome.wrong else "NO: " + "; ".join(outcome.wrong)
            table.add_row(name, does, expected.error or "success", worst, verdict)
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    print(f"{len(EXPECTED) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
