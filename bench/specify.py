"""From a measured run to the spec of what to deploy: the best believable point, with its evidence.

Pure but for reading the run and hashing the model's files. The same run gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.intervals import intervals
from bench.outcome import Outcome, outcomes
from bench.results import RunFolder
from bench.scenario import Scenario
from serving.config import ServingConfig
from serving.engines.installed import short_name
from serving.errors import UserError
from serving.spec import (
    Capacity,
    Cost,
    EngineFacts,
    HardwareFacts,
    Metadata,
    Model,
    ModelFile,
    Operations,
    Parameter,
    SecretRef,
    ServingSpec,
    SloFact,
    Workload,
)

HEADROOM = 0.2
"""Off the highest rate that held: arrivals vary, and a replica more takes its cold start to come."""

IDENTITY = frozenset(
    {"engine", "engine_version", "device", "model", "revision", "checkpoint", "tokenizer", "url",
     "api_key_env", "extra_args", "env", "sim", "attempt"}
)  # fmt: skip
NAMES = {"ttft": "ttft", "tpot": "tpot", "e2e": "e2e", "icl": "itl"}
"""Our latency -> vLLM's. A chunk is what one step gives, so the gap between chunks is its ITL."""


@dataclass(frozen=True)
class Asked:
    """What a run cannot know: where it will be deployed from."""

    name: str | None = None
    point: str | None = None
    image: str | None = None
    replicas: int = 1
    secrets: tuple[SecretRef, ...] = ()
    parent: str | None = None


def specify(folder: RunFolder, scenario: Scenario, asked: Asked) -> ServingSpec:
    """UserError when no point may be believed and meets the SLOs, or the one asked for is not there."""
    found = [o for o in outcomes(folder, scenario) if o.run.failure is None]
    best = _chosen(found, asked.point)
    same = [o for o in found if o.run.point.config.key == best.run.point.config.key]
    config, run = best.run.point.config, best.run
    weights = Path(config.checkpoint or config.model).expanduser()
    safe = _safe(same)
    at = safe or best
    return ServingSpec(
        metadata=Metadata(
            name=asked.name or f"{scenario.name}-{config.key}",
            tool_version=version("servetune"),
            source=f"{folder.path.name}/{best.key}",
            parent=asked.parent,
        ),
        model=Model(
            source=config.checkpoint or config.model,
            revision=config.revision,
            served_name=short_name(config.model),
            files=[*_files(weights)] if weights.is_dir() else [],
        ),
        engine=EngineFacts(
            name=config.engine, version=run.engine_version, simulated=run.simulated, image=asked.image
        ),
        parameters=_parameters(config, [o.run.point.config for o in found], run.effective),
        native=dict(config.extra_args),
        env=dict(config.env),
        effective={k: v for k, v in sorted(run.effective.items()) if isinstance(v, (str, int, float, bool))},
        hardware=HardwareFacts(
            device=config.device,
            gpu=_gpu(folder) if config.device == "cuda" else None,
            gpus=config.tensor_parallel_size if config.device == "cuda" else 0,
        ),
        workload=Workload(
            description=run.point.load.workload,
            input_tokens_mean=best.metrics["input_tokens_mean"] or None,
            output_tokens_mean=best.metrics["output_tokens_mean"] or None,
        ),
        slos=_slos(folder, at),
        capacity=Capacity(
            safe_rate_per_s=_rate(safe) * (1 - HEADROOM) if safe else None,
            headroom=HEADROOM,
            concurrency=at.metrics["concurrency_mean"] or None,
            queue_at_knee=at.metrics["queue_peak"],
            kv_peak=at.metrics["kv_cache_peak_share"],
            replicas=asked.replicas,
        ),
        cost=_cost(best),
        operations=Operations(
            cold_start_s=max((o.run.ready_s for o in same if o.run.ready_s), default=60.0),
            worst_request_s=_worst_request_s(best),
            secrets=list(asked.secrets),
        ),
        evidence=[_evidence(o) for o in sorted(same, key=lambda o: o.key)],
    ).with_id()


def unwatched(scenario: Scenario) -> list[str]:
    """SLOs for which the server has no histogram, so that no alert of ours watches them."""
    return [str(s) for s in scenario.slos if s.metric not in NAMES or s.statistic in (None, "mean")]


