"""Writes the tables of METHODOLOGY.md that follow from code: metrics, checks, thresholds.

`python tools/methodology.py` rewrites them in place; a test fails while they are out of date.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from bench.checks import CHECKS
from bench.checks.case import Thresholds
from bench.metrics import METRICS

FILE = Path(__file__).parent.parent / "METHODOLOGY.md"
STATISTIC = re.compile(r"_(p50|p90|p95|p99|mean)(_adjusted)?_ms$")
BETTER = {"lower": "lower", "higher": "higher", None: "-"}


def metrics_table() -> str:
    """One row a metric; the statistics of one latency share a row, `<stat>` stands for each."""
    rows: dict[str, str] = {}
    for name, metric in METRICS.items():
        family = STATISTIC.sub(r"_<stat>\2_ms", name)
        rows[family] = (
            f"| `{family}` | {metric.unit} | {BETTER[metric.better]} | {metric.doc} | {metric.source} |"
        )
    return "\n".join(
        ["| metric | unit | better | definition | source |", "|---|---|---|---|---|", *rows.values()]
    )


def checks_table() -> str:
    """One row a check, in its own words."""
    rows = [f"| `{name}` | {' '.join((check.__doc__ or '').split())} |" for name, check in CHECKS.items()]
    return "\n".join(["| check | looks for |", "|---|---|", *rows])


def thresholds_table() -> str:
    """One row a threshold with its value."""
    rows = [f"| `{field.name}` | {field.default:g} |" for field in fields(Thresholds)]
    return "\n".join(["| threshold | value |", "|---|---|", *rows])


TABLES = {"metrics": metrics_table, "checks": checks_table, "thresholds": thresholds_table}


def updated(text: str) -> str:
    """The page with every `<!-- name -->` ... `<!-- /name -->` block made anew."""
    for name, make in TABLES.items():
        block = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        assert block.search(text), f"METHODOLOGY.md has no block {name}"
        text = block.sub(lambda match, make=make: f"{match[1]}{make()}\n{match[2]}", text)
    return text


if __name__ == "__main__":
    FILE.write_text(updated(FILE.read_text()))
