"""Writes the table of METHODOLOGY.md: how often `compare` calls equals different, and what it can find.

Simulated, seeded (about a minute): launches differ log-normally by the spread given, runs on a launch by 1%.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from bench.metrics.ratio import ratio

TRIALS = 4000
WITHIN = 0.01


def share_different(rng: np.random.Generator, launches: int, spread: float, effect: float) -> float:
    """Share of simulated comparisons whose interval excludes 1."""
    total = np.hypot(spread, WITHIN)
    found = 0
    for _ in range(TRIALS):
        a = [[float(x)] for x in np.exp(rng.normal(0, total, launches))]
        b = [[float(x)] for x in (1 + effect) * np.exp(rng.normal(0, total, launches))]
        within = (WITHIN, WITHIN) if launches == 1 else None
        found += ratio(a, b, within).different
    return found / TRIALS


def table() -> str:
    rows = [
        "| launches a side | spread between launches | equals called different | 5% found | 10% found |",
        "|---|---|---|---|---|",
    ]
    for launches in (1, 2, 3, 5, 10):
        for spread in (0.005, 0.01, 0.02, 0.05):
            rng = np.random.default_rng([launches, round(1e4 * spread)])
            cells = [f"{share_different(rng, launches, spread, effect):.1%}" for effect in (0.0, 0.05, 0.10)]
            rows.append(f"| {launches} | {spread:.1%} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    page = Path(__file__).parent.parent / "METHODOLOGY.md"
    made = table()
    print(made)
    block = re.compile("(<!-- power -->\n).*?(<!-- /power -->)", re.DOTALL)
    page.write_text(block.sub(lambda match: f"{match[1]}{made}\n{match[2]}", page.read_text()))


if __name__ == "__main__":
    main()