def _chosen(found: Sequence[Outcome], key: str | None) -> Outcome:
    if key is not None:
        named = [o for o in found if o.key.startswith(key)]
        if len(named) != 1:
            keys = ", ".join(o.key for o in found)
            raise UserError(f"{len(named)} measured points begin with {key!r}", f"the run has: {keys}")
        return named[0]
    fit = [o for o in found if o.judgement.verdict == "ok" and o.slo == "met"]
    if not fit:
        said = (
            "; ".join(sorted({r.text for o in found for r in o.judgement.reasons}))
            or "SLOs are missed or unknown"
        )
        raise UserError(
            f"no point of the run is believable and meets the SLOs: {said}",
            "servetune report RUN shows each point; name one with --point KEY to have its spec all the same",
        )
    return max(fit, key=lambda o: (o.metrics["output_token_throughput_per_s"] or 0.0, o.key))


def _safe(same: Iterable[Outcome]) -> Outcome | None:
    """The highest open-loop rate of this config that held its SLOs and may be believed."""
    held = [o for o in same if o.judgement.verdict == "ok" and o.slo == "met" and o.run.point.load.rate_per_s]
    return max(held, key=_rate, default=None)


def _rate(o: Outcome) -> float:
    return float(o.run.point.load.rate_per_s or 0.0)


def _parameters(
    config: ServingConfig, tried: Sequence[ServingConfig], effective: Any
) -> dict[str, Parameter]:
    """Tuned: others were tried in the run. Fixed: set, and the same everywhere. Resolved: the engine's."""
    found = {}
    for name in sorted(set(ServingConfig.model_fields) - IDENTITY):
        value = getattr(config, name)
        if len({getattr(other, name) for other in tried if other.engine == config.engine}) > 1:
            found[name] = Parameter(value=value, provenance="tuned")
        elif name in config.settings:
            found[name] = Parameter(value=value, provenance="fixed")
        elif isinstance(effective.get(name), (str, int, float, bool)):
            found[name] = Parameter(value=effective[name], provenance="resolved")
    return found


def _slos(folder: RunFolder, at: Outcome) -> list[SloFact]:
    known = intervals(folder.run(at.key))
    found = []
    for slo, _ in at.slos:
        if slo.metric not in NAMES or slo.statistic in (None, "mean"):
            continue
        measured, interval = at.metrics[slo.name], known.get(slo.name)
        found.append(
            SloFact(
                metric=NAMES[slo.metric],  # type: ignore[arg-type]  # the table's values are its names
                percentile=float(str(slo.statistic)[1:]),
                limit_ms=slo.limit,
                measured_ms=measured or None,
                interval_ms=[float(interval.low), float(interval.high)] if interval and measured else None,
            )
        )
    return found


def _worst_request_s(o: Outcome) -> float:
    """The longest request that the server admits, at the slowest measured pace."""
    load, config = o.run.point.load, o.run.point.config
    length = config.max_model_len or o.run.effective.get("max_model_len")
    tokens = length if isinstance(length, int) else load.output_tokens
    pace = next((v for q in ("p99", "p95", "p90", "p50") if (v := o.metrics[f"tpot_{q}_ms"])), None)
    first = next((v for q in ("p99", "p95", "p90", "p50") if (v := o.metrics[f"ttft_{q}_ms"])), None)
    if pace is None or first is None:
        return load.request_timeout_s
    return (first + pace * tokens) / 1000


def _files(weights: Path) -> Iterable[ModelFile]:
    for file in sorted(weights.rglob("*")):
        if file.is_file():
            with file.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            path = file.relative_to(weights).as_posix()
            yield ModelFile(path=path, size_bytes=file.stat().st_size, sha256=digest)


def _gpu(folder: RunFolder) -> str | None:
    gpus = folder.manifest.get("environment", {}).get("gpus") or []
    return str(gpus[0]["name"]) if gpus and "name" in gpus[0] else None


def _cost(o: Outcome) -> Cost | None:
    price, gpus = o.price, o.run.point.config.tensor_parallel_size
    if price is None:
        return None
    hour = price.per_hour * (gpus if price.per == "gpu" else 1)
    return Cost(replica_hour=hour, currency=price.currency, source=price.source, date=price.date.isoformat())


def _evidence(o: Outcome) -> dict[str, Any]:
    """One point of this config: its load, verdict and numbers that could be told."""
    load = {
        k: v for k, v in vars(o.run.point.load).items() if isinstance(v, (str, int, float)) and k != "trace"
    }
    metrics = {k: v for k, v in o.metrics.items() if v is not None}
    return {"key": o.key, "verdict": o.judgement.verdict, "slo": o.slo, "load": load, "metrics": metrics}
