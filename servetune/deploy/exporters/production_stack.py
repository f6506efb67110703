"""Target `production-stack`: values for vLLM's Helm chart (0.1.12), checked here because the chart does not.

The chart's own schema is left out of its package and allows unknown keys, so a mistyped one deploys silently;
and without `enablePrefixCaching` it switches prefix caching off. Every key written here is in its templates.
"""

from __future__ import annotations

from typing import Any

from servetune.deploy.exporters import vllm
from servetune.deploy.exporters.deployment import GIB, Deployment
from servetune.deploy.exporters.pod import IDENTITY, PERIOD_S, image, label_value
from servetune.deploy.exporters.vllm import arguments, environment
from servetune.deploy.quoting import kube_text, mebibytes, yaml_text

TYPED = {
    "max-model-len": "maxModelLen",
    "dtype": "dtype",
    "tensor-parallel-size": "tensorParallelSize",
    "max-num-seqs": "maxNumSeqs",
    "gpu-memory-utilization": "gpuMemoryUtilization",
    "enable-prefix-caching": "enablePrefixCaching",
    "enable-chunked-prefill": "enableChunkedPrefill",
}
"""Flag -> key of `vllmConfig`; all others travel as extraArgs."""

ELSEWHERE = frozenset({"model", "revision"})
VOLUME_MODEL = "/data/weights"
"""A model that is a folder: put it on the claim, which the chart mounts at /data."""


def files(deployment: Deployment) -> dict[str, str]:
    return {"values.yaml": yaml_text(values(deployment))}


def values(deployment: Deployment) -> dict[str, Any]:
    """The chart writes `repository:tag`, so a digest rides in the tag."""
    repository, tag = _image(image(deployment))
    key = next((s for s in deployment.secrets if s.env == "VLLM_API_KEY"), None)
    hub = next((s for s in deployment.secrets if s.env == "HF_TOKEN"), None)
    env = {n: v for n, v in {**IDENTITY, **environment(deployment)}.items() if n != "HF_HUB_OFFLINE"}
    spec: dict[str, Any] = {
        "name": deployment.name,
        "repository": repository,
        "tag": tag,
        "modelURL": deployment.model if deployment.is_hub_model else VOLUME_MODEL,
        "modelRevision": deployment.revision,
        "replicaCount": deployment.replicas,
        "requestCPU": deployment.cpus,
        "requestMemory": mebibytes(deployment.memory_bytes),
        "requestGPU": deployment.gpus,
        "limitMemory": mebibytes(deployment.memory_bytes),
        "pvcStorage": mebibytes(max(1.2 * deployment.weights_bytes, GIB)),
        "pvcAccessMode": ["ReadWriteMany"],
        "shmSize": mebibytes(deployment.shm_bytes),
        "vllmConfig": vllm_config(deployment),
        "env": [{"name": n, "value": kube_text(v)} for n, v in env.items()]
        + [
            {"name": s.env, "valueFrom": {"secretKeyRef": {"name": s.name, "key": s.key}}}
            for s in deployment.secrets
            if s not in (key, hub)
        ],
        "hf_token": {"secretName": hub.name, "secretKey": hub.key} if hub else None,
        "nodeSelectorTerms": _nodes(deployment),
    }
    probe = {"path": "/health", "port": 8000}
    engine: dict[str, Any] = {
        "enableEngine": True,
        "vllmApiKey": {"secretName": key.name, "secretKey": key.key} if key else None,
        "modelSpec": [spec],
        "startupProbe": {
            "initialDelaySeconds": PERIOD_S,
            "periodSeconds": PERIOD_S,
            "failureThreshold": -(-deployment.startup_budget_s // PERIOD_S),
            "httpGet": probe,
        },
    }
    return {"servingEngineSpec": engine}


def vllm_config(deployment: Deployment) -> dict[str, Any]:
    """Both switches are written out, for the chart turns prefix caching off when its key is missing."""
    asked = vllm.settings(deployment)
    typed: dict[str, Any] = {"enablePrefixCaching": True, "enableChunkedPrefill": True}
    typed |= {TYPED[flag]: value for flag, value in asked.items() if flag in TYPED}
    rest = {flag: value for flag, value in asked.items() if flag not in TYPED and flag not in ELSEWHERE}
    return {**typed, "extraArgs": [kube_text(part) for part in arguments(rest)]}


def _image(reference: str) -> tuple[str, str]:
    repository, _, digest = reference.partition("@")
    head, _, last = repository.rpartition("/")
    name, _, tag = last.partition(":")
    tag = tag or "pinned"
    return (f"{head}/{name}" if head else name), f"{tag}@{digest}" if digest else tag


def _nodes(deployment: Deployment) -> list[dict[str, Any]] | None:
    if not deployment.gpu_product:
        return None
    value = label_value(deployment.gpu_product)
    return [{"matchExpressions": [{"key": "nvidia.com/gpu.product", "operator": "In", "values": [value]}]}]
