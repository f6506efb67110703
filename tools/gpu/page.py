"""What was recorded on a GPU machine, as one page of tables: nothing of it is written by hand.

    python tools/gpu/page.py results/reference/h200 > docs/h200.md

Every run and study of the folder, and what the tasks of tools/gpu wrote beside them. A section whose source is not
there is left out; a folder in which nothing is found is an error.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu import kv_table, nvml_truth, stretch

from bench.metrics import METRICS, utilization
from bench.records.folder import RunFolder
from bench.result import PointResult, outcomes
from bench.scenario.scenariofile import load
from search.result import key_of
from servetune.report import labels
from servetune.report.marks import RANK_MARK
from servetune.report.ranking import Candidate, job_name, jobs, push

SHOWN = (
    "output_token_throughput_per_s", "ttft_p50_ms", "tpot_p50_ms", "decode_bandwidth_share", "prefill_compute_share",
)  # fmt: skip
REPEATS = 5
"""From so many repeats of one candidate on, their spread is worth a table."""


def main() -> int:
    """0: the page is on stdout; 2: nothing was recorded there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recorded", type=Path)
    recorded: Path = parser.parse_args().recorded
    sections = list(found(recorded))
    if not sections:
        print(
            f"error: {recorded} holds no run, study or task's result\nhint: results/reference/h200",
            file=sys.stderr,
        )
        return 2
    print(
        f"# Recorded in {recorded.name}\n\nMade by `python tools/gpu/page.py {recorded}`; not written by hand.\n"
    )
    print("\n\n".join(sections))
    return 0


def found(recorded: Path) -> Iterator[str]:
    """The sections, each with its heading."""
    folders = [RunFolder.open(path.parent) for path in sorted(recorded.glob("*/manifest.json"))]
    for folder in folders:
        yield measured(folder)
    launches = [row for folder in folders for row in kv_table.rows(folder)]
    if any(row.error is not None for row in launches):
        yield f"## KV cache, predicted and reported\n\n{kv_table.table(launches)}\n\n{kv_table.summary(launches)[0]}"
    if (lines := recorded / "failures" / "failures.jsonl").exists():
        yield f"## Failures, provoked\n\n{failures(json.loads(line) for line in lines.read_text().splitlines())}"
    if (file := recorded / "nvml" / "comparison.json").exists():
        yield f"## NVML against nvidia-smi\n\n{nvml_truth.table(json.loads(file.read_text()))}"
    if (file := recorded / "stretch" / "stretch.json").exists():
        yield f"## The load client at full stretch\n\n{stretch.table(json.loads(file.read_text()))}"


def measured(folder: RunFolder) -> str:
    """One run or study: question, machine, every candidate, the spread of repeats, the answer of a search."""
    scenario = load(folder.path / "scenario.yaml")
    seen = list(outcomes(folder, scenario))
    candidates = [one for job in jobs(seen) for one in job.candidates]
    names = labels.varying([one.config for one in candidates])
    count = sum(o.run.simulated for o in seen)
    simulated = f"**SIMULATED**, not from hardware: {count} of {len(seen)} points. " if count else ""
    note = f" {scenario.model.name}: {scenario.model.note}." if scenario.model.note else ""
    parts = [f"## {folder.path.name}", f"{simulated}{scenario.question} {machine(folder, seen)}{note}"]
    if (file := folder.path / "study.json").exists():
        verified = [json.loads(f.read_text()) for f in sorted(folder.path.glob("verify-*.json"))]
        parts.append(searched(json.loads(file.read_text()), verified))
    parts.append(grid([("settings", "load", "verdict", *map(titled, SHOWN), "what binds"),
                       *(row(one, names) for one in candidates)]))  # fmt: skip
    repeated = [one for one in candidates if len(one.outcomes) >= REPEATS]
    if repeated:
        parts.append(spread(repeated, names))
    return "\n\n".join(parts)


def machine(folder: RunFolder, seen: Sequence[PointResult]) -> str:
    gpus = [gpu["name"] for gpu in (folder.manifest.get("environment") or {}).get("gpus") or []]
    engines = {f"{o.run.point.config.engine} {o.run.engine_version}" for o in seen if o.run.engine_version}
    return f"{', '.join(gpus) or 'No GPU'}; {', '.join(sorted(engines)) or 'no engine answered'}; {len(seen)} points."


def row(one: Candidate, names: Sequence[str]) -> tuple[str, ...]:
    figures = [labels.candidate_figure(one, name, METRICS[name].unit) for name in SHOWN]
    # Of one repeat: what binds is a sentence, and has no median.
    bound = utilization.binds(one.outcomes[0].metrics) or "–"
    return (labels.config_text(one.config, names), place(one), RANK_MARK[one.standing], *figures, bound)


def place(one: Candidate) -> str:
    return f"{job_name(one.load)}, {push(one.load)}"


def titled(name: str) -> str:
    """A metric with its unit."""
    said, unit = labels.title(name), labels.unit(METRICS[name].unit)
    return said if said.endswith(unit) else f"{said} {unit}"


def spread(repeated: Iterable[Candidate], names: Sequence[str]) -> str:
    """Over the repeats of one configuration: median, extremes, standard deviation as a share of the mean."""
    lines = [("settings", "load", "metric", "repeats", "median", "least", "most", "spread")]
    for one in repeated:
        for name in SHOWN[:3]:
            values = one.values(name)
            if len(values) >= REPEATS:
                share = statistics.stdev(values) / statistics.mean(values)
                lines.append((
                    labels.config_text(one.config, names), place(one), titled(name),
                    f"{len(values)} on {len({o.run.launch for o in one.outcomes})} launches", labels.number(statistics.median(values)),
                    labels.number(min(values)), labels.number(max(values)), f"{share:.1%}",
                ))  # fmt: skip
    return grid(lines)


def searched(study: dict[str, Any], verified: Sequence[dict[str, Any]]) -> str:
    """The answer of a search in a few lines, and what became of its spec."""
    winner, goal = study.get("winner"), study["goal"][0]["metric"]
    took = f"{study['trials']} trials, {study['launches']} launches, {study['ledger']['total']:,.0f} s"
    if study.get("verdict") == "not_settled":
        said = f"not settled: {study['unsettled']['why']}"
    elif winner is None:
        said = "no configuration kept every promise"
    else:
        gain = winner.get("gain") or {}
        bounds = (
            f", {gain['estimate']:+.1%} [{gain['low']:+.1%}, {gain['high']:+.1%}] over the default"
            if gain
            else ""
        )
        said = f"`{key_of(winner['settings'])}`: {goal} {labels.number(winner['value'])}{bounds}"
    lines = [f"{said}. {took}; it ended: {study['ended']}."]
    if verified:
        passed = sum(one["verdict"] == "pass" for one in verified)
        lines.append(f"Its spec, relaunched {len(verified)} times from the exported files: {passed} PASS.")
    return " ".join(lines)


def failures(told: Iterable[dict[str, Any]]) -> str:
    lines = [("provoked", "class", "right", "what the log says")]
    lines += [(t["case"], t["kind"] or "–", "yes" if t["right"] else "no", t["detail"]) for t in told]
    return grid(lines)


def grid(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first line is its head."""
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [cells[0], ["---"] * len(cells[0]), *cells[1:]])


if __name__ == "__main__":
    sys.exit(main())
