"""report.html: a whole run in one file that opens anywhere, without a network, for years.

Data, style, script and plotly's own script are inside. A Content-Security-Policy forbids every
connection and every script but those two, by their hashes; all text is escaped by jinja2 or, in the
data block, by `_json`, and the script puts text into the page as text only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bench.gate.scorecards import Scorecard
from bench.metrics import METRICS
from bench.records.folder import RunFolder
from bench.result import PointResult
from bench.scenario.model import Scenario
from bench.store import write_whole
from servetune.report import accuracy_table, failed, figures, labels, marks, study
from servetune.report.best import Best, answers, everywhere
from servetune.report.ranking import COST, Candidate, Job, push, tally
from servetune.report.terminal import columns_for

HERE = Path(__file__).parent
MORE_COLUMNS = (
    "goodput_per_s", "memory_peak_bytes", "kv_cache_peak_share", "energy_j_per_output_token",
    "decode_bandwidth_share", "prefill_compute_share",
)  # fmt: skip


def write(
    folder: RunFolder,
    scenario: Scenario,
    outcomes: Sequence[PointResult],
    jobs: Sequence[Job],
    cards: Sequence[Scorecard] = (),
) -> Path:
    """Writes report.html whole or not at all; returns its path."""
    path = folder.path / "report.html"
    write_whole(path, render(folder, scenario, outcomes, jobs, cards))
    return path


def render(
    folder: RunFolder,
    scenario: Scenario,
    outcomes: Sequence[PointResult],
    jobs: Sequence[Job],
    cards: Sequence[Scorecard] = (),
) -> str:
    """The page's text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    names = labels.varying([o.run.point.config for o in outcomes])
    searched = study.read(folder)
    shown = {**figures.data(jobs, outcomes, names), "study": study.figures(searched)}
    script = (HERE / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        policy=policy(script, _plotly()),
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),  # noqa: S704 -- our own file
        script=Markup(script),  # noqa: S704 -- our own file
        plotly=Markup(_plotly()),  # noqa: S704 -- the installed package's file, checked in _plotly
        data=Markup(_json(shown)),  # noqa: S704 -- escaped in _json
        **context(folder, scenario, outcomes, jobs, names),
        study=searched,
        accuracy=accuracy_table.rows(cards, names, folder.path),
    )


def context(
    folder: RunFolder,
    scenario: Scenario,
    outcomes: Sequence[PointResult],
    jobs: Sequence[Job],
    names: Sequence[str],
) -> dict[str, Any]:
    """Everything the template says, as text and lists."""
    manifest = folder.manifest
    same = everywhere(jobs)
    simulated = sum(o.run.simulated for o in outcomes)
    return {
        "scenario": scenario,
        "run": folder.path.name,
        "state": state(folder, outcomes),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(manifest.get("started_unix_s") or 0)),
        "device": manifest.get("device", ""),
        "engines": _engines(outcomes),
        "simulated": simulated,
        "points": len(outcomes),
        "tally": [(s.replace(" ", "-"), marks.RANK_MARK[s], count) for s, count in tally(jobs)],
        "everywhere": _name(same, names) if same else None,
        "answers": [_card(a, names, outcomes) for a in answers(jobs, names)],
        "table": _table(jobs, names, outcomes),
        "doubts": _doubts(outcomes),
        "failures": _failures(outcomes, names),
        "failed_requests": failed.rows(outcomes, names),
        "notes": failed.notes(outcomes),
        "dropped": (manifest.get("plan") or {}).get("dropped", []),
        "configs": _configs(outcomes, names),
        "prices": list(dict.fromkeys(o.price for o in outcomes if o.price)),
        "environment": manifest.get("environment") or {},
        "manifest": {k: v for k, v in manifest.items() if not isinstance(v, dict)},
        "has_cost": any(o.metrics[COST] is not None for o in outcomes),
        "words": labels,
        "marks": marks,
    }


def _engines(outcomes: Sequence[PointResult]) -> list[str]:
    """Engines with their versions; one that never answered has none, and is named alone only if none did."""
    found = {(o.run.point.config.engine, o.run.engine_version) for o in outcomes}
    told = {engine for engine, version in found if version}
    return sorted(f"{engine} {version}".strip() for engine, version in found if version or engine not in told)


def state(folder: RunFolder, outcomes: Sequence[PointResult]) -> str:
    """`finished`, or what an unfinished run has so far."""
    planned = (folder.manifest.get("plan") or {}).get("points")
    last = [
        e["event"] for e in folder.events() if e["event"] in ("started", "resumed", "interrupted", "finished")
    ]
    if last and last[-1] == "finished":
        return "finished"
    word = "interrupted" if last and last[-1] == "interrupted" else "not finished"
    return f"{word}: {len(outcomes)} of {planned or '?'} points; --resume goes on"


def policy(*scripts: str) -> str:
    """No connection to anywhere, no script but these, by hash."""
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


@cache
def _plotly() -> str:
    """Plotly's script, from the installed package. Line ends as a browser hashes them."""
    from plotly.offline import get_plotlyjs

    text = str(get_plotlyjs()).replace("\r\n", "\n")
    if "</script" in text.lower():
        raise ValueError("this version of plotly.js cannot stand inside a page: it contains </script")
    return text


