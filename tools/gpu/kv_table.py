"""The KV cache that was predicted against the one that the engine reported, over the launches of recorded runs.

    python tools/gpu/kv_table.py results/RUN...

Prints a Markdown table and ends with 1 when a prediction is more than 5% off, or when a launch was planned as
one that does not fit, and started. Launches that did not start are listed with their class.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.plan.feasibility import fits
from bench.plan.target import recorded
from bench.records.folder import RunFolder
from bench.scenario.scenariofile import load
from serving.config import ServingConfig

WITHIN = 0.05


@dataclass(frozen=True)
class Row:
    """One launch. Tokens of KV cache; `reported` is None when it did not start, then `failure` says why."""

    run: str
    launch: str
    label: str
    verdict: str
    predicted: int | None
    reported: int | None
    failure: str | None = None

    @property
    def error(self) -> float | None:
        """predicted / reported - 1."""
        return self.predicted / self.reported - 1 if self.predicted and self.reported else None


def rows(folder: RunFolder) -> list[Row]:
    """The launches of a run or a study, in their order; what was predicted is computed as a plan does."""
    target = recorded(folder.manifest, load(folder.path / "scenario.yaml").model)
    found: dict[str, Row] = {}
    for run in folder.runs():
        config: ServingConfig = run.point.config
        if not run.launch or run.launch in found:
            continue
        # Of the release that ran there, whichever is installed here.
        memory = fits(config.model_copy(update={"engine_version": run.engine_version or None}), target)
        reported = (run.effective or {}).get("kv_cache_tokens")
        found[run.launch] = Row(
            folder.path.name, run.launch, config.label, memory.verdict,
            memory.budget.kv_tokens if memory.budget else None,
            int(reported) if isinstance(reported, int | float) else None,
            str(run.failure.kind) if run.failure else None,
        )  # fmt: skip
    return [found[name] for name in sorted(found)]


def table(found: Iterable[Row]) -> str:
    lines = ["| run | launch | settings | predicted | reported | error |", "|---|---|---|---|---|---|"]
    for row in found:
        error = "-" if row.error is None else f"{row.error:+.1%}"
        reported = f"{row.reported:,}" if row.reported else row.failure or "-"
        predicted = f"{row.predicted:,}" if row.predicted else "-"
        lines.append(f"| {row.run} | {row.launch} | {row.label} | {predicted} | {reported} | {error} |")
    return "\n".join(lines)


def summary(found: Sequence[Row]) -> tuple[str, bool]:
    """One sentence, and whether every prediction held."""
    errors = sorted((row.error for row in found if row.error is not None), key=abs)
    wrongly = [row for row in found if row.verdict == "does_not_fit" and row.reported]
    if not errors:
        return "no launch with a reported KV cache", False
    within = sum(abs(error) <= WITHIN for error in errors)
    text = (
        f"{within} of {len(errors)} launches within {WITHIN:.0%}; median {errors[len(errors) // 2]:+.1%}, "
        f"worst {errors[-1]:+.1%}; {len(wrongly)} feasible ones refused"
    )
    return text, within == len(errors) and not wrongly


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    found = [row for run in parser.parse_args().runs for row in rows(RunFolder.open(run))]
    text, good = summary(found)
    print(table(found))
    print(f"\n{text}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
