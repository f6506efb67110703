"""From a ServingSpec to what its exporters need: neutral names become flags, milliseconds seconds."""

from __future__ import annotations

from servetune.deploy.deployable import refusals
from servetune.deploy.exporters.deployment import Deployment, ExportedSlo, Secret
from servetune.deploy.spec import ServingSpec, SloFact
from serving import devices
from serving.config import fields_where
from serving.engines.vllm import CACHE_LABELS, ONLINE, SWITCHES, VALUE_FLAGS
from serving.errors import UserError

SET = frozenset({"tuned", "fixed"})
"""Provenances that are written out. Defaults are the pinned version's own, and stay with it."""

HELD = ("enable_prefix_caching", "gpu_memory_utilization", "kv_cache_dtype", "block_size")
"""Settings a running server says of itself that do not depend on how much memory was free."""

NOT_FLAGS = frozenset(fields_where(lambda role: role.own_place or role.kind == "intent"))
"""Parameters that a spec says elsewhere, or that no engine sees."""


def deployment(spec: ServingSpec) -> Deployment:
    """UserError for a parameter that vLLM has no flag for: leaving it out would deploy something else."""
    names = _parameters(spec)
    return Deployment(
        title=spec.metadata.name,
        spec_id=spec.metadata.id or spec.content_id,
        refusals=tuple(refusals(spec)),
        engine=spec.engine.name,
        version=spec.engine.version,
        image=spec.engine.image,
        plugins=tuple(spec.engine.plugins),
        model=spec.model.source,
        revision=spec.model.revision,
        files=tuple((f.path, f.sha256) for f in sorted(spec.model.files, key=lambda f: f.path)),
        served_model=spec.model.served_name,
        flags=_flags(spec) if spec.engine.name == "vllm" else {},
        env=dict(spec.env),
        device=spec.hardware.device,
        gpus=spec.gpus,
        gpu_product=spec.hardware.gpu,
        max_model_len=_whole(names.get("max_model_len")),
        max_num_seqs=_whole(names.get("max_num_seqs")),
        weights_bytes=sum(f.size_bytes for f in spec.model.files if f.path.endswith(".safetensors")),
        cold_start_s=spec.operations.cold_start_s,
        worst_request_s=spec.operations.worst_request_s,
        secrets=tuple(Secret(s.env, s.name, s.key) for s in spec.operations.secrets),
        slos=tuple(_slo(s) for s in spec.slos),
        scores=tuple((f.task, f.score, f.interval[0], f.interval[1]) for f in spec.accuracy.facts),
        safe_rate=spec.capacity.safe_rate_per_s,
        concurrency=spec.capacity.concurrency,
        queue_at_knee=spec.capacity.queue_at_knee,
        kv_peak=spec.capacity.kv_peak,
        replicas=spec.capacity.replicas,
        cache_labels={CACHE_LABELS[n]: str(spec.effective[n]) for n in HELD if n in spec.effective},
    )


def _parameters(spec: ServingSpec) -> dict[str, object]:
    """Effective values, and over them what was set."""
    return {**spec.effective, **{n: p.value for n, p in spec.parameters.items() if p.provenance in SET}}


def _flags(spec: ServingSpec) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, parameter in spec.parameters.items():
        value = parameter.value
        if parameter.provenance not in SET or value is None or value == "auto" or name in NOT_FLAGS:
            continue
        if name == "quantization":
            if value in ONLINE:  # the weights of a checkpoint name their method themselves
                found[name] = ONLINE[str(value)]
        elif name in VALUE_FLAGS:
            found[VALUE_FLAGS[name].removeprefix("--")] = value
        elif name in SWITCHES:
            found[SWITCHES[name][0].removeprefix("--")] = value
        else:
            raise UserError(f"parameter {name} is no setting of vllm", "known names: serving/config.py")
    return {**found, **{devices.long_name(n): v for n, v in spec.native.items() if v is not None}}


def _slo(slo: SloFact) -> ExportedSlo:
    high = slo.interval_ms[1] / 1000 if slo.interval_ms else None
    measured = slo.measured_ms / 1000 if slo.measured_ms is not None else None
    return ExportedSlo(slo.metric, slo.percentile, slo.limit_ms / 1000, measured, high)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