def _json(data: Any) -> str:
    """JSON that can stand inside a script element whatever its strings hold."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _name(candidate: Candidate, names: Sequence[str]) -> str:
    return labels.config_text(candidate.config, names)


def _card(answer: Best, names: Sequence[str], outcomes: Sequence[PointResult]) -> dict[str, Any]:
    job, best = answer.job, answer.job.best
    card: dict[str, Any] = {"job": job.name, "headline": answer.headline, "best": None}
    if best is not None:
        shown = [c.metric for c in columns_for(job, outcomes) if c.metric != job.objective.metric]
        currency = job.objective.currency
        card |= {
            "best": _name(best, names),
            "rivalled": job.doubtful_winner is not None,
            "push": push(best.load),
            "value": labels.number(best.value(job.objective.metric)),
            "unit": f"{currency} per million good output tokens" if currency else "output tokens/s",
            "mark": marks.RANK_MARK[best.standing],
            "standing": best.standing,
            "simulated": best.simulated,
            "against": answer.against,
            "caveats": answer.caveats,
            "figures": [(labels.title(m), _figure(best, m), labels.unit(METRICS[m].unit)) for m in shown],
        }
    return card


def _figure(candidate: Candidate, metric: str) -> str:
    return labels.candidate_figure(candidate, metric, METRICS[metric].unit)


def _table(jobs: Sequence[Job], names: Sequence[str], outcomes: Sequence[PointResult]) -> dict[str, Any]:
    """The ranked table: one row a candidate, settings as columns of their own so that each can be sorted."""
    if not jobs:
        return {"settings": [], "metrics": [], "rows": [], "ranked_by": None}
    settings = list(dict.fromkeys([*labels.BARE, *names]))
    chosen = [c.metric for c in columns_for(jobs[0], outcomes)]
    known = set(figures.known_metrics(outcomes))
    chosen = [jobs[0].objective.metric, *(m for m in chosen if m != jobs[0].objective.metric)]
    chosen += [m for m in MORE_COLUMNS if m in known and m not in chosen]
    currency = jobs[0].objective.currency
    rows, number = [], 0
    for index, job in enumerate(jobs):
        for candidate in job.candidates:
            rows.append(
                {
                    "number": number,
                    "job": index,
                    "job_name": job.name,
                    "rank": candidate.rank,
                    "standing": candidate.standing.replace(" ", "-"),
                    "mark": marks.RANK_MARK[candidate.standing],
                    "simulated": candidate.simulated,
                    "settings": [figures.axis(candidate, n) for n in settings],
                    "push": push(candidate.load),
                    "pushed": candidate.load.concurrency or candidate.load.rate_per_s or 0,
                    "cells": [(_figure(candidate, m), candidate.value(m)) for m in chosen],
                    "repeats": len(candidate.outcomes),
                }
            )
            number += 1
    metrics = [(labels.short(m), labels.unit(METRICS[m].unit, currency), METRICS[m].doc) for m in chosen]
    ranked_by = jobs[0].objective.metric
    return {"settings": settings, "metrics": metrics, "rows": rows, "ranked_by": ranked_by}


def _doubts(outcomes: Sequence[PointResult]) -> list[dict[str, Any]]:
    """Each check that found something: how often, one example, what to do."""
    found: dict[str, dict[str, Any]] = {}
    for o in outcomes:
        for reason in o.judgement.reasons:
            if reason.check == "failed":
                continue
            entry = found.setdefault(
                reason.check, {"check": reason.check, "verdict": reason.verdict, "count": 0,
                               "text": reason.text, "remedy": reason.remedy}
            )  # fmt: skip
            entry["count"] += 1
    return sorted(found.values(), key=lambda e: (e["verdict"] != "invalid", -e["count"]))


def _failures(outcomes: Sequence[PointResult], names: Sequence[str]) -> list[dict[str, Any]]:
    """Failures of one kind and cause together; in each, a case a config and launch with its loads."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for o in outcomes:
        failure, config, load = o.run.failure, o.run.point.config, o.run.point.load
        if failure is None:
            continue
        same = (failure.kind.value, failure.detail, failure.hint)
        entry = found.setdefault(same, {"failure": failure, "cases": {}, "points": 0})
        entry["points"] += 1
        case = entry["cases"].setdefault(
            (config.key, o.run.launch),
            {
                "name": labels.config_text(config, names),
                "launch": o.run.launch,
                "loads": [],
                "log_tail": failure.log_tail,
                "settings": failure.settings or config.settings,
            },
        )
        case["loads"].append(f"{load.workload} {load.input_tokens}→{load.output_tokens} {push(load)}")
    return sorted(found.values(), key=lambda entry: -entry["points"])


def _configs(outcomes: Sequence[PointResult], names: Sequence[str]) -> list[Mapping[str, Any]]:
    """Every configuration that was tried: its key, settings, launches and how long it took to start."""
    found: dict[str, dict[str, Any]] = {}
    for o in outcomes:
        config = o.run.point.config
        entry = found.setdefault(
            config.key, {"key": config.key, "name": labels.config_text(config, names),
                         "settings": config.settings, "launches": {}, "points": 0, "failed": 0}
        )  # fmt: skip
        entry["launches"][o.run.launch] = o.run.ready_s
        entry["points"] += 1
        entry["failed"] += o.run.failure is not None
    return list(found.values())
