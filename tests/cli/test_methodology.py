"""METHODOLOGY.md says of every metric and every check what the code says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from bench.checks import CHECKS
from bench.metrics import METRICS
from bench.metrics.ratio import RESTART_SPREAD
from bench.metrics.statistics import floor

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "METHODOLOGY.md").read_text()


def tool():
    spec = importlib.util.spec_from_file_location("methodology", ROOT / "tools" / "methodology.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_code():
    assert tool().updated(PAGE) == PAGE, "run: python tools/methodology.py"


def test_every_metric_and_check_has_its_row():
    named = set(re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE))
    families = {re.sub(r"_(p50|p90|p95|p99|mean)(_adjusted)?_ms$", r"_<stat>\2_ms", name) for name in METRICS}
    assert families <= named
    assert set(CHECKS) <= named


def test_figures_in_the_prose_are_those_of_the_code():
    floors = "p50 {}, p90 {}, p95 {}, p99 {}, p99.9 {:,}".format(*map(floor, (0.5, 0.9, 0.95, 0.99, 0.999)))
    assert floors in PAGE
    assert f"a spread of {RESTART_SPREAD:.0%} between launches is *assumed*" in PAGE


def test_the_power_table_is_there():
    block = PAGE.split("<!-- power -->")[1].split("<!-- /power -->")[0]
    rows = [line for line in block.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == 20
    several = [row.split("|") for row in rows if not row.startswith("| 1 |")]
    assert all(float(row[3].strip(" %")) <= 5.5 for row in several)
