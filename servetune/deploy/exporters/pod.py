"""What every Kubernetes-like target shares: the container, its probes, limits, volumes and secrets."""

from __future__ import annotations

import math
from typing import Any

from servetune.deploy.exporters.deployment import PRESTOP_S, Deployment
from servetune.deploy.exporters.vllm import environment
from servetune.deploy.quoting import kube_text, mebibytes

PORT = 8000
USER = 1000
PERIOD_S = 5
MODEL_PATH = "/models/weights"
CONFIG_PATH = "/etc/serve"
UNRESOLVED = "registry.invalid/unresolved:unresolved"
"""Stands for an image nobody pinned: it cannot be pulled, so nothing else can be started by mistake."""

CACHE = "/cache"
IDENTITY = {"USER": "vllm", "LOGNAME": "vllm"}
"""torch asks for the user's name while it is imported (2.11; later ones when they compile), and a uid without
a passwd entry has none but these: KeyError before an argument is read (vllm-project/vllm#44548)."""
ACCOUNT = {
    **IDENTITY,
    "HOME": CACHE,
    "XDG_CACHE_HOME": CACHE,
    "XDG_CONFIG_HOME": f"{CACHE}/config",
    "HF_HOME": f"{CACHE}/huggingface",
    "TRITON_CACHE_DIR": f"{CACHE}/triton",
    "TORCHINDUCTOR_CACHE_DIR": f"{CACHE}/torchinductor",
    "VLLM_CACHE_ROOT": f"{CACHE}/vllm",
    "VLLM_CONFIG_ROOT": f"{CACHE}/config/vllm",
}
"""Who the server is and where it writes: on the volume that its user may write to, whatever the image holds
and also where a policy makes the root file system read-only."""

Json = dict[str, Any]


def image(deployment: Deployment) -> str:
    return deployment.image or UNRESOLVED


def container(deployment: Deployment, name: str) -> Json:
    """The server's container. Its arguments hold no value of the spec: those are in serve.yaml."""
    gpu = {"nvidia.com/gpu": str(deployment.gpus)} if deployment.gpus else {}
    memory = mebibytes(deployment.memory_bytes)
    return {
        "name": name,
        "image": image(deployment),
        "imagePullPolicy": "IfNotPresent",
        "command": ["vllm", "serve", MODEL_PATH],
        "args": ["--config", f"{CONFIG_PATH}/serve.yaml", "--host", "0.0.0.0", "--port", str(PORT)],  # noqa: S104
        "env": env(deployment),
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        **probes(deployment),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRESTOP_S}}},
        "resources": {
            "requests": {"cpu": str(deployment.cpus), "memory": memory, "ephemeral-storage": "8Gi", **gpu},
            "limits": {"memory": memory, "ephemeral-storage": "16Gi", **gpu},
        },
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "serve", "mountPath": CONFIG_PATH, "readOnly": True},
            {"name": "model", "mountPath": "/models", "readOnly": True},
            *scratch_mounts(),
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - a volume of the pod's own
        ],
    }


def env(deployment: Deployment) -> list[Json]:
    """Values as text, then secrets by reference."""
    values = {**ACCOUNT, **environment(deployment)}
    found: list[Json] = [{"name": name, "value": kube_text(value)} for name, value in values.items()]
    for secret in deployment.secrets:
        reference = {"secretKeyRef": {"name": secret.name, "key": secret.key}}
        found.append({"name": secret.env, "valueFrom": reference})
    return found


def probes(deployment: Deployment) -> Json:
    """vLLM opens its port once the weights are loaded; the startup budget is twice the slowest measured
    start. /health needs no key, /v1/models would."""
    health = {"httpGet": {"path": "/health", "port": "http"}}
    allowed = math.ceil(deployment.startup_budget_s / PERIOD_S)
    return {
        "startupProbe": {
            **health,
            "periodSeconds": PERIOD_S,
            "timeoutSeconds": 3,
            "failureThreshold": allowed,
        },
        "readinessProbe": {**health, "periodSeconds": PERIOD_S, "timeoutSeconds": 3, "failureThreshold": 2},
        "livenessProbe": {**health, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
    }


def scratch_mounts() -> list[Json]:
    """Everything that is written beside shared memory: caches, and temporary files."""
    return [{"name": "cache", "mountPath": CACHE}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108


def container_security() -> Json:
    """The root file system stays writable: NVIDIA's container hook writes to it (KServe's finding)."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": False,
    }


def pod_security() -> Json:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def volumes(deployment: Deployment, config_map: str, claim: str) -> list[Json]:
    shm = {"medium": "Memory", "sizeLimit": mebibytes(deployment.shm_bytes)}
    return [
        {"name": "serve", "configMap": {"name": config_map}},
        {"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}},
        {"name": "cache", "emptyDir": {"sizeLimit": "8Gi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "4Gi"}},
        {"name": "shm", "emptyDir": shm},
    ]


def pod(deployment: Deployment, config_map: str, claim: str, container_name: str = "vllm") -> Json:
    """The pod's spec. Service links are off: a Service called vllm would set VLLM_PORT and end the server."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": deployment.grace_s,
        "securityContext": pod_security(),
        **placement(deployment),
        "containers": [container(deployment, container_name)],
        "volumes": volumes(deployment, config_map, claim),
    }


def placement(deployment: Deployment) -> Json:
    """The measured GPU and no other: numbers of one say nothing of another."""
    if not deployment.gpus:
        return {}
    found: Json = {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]}
    if deployment.gpu_product:
        found["nodeSelector"] = {"nvidia.com/gpu.product": label_value(deployment.gpu_product)}
    return found


def label_value(text: str) -> str:
    """A label value as NVIDIA's feature discovery writes it: blanks as dashes."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in text)
    return kept[:63].strip("-_.")


def config_map(deployment: Deployment, name: str, data: dict[str, str]) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": deployment.labels},
        "data": data,
    }
