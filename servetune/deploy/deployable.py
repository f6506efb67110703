"""Deployable: every reason why a spec must not be deployed, and what nobody measured of it.

Pure, from the content of the spec: a file that says of itself that it may be deployed proves nothing.
"""

from __future__ import annotations

import re

from servetune.deploy.quoting import yaml_text
from servetune.deploy.spec import ServingSpec

COMMIT = re.compile(r"[0-9a-f]{40}")
PINNED = re.compile(r"[a-z0-9./:_-]+@sha256:[0-9a-f]{64}")
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
SAFE_FILES = (".safetensors", ".json", ".txt", ".model", ".jinja", ".md", ".tiktoken", "recipe.yaml")
"""What a model may consist of; pickled weights and code are not among it. recipe.yaml: how llm-compressor
made it, which no engine reads."""

LEFT_CORE = {"bitsandbytes": ((0, 28), "vllm-bnb-plugin"), "gguf": ((0, 28), "vllm-gguf-plugin")}
"""Quantization -> the vLLM version from which it needs a plugin, and which (vLLM PR 43529)."""


def refusals(spec: ServingSpec) -> list[str]:
    """Why it must not be deployed; empty when it may."""
    return [*_unpinned(spec), *_unmeasured(spec), *spec.status.noted]


def warnings(spec: ServingSpec) -> list[str]:
    """What a reader has to know who deploys it all the same."""
    found = []
    if not spec.accuracy.facts:
        found.append("no accuracy was measured: `accuracy:` in the scenario")
    if spec.cost is None:
        found.append("no price: cost is not known")
    if spec.rollback.spec_id is None:
        found.append("no spec to go back to: servetune spec --replaces")
    return found


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
    if spec.accuracy.verdict in ("FAIL", "INCONCLUSIVE"):
        found.append(f"accuracy: the floor was not shown to be kept ({spec.accuracy.verdict})")
    if spec.capacity.safe_rate_per_s is None:
        found.append("no safe rate was measured")
    promised = [
        e for e in spec.evidence if spec.metadata.source.endswith(f"/{e.get('key')}")
    ] or spec.evidence
    if not any(point.get("verdict") == "ok" for point in promised):
        named = ", ".join(str(point.get("key")) for point in promised)
        found.append(f"the evidence may not be believed: {named or 'there is none'}")
    return found


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text.partition("+")[0]))


def with_id(spec: ServingSpec) -> ServingSpec:
    """The same content with its status and its id as they follow from it."""
    found = refusals(spec)
    said = {"deployable": not found, "reasons": found, "warnings": warnings(spec)}
    judged = spec.model_copy(update={"status": spec.status.model_copy(update=said)})
    identified = judged.metadata.model_copy(update={"id": judged.content_id})
    return judged.model_copy(update={"metadata": identified})


def dump(spec: ServingSpec) -> str:
    """The file's text, with the id of its content: same content, same bytes."""
    return yaml_text(with_id(spec).model_dump(mode="json"))
