"""summary.csv and summary.parquet: one row a point, tidy; pandas reads them as they are. Nulls are empty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.gate.scorecards import Scorecard
from bench.metrics import METRICS
from bench.records.folder import RunFolder
from bench.result import PointResult, outcomes
from bench.scenario import scenariofile
from bench.store import write_whole
from serving.config import TYPES, ServingConfig, fields_where

if TYPE_CHECKING:
    import pandas


_LATER = fields_where(lambda role: role.kind != "engine" and role.label != "value")
"""Settings after those that every row has in front: the engine, its version and device, the quantization."""
_NULLABLE: dict[type | None, str] = {int: "Int64", float: "Float64", bool: "boolean"}
_KINDS = {
    name: _NULLABLE[kind]
    for name, kind in TYPES.items()
    if kind in _NULLABLE and ServingConfig.model_fields[name].default is None
}
"""Columns of settings that may be left to the engine; pandas would make 8.0 of 8, and text of on and off."""


def frame(
    folder: RunFolder, found: Sequence[PointResult] | None = None, cards: Sequence[Scorecard] = ()
) -> pandas.DataFrame:
    """One row a finished point, in the order of the run; `found` and `cards` spare reading it again.

    Columns: what identifies the point (key, launch, engine, engine_version, simulated, settings by their
    neutral names, load), verdict, reasons, failure, every metric by its name in METRICS (units in the
    names), percentiles below their floor in `too_few_samples`, currency. A setting left to the engine's
    default is null. With `cards`: accuracy (baseline, PASS, FAIL, INCONCLUSIVE), accuracy_worst (its d) and
    score_<task>, those of the point's configuration. Infinite: an adjusted percentile that falls on a
    failed request.
    """
    import pandas as pd

    if found is None:
        found = list(outcomes(folder, scenariofile.load(folder.path / "scenario.yaml")))

    scored = {card.config.key: _accuracy(card) for card in cards}
    rows = [_row(o) | scored.get(o.run.point.config.key, {}) for o in found]
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    kinds = {**dict.fromkeys(METRICS, "Float64"), **_KINDS, "concurrency": "Int64", "rate_per_s": "Float64"}
    texts = {str(n): "string" for n in table.columns if n not in kinds and table[n].dtype == object}
    return table.astype({**texts, **kinds})


def write(
    folder: RunFolder, found: Sequence[PointResult] | None = None, cards: Sequence[Scorecard] = ()
) -> list[Path]:
    """Writes both files whole or not at all; returns their paths."""
    table = frame(folder, found, cards)
    csv, parquet = folder.path / "summary.csv", folder.path / "summary.parquet"
    write_whole(csv, lambda path: table.to_csv(path, index=False))
    write_whole(parquet, lambda path: table.to_parquet(path, index=False))
    return [csv, parquet]


def _row(outcome: PointResult) -> dict[str, Any]:
    run = outcome.run
    config, load = run.point.config.model_dump(mode="json"), run.point.load
    failure = run.failure
    return {
        "point": outcome.key,
        "config": run.point.config.key,
        "launch": run.launch or None,
        "engine": config["engine"],
        "engine_version": run.engine_version or config["engine_version"],
        "simulated": run.simulated,
        "device": config["device"],
        "quantization": config["quantization"],
        **{name: _scalar(config[name]) for name in _LATER},
        "workload": load.workload,
        "input_tokens": load.input_tokens,
        "output_tokens": load.output_tokens,
        "arrivals": load.arrivals,
        "concurrency": load.concurrency,
        "rate_per_s": load.rate_per_s,
        "seed": run.point.seed,
        "repeat": run.point.repeat,
        "started_unix_s": run.started_unix_s or None,
        "verdict": outcome.judgement.verdict,
        "reasons": "; ".join(reason.text for reason in outcome.judgement.reasons) or None,
        "slo": outcome.slo if outcome.slos else None,
        "slo_undetermined": "; ".join(_undetermined(outcome)) or None,
        "failure": failure.kind.value if failure else None,
        "failure_detail": failure.detail if failure else None,
        **outcome.metrics,
        "too_few_samples": "; ".join(f"{name}: n<{n}" for name, n in outcome.needed.items()) or None,
        "currency": outcome.currency,
    }


def _undetermined(outcome: PointResult) -> list[str]:
    return [f"{slo} {why}" for slo, _ in outcome.slos if (why := outcome.why_unknown(slo))]


def _accuracy(card: Scorecard) -> dict[str, Any]:
    worst = card.floor.worst if card.floor else None
    return {
        "accuracy": card.floor.verdict if card.floor else "baseline",
        "accuracy_worst": worst.effect if worst else None,
        **{f"score_{name}": score for name, score in card.scores().items()},
    }


def _scalar(value: Any) -> Any:
    """Tables of settings as `key=value` text; empty ones are no value."""
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items()) or None
    return value
