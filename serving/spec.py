"""ServingSpec: what was measured, as the file somebody deploys. `serving/exporters/` turns it into targets.

Facts only: what follows from them (drain times, thresholds, replicas) is computed by those who need it.
Units are in the names. The id is the content's own hash, so a file that was edited by hand is found out.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from serving.config import Scalar
from serving.errors import UserError
from serving.exporters.quoting import plain, yaml_text

COMMIT = re.compile(r"[0-9a-f]{40}")
PINNED = re.compile(r"[a-z0-9./:_-]+@sha256:[0-9a-f]{64}")
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
SAFE_FILES = (".safetensors", ".json", ".txt", ".model", ".jinja", ".md", ".tiktoken")
"""What a model may consist of; pickled weights and code are not among it."""

LEFT_CORE = {"bitsandbytes": ((0, 28), "vllm-bnb-plugin"), "gguf": ((0, 28), "vllm-gguf-plugin")}
"""Quantization -> the vLLM version from which it needs a plugin, and which (vLLM PR 43529)."""

Positive = Annotated[float, Field(gt=0)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Metadata(Part):
    name: Annotated[str, Field(min_length=1)]
    id: Annotated[str, Field(pattern="^([0-9a-f]{12})?$")] = ""
    tool_version: str
    source: Annotated[str, Field(description="run or study the numbers are from")]
    parent: Annotated[str | None, Field(description="id of the spec this one replaces")] = None


class Status(Part):
    """`verified` is set by a passed verification of the exported files; the rest follows from the content."""

    verified: bool = False
    reasons: Annotated[list[str], Field(description="further reasons not to deploy")] = []


class ModelFile(Part):
    path: str
    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Model(Part):
    source: Annotated[str, Field(min_length=1, description="hub id or folder")]
    revision: Annotated[str | None, Field(description="hub commit, 40 hex digits")] = None
    served_name: Annotated[str, Field(min_length=1)]
    files: list[ModelFile]
    trust_remote_code: Literal[False] = False


class EngineFacts(Part):
    name: str
    version: str
    simulated: bool = False
    plugins: list[str] = []
    image: Annotated[str | None, Field(description="registry/name:tag@sha256:digest")] = None


class Parameter(Part):
    value: Scalar
    provenance: Literal["tuned", "fixed", "default", "resolved"]


class HardwareFacts(Part):
    device: Literal["cpu", "cuda"]
    gpu: Annotated[str | None, Field(description="product name as NVML gives it")] = None
    gpus: Annotated[int, Field(ge=0, description="per replica")] = 0


class SloFact(Part):
    """One limit and what was measured of it at the safe rate; `interval_ms` at 95 %."""

    metric: Literal["ttft", "itl", "tpot", "e2e"]
    percentile: Annotated[float, Field(gt=0, lt=100)]
    limit_ms: Positive
    measured_ms: Positive | None = None
    interval_ms: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None


class Capacity(Part):
    """Of one replica. `safe_rate_per_s` is the lower end of what was measured, headroom taken off."""

    safe_rate_per_s: Positive | None = None
    headroom: Annotated[float, Field(ge=0, lt=1)] = 0.2
    concurrency: Annotated[Positive | None, Field(description="requests in flight at the safe rate")] = None
    queue_at_knee: Annotated[float | None, Field(ge=0)] = None
    kv_peak: Annotated[float | None, Field(ge=0, le=1)] = None
    replicas: Annotated[int, Field(ge=1)] = 1


class Cost(Part):
    """Price of one replica for an hour, with its source; on a GPU all of the replica's GPUs."""

    replica_hour: Annotated[float, Field(ge=0)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    source: str
    date: str


class Workload(Part):
    description: str = ""
    input_tokens_mean: Positive | None = None
    output_tokens_mean: Positive | None = None


class SecretRef(Part):
    """A secret by reference: never its value."""

    env: str
    name: str
    key: str


class Operations(Part):
    cold_start_s: Annotated[float, Field(gt=0, description="slowest measured start, to the first token")]
    worst_request_s: Annotated[float, Field(gt=0, description="longest allowed request at full batch")]
    secrets: list[SecretRef] = []


class ServingSpec(Part):
    spec_version: Literal[1] = 1
    metadata: Metadata
    status: Status = Status()
    model: Model
    engine: EngineFacts
    parameters: Annotated[dict[str, Parameter], Field(description="neutral names of ServingConfig")]
    native: Annotated[dict[str, Scalar], Field(description="further engine flags, long names")] = {}
    env: dict[str, str] = {}
    effective: Annotated[dict[str, Scalar], Field(description="the running server's own account")] = {}
    hardware: HardwareFacts
    workload: Workload = Workload()
    slos: list[SloFact] = []
    capacity: Capacity = Capacity()
    cost: Cost | None = None
    operations: Operations
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
    def content_id(self) -> str:
        """12 hex digits of everything but the id itself."""
        body = plain(self.model_dump(mode="json"))
        body["metadata"]["id"] = ""
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def refusals(self) -> list[str]:
        """Why it must not be deployed; empty when it may. From the content, whatever `status` says."""
        return [*_unpinned(self), *_unmeasured(self), *self.status.reasons]

    def with_id(self) -> ServingSpec:
        return self.model_copy(update={"metadata": self.metadata.model_copy(update={"id": self.content_id})})


def _unpinned(spec: ServingSpec) -> list[str]:
    found = []
    if HUB_ID.fullmatch(spec.model.source) and not COMMIT.fullmatch(spec.model.revision or ""):
        found.append(f"model {spec.model.source} is not pinned to a commit")
    if not any(f.path.endswith(".safetensors") for f in spec.model.files):
        found.append("no safetensors file of the model is listed with its hash")
    odd = [f.path for f in spec.model.files if not f.path.endswith(SAFE_FILES)]
    if odd:
        found.append(f"model files that may hold code: {', '.join(odd)}")
    if not PINNED.fullmatch(spec.engine.image or ""):
        found.append("the image has no digest (engine.image: registry/name:tag@sha256:...)")
    method = spec.parameters.get("quantization")
    since, plugin = LEFT_CORE.get(str(method.value) if method else "", ((9999,), ""))
    if (
        spec.engine.name == "vllm"
        and _version(spec.engine.version) >= since
        and plugin not in spec.engine.plugins
    ):
        found.append(
            f"vllm {spec.engine.version} needs {plugin} for this quantization, and the image must hold it"
        )
    return found


def _unmeasured(spec: ServingSpec) -> list[str]:
    found = []
    if spec.engine.simulated:
        found.append("the numbers are simulated")
    if spec.engine.name != "vllm":
        found.append(f"engine {spec.engine.name} has no production target")
    if not spec.status.verified:
        found.append("not verified: nobody relaunched it from its exported files")
    if not spec.slos:
        found.append("no SLO was measured")
    if spec.capacity.safe_rate_per_s is None:
        found.append("no safe rate was measured")
    promised = [
        e for e in spec.evidence if spec.metadata.source.endswith(f"/{e.get('key')}")
    ] or spec.evidence
    if not any(point.get("verdict") == "ok" for point in promised):
        named = ", ".join(str(point.get("key")) for point in promised)
        found.append(f"the evidence may not be believed: {named or 'there is none'}")
    return found


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


def dump(spec: ServingSpec) -> str:
    """The file's text, with the id of its content: same content, same bytes."""
    return yaml_text(spec.with_id().model_dump(mode="json"))


def json_schema() -> dict[str, Any]:
    """The published JSON Schema."""
    return ServingSpec.model_json_schema()


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text.partition("+")[0]))
