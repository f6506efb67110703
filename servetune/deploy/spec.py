"""ServingSpec: what was measured, as the file somebody deploys. `servetune/deploy/exporters/` turns it into
targets.

Facts only: what follows from them (drain times, thresholds, replicas) is computed by those who need it.
Units are in the names. The id is the content's own hash, so a file that was edited by hand is found out.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from servetune.deploy.quoting import plain
from serving import devices
from serving.claims import Verdict
from serving.config import Scalar
from serving.errors import UserError

Positive = Annotated[float, Field(gt=0)]


class SpecPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Metadata(SpecPart):
    name: Annotated[str, Field(min_length=1)]
    id: Annotated[str, Field(pattern="^([0-9a-f]{12})?$")] = ""
    tool_version: str
    tool_commit: Annotated[str | None, Field(description="commit of servetune; + when it was changed")] = None
    scenario_sha256: Annotated[str | None, Field(pattern="^[0-9a-f]{64}$")] = None
    source: Annotated[str, Field(description="run or study the numbers are from")]


class SpecStatus(SpecPart):
    """`verified` is set by a passed verification of the exported files; `noted` by whoever wrote the spec.

    The others follow from the content and are written by `deployable.with_id`; the caller who decides reads
    `deployable.refusals`.
    """

    deployable: Annotated[bool, Field(description="false when there is a reason against it")] = False
    reasons: Annotated[list[str], Field(description="why it must not be deployed")] = []
    warnings: Annotated[list[str], Field(description="what was not measured, though it may be deployed")] = []
    verified: bool = False
    noted: Annotated[list[str], Field(description="reasons that do not follow from the content")] = []


class ModelFile(SpecPart):
    path: str
    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class SpecModel(SpecPart):
    source: Annotated[str, Field(min_length=1, description="hub id or folder")]
    revision: Annotated[str | None, Field(description="hub commit, 40 hex digits")] = None
    served_name: Annotated[str, Field(min_length=1)]
    files: list[ModelFile]
    trust_remote_code: Literal[False] = False


class EngineFacts(SpecPart):
    name: str
    version: str
    simulated: bool = False
    plugins: list[str] = []
    image: Annotated[str | None, Field(description="registry/name:tag@sha256:digest")] = None


class Parameter(SpecPart):
    value: Scalar
    provenance: Literal["tuned", "fixed", "default", "resolved"]


class HardwareFacts(SpecPart):
    device: Literal["cpu", "cuda"]
    gpu: Annotated[str | None, Field(description="product name as NVML gives it")] = None
    gpus: Annotated[int, Field(ge=0, description="per replica")] = 0


class SloFact(SpecPart):
    """One limit and what was measured of it at the safe rate; `interval_ms` at 95 %."""

    metric: Literal["ttft", "itl", "tpot", "e2e"]
    percentile: Annotated[float, Field(gt=0, lt=100)]
    limit_ms: Positive
    measured_ms: Positive | None = None
    interval_ms: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None


class SpecCapacity(SpecPart):
    """Of one replica. `safe_rate_per_s` is the lower end of what was measured, headroom taken off."""

    safe_rate_per_s: Positive | None = None
    headroom: Annotated[float, Field(ge=0, lt=1)] = 0.2
    held_per_s: Annotated[Positive | None, Field(description="highest rate that met the SLOs")] = None
    broke_per_s: Annotated[Positive | None, Field(description="lowest higher rate that did not")] = None
    concurrency: Annotated[Positive | None, Field(description="requests in flight at the safe rate")] = None
    queue_at_knee: Annotated[float | None, Field(ge=0)] = None
    kv_peak: Annotated[float | None, Field(ge=0, le=1)] = None
    replicas: Annotated[int, Field(ge=1)] = 1


class Cost(SpecPart):
    """Price of one replica for an hour, with its source; on a GPU all of the replica's GPUs."""

    replica_hour: Annotated[float, Field(ge=0)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    source: str
    date: str


class SpecWorkload(SpecPart):
    description: str = ""
    input_tokens_mean: Positive | None = None
    output_tokens_mean: Positive | None = None


class AccuracyFact(SpecPart):
    """Mean score of one task on `items` items, with its 95 % interval, and the floor it was held to.

    `baseline` is the unquantized model's score on the same items; `floor` a share of it.
    """

    task: str
    score: Annotated[float, Field(ge=0, le=1)]
    interval: Annotated[list[float], Field(min_length=2, max_length=2)]
    items: Annotated[int, Field(ge=1)]
    baseline: Annotated[float | None, Field(ge=0, le=1)] = None


class SpecAccuracy(SpecPart):
    """What was asked, so that it can be asked again, and what the floor said of it (None: the baseline)."""

    facts: list[AccuracyFact] = []
    split: Literal["all", "screen", "certify"] = "all"
    concurrency: Annotated[int, Field(ge=1)] = 1
    floor: Annotated[float | None, Field(gt=0, le=1, description="share of the baseline's score")] = None
    verdict: Verdict | None = None
    certified: Annotated[bool, Field(description="judged on held-out items, for all finalists together")] = (
        False
    )


class Rollback(SpecPart):
    """Ids of specs to go back to; `servetune export --rollback FILE --fallback FILE` renders them."""

    spec_id: Annotated[str | None, Field(pattern="^[0-9a-f]{12}$", description="what ran before")] = None
    fallback_id: Annotated[
        str | None, Field(pattern="^[0-9a-f]{12}$", description="another measured configuration")
    ] = None


class SecretRef(SpecPart):
    """A secret by reference: never its value."""

    env: str
    name: str
    key: str


class Operations(SpecPart):
    cold_start_s: Annotated[float, Field(gt=0, description="slowest measured start, to the first token")]
    worst_request_s: Annotated[float, Field(gt=0, description="longest allowed request at full batch")]
    secrets: list[SecretRef] = []


class ServingSpec(SpecPart):
    spec_version: Literal[1] = 1
    metadata: Metadata
    status: SpecStatus = SpecStatus()
    model: SpecModel
    engine: EngineFacts
    parameters: Annotated[dict[str, Parameter], Field(description="neutral names of ServingConfig")]
    native: Annotated[dict[str, Scalar], Field(description="further engine flags, long names")] = {}
    env: dict[str, str] = {}
    effective: Annotated[dict[str, Scalar], Field(description="the running server's own account")] = {}
    hardware: HardwareFacts
    workload: SpecWorkload = SpecWorkload()
    slos: list[SloFact] = []
    capacity: SpecCapacity = SpecCapacity()
    cost: Cost | None = None
    operations: Operations
    accuracy: SpecAccuracy = SpecAccuracy()
    rollback: Rollback = Rollback()
    evidence: Annotated[
        list[dict[str, Any]], Field(description="points with metrics, interval, verdict")
    ] = []

    @field_validator("slos")
    @classmethod
    def _distinct(cls, slos: list[SloFact]) -> list[SloFact]:
        if len({(s.metric, s.percentile) for s in slos}) != len(slos):
            raise ValueError("two limits for the same percentile of a metric")
        return slos

    @property
    def gpus(self) -> int:
        """Of one replica: as measured, or what its flags take where that is more."""
        if self.hardware.device == "cpu":
            return self.hardware.gpus
        tensor = self.parameters.get("tensor_parallel_size")
        size = tensor.value if tensor and isinstance(tensor.value, int) else 1
        sizes = devices.parallel(self.native, size) if self.engine.name != "endpoint" else None
        return max(self.hardware.gpus, sizes.devices if sizes else 0)

    @property
    def content_id(self) -> str:
        """12 hex digits of everything but the id itself."""
        body = plain(self.model_dump(mode="json"))
        body["metadata"]["id"] = ""
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def load(path: Path) -> ServingSpec:
    """Reads a spec; UserError with the place of what is wrong, or when its id is not its content's."""
    try:
        spec = ServingSpec.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "give the file that servetune spec wrote") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a YAML file: {error}", "give the file that servetune spec wrote"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {place}: {first['msg']}", "servetune spec writes files that fit") from error
    if spec.metadata.id != spec.content_id:
        said = spec.metadata.id or "missing"
        raise UserError(
            f"{path} was changed: its id is {said}, that of its content {spec.content_id}",
            "write it again with servetune spec; a spec is not edited by hand",
        )
    return spec


def json_schema() -> dict[str, Any]:
    """The published JSON Schema."""
    return ServingSpec.model_json_schema()
