"""From a measured run or search to the spec of what to deploy, with its evidence.

Pure but for reading the run and hashing the model's files. The same run gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from bench.records.folder import RunFolder
from bench.result import PointResult, outcomes
from bench.scenario.model import Scenario
from servetune.deploy.deployable import with_id
from servetune.deploy.evidence.choice import choose
from servetune.deploy.evidence.measured import NAMES, capacity, evidence, promises, safe, worst_request_s
from servetune.deploy.evidence.modelfiles import model_files
from servetune.deploy.evidence.scores import accuracy
from servetune.deploy.spec import (
    Cost,
    EngineFacts,
    HardwareFacts,
    Metadata,
    Operations,
    Parameter,
    Rollback,
    SecretRef,
    ServingSpec,
    SpecModel,
    SpecStatus,
    SpecWorkload,
)
from serving.config import SETTINGS, ServingConfig
from serving.engines.installed import short_name
from serving.masking import holds_secret


@dataclass(frozen=True)
class SpecRequest:
    """What a run cannot know: where it will be deployed from. `fallback`: the next best configuration."""

    name: str | None = None
    point: str | None = None
    image: str | None = None
    replicas: int = 1
    secrets: tuple[SecretRef, ...] = ()
    plugins: tuple[str, ...] = ()
    parent: str | None = None
    fallback_id: str | None = None
    fallback: bool = False


def specify(folder: RunFolder, scenario: Scenario, asked: SpecRequest) -> ServingSpec:
    """UserError when no point may be believed and meets the SLOs, or the one asked for is not there."""
    found = [o for o in outcomes(folder, scenario) if o.run.failure is None]
    best = choose(folder, found, asked.point, fallback=asked.fallback)
    same = [o for o in found if o.run.point.config.key == best.run.point.config.key]
    config, run = best.run.point.config, best.run
    source = config.checkpoint or config.model
    files, unhashed = model_files(source, config.revision)
    held = safe(same)
    at = held or best
    return with_id(
        ServingSpec(
            metadata=Metadata(
                name=asked.name or f"{scenario.name}-{config.key}",
                tool_version=version("servetune"),
                tool_commit=_commit(folder),
                scenario_sha256=folder.manifest.get("scenario_sha256"),
                source=f"{folder.path.name}/{best.key}",
            ),
            status=SpecStatus(noted=[*([unhashed] if unhashed else []), *_secrets(config, asked)]),
            model=SpecModel(
                source=source, revision=config.revision, served_name=short_name(config.model), files=files
            ),
            engine=EngineFacts(
                name=config.engine,
                version=run.engine_version,
                simulated=run.simulated,
                plugins=sorted(asked.plugins),
                image=asked.image,
            ),
            parameters=_parameters(config, [o.run.point.config for o in found], run.effective),
            native={
                name: value for name, value in config.extra_args.items() if not holds_secret(name, value)
            },
            env={name: value for name, value in config.env.items() if not holds_secret(name, value)},
            effective={
                k: v for k, v in sorted(run.effective.items()) if isinstance(v, (str, int, float, bool))
            },
            hardware=HardwareFacts(
                device=config.device,
                gpu=_gpu(folder) if config.device == "cuda" else None,
                gpus=(best.devices or 0) if config.device == "cuda" else 0,
            ),
            workload=SpecWorkload(
                description=run.point.load.workload,
                input_tokens_mean=best.metrics["input_tokens_mean"] or None,
                output_tokens_mean=best.metrics["output_tokens_mean"] or None,
            ),
            slos=promises(folder, same, at),
            capacity=capacity(same, held, at, asked.replicas),
            cost=_cost(best),
            operations=Operations(
                cold_start_s=max((o.run.ready_s for o in same if o.run.ready_s), default=60.0),
                worst_request_s=worst_request_s(best),
                secrets=list(asked.secrets),
            ),
            accuracy=accuracy(folder, scenario, config.key),
            rollback=Rollback(spec_id=asked.parent, fallback_id=asked.fallback_id),
            evidence=[evidence(o) for o in sorted(same, key=lambda o: o.key)],
        )
    )


def unwatched(scenario: Scenario) -> list[str]:
    """SLOs for which the server has no histogram, so that no alert of ours watches them."""
    return [str(s) for s in scenario.slos if s.metric not in NAMES or s.statistic in (None, "mean")]


def _parameters(
    config: ServingConfig, tried: Sequence[ServingConfig], effective: Any
) -> dict[str, Parameter]:
    """Tuned: others were tried in the run. Fixed: set, and the same everywhere. Resolved: the engine's.

    A setting that was tried and is best left to the engine is resolved, too: nothing is to be set.
    """
    found = {}
    for name in sorted(SETTINGS):
        value = getattr(config, name)
        others = {getattr(other, name) for other in tried if other.engine == config.engine}
        if value is not None and len(others) > 1:
            found[name] = Parameter(value=value, provenance="tuned")
        elif name in config.settings:
            found[name] = Parameter(value=value, provenance="fixed")
        elif isinstance(effective.get(name), (str, int, float, bool)):
            found[name] = Parameter(value=effective[name], provenance="resolved")
    return found


def _secrets(config: ServingConfig, asked: SpecRequest) -> list[str]:
    """Secrets that the measured server had, and that the deployed one would lack."""
    named = {secret.env for secret in asked.secrets}
    found = [
        f"{name} held a secret when this was measured, and has no reference: --secret {name}=OBJECT/KEY"
        for name, value in config.env.items()
        if holds_secret(name, value) and name not in named
    ]
    flags = [name for name, value in config.extra_args.items() if holds_secret(name, value)]
    return found + [
        f"extra_args {name} held a secret; give it by a variable in env instead" for name in flags
    ]


def _commit(folder: RunFolder) -> str | None:
    """Of the servetune that measured; `+`: with changes that were not committed."""
    known = folder.manifest.get("environment", {}).get("servetune") or {}
    return f"{known['commit']}{'+' if known.get('dirty') else ''}" if known.get("commit") else None


def _gpu(folder: RunFolder) -> str | None:
    gpus = folder.manifest.get("environment", {}).get("gpus") or []
    return str(gpus[0]["name"]) if gpus and "name" in gpus[0] else None


def _cost(o: PointResult) -> Cost | None:
    price = o.price
    hour = price.per_hour_of(o.devices) if price else None
    if price is None or hour is None:
        return None
    return Cost(replica_hour=hour, currency=price.currency, source=price.source, date=price.date.isoformat())
