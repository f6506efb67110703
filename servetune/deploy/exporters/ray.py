"""Target `ray`: the Ray Serve LLM application, and the RayService that runs it.

`serveConfigV2` is text inside the manifest, which no schema looks into; the same application therefore lies
beside it as a file of its own, and the tests hold the two against each other.
"""

from __future__ import annotations

import math

from servetune.deploy.exporters.deployment import Deployment
from servetune.deploy.exporters.pod import (
    PORT,
    Json,
    container_security,
    env,
    label_value,
    placement,
    pod_security,
    scratch_mounts,
)
from servetune.deploy.exporters.vllm import environment, settings
from servetune.deploy.quoting import mebibytes, yaml_text

NOT_ENGINE = frozenset({"model", "served-model-name", "disable-fastapi-docs"})
"""Of the server around the engine, which Ray replaces by its own."""

IMAGE = "registry.invalid/ray-llm-with-vllm-{version}:unresolved"
"""Ray's image carries a vLLM of its own choice. One with the measured version has to be built and pinned."""


def files(deployment: Deployment) -> dict[str, str]:
    return {
        "serve_config.yaml": yaml_text(application(deployment)),
        "rayservice.yaml": yaml_text(ray_service(deployment)),
    }


def application(deployment: Deployment) -> Json:
    """`serve run` takes it as it is. Concurrency per replica is what was measured to hold the SLOs."""
    engine = {k.replace("-", "_"): v for k, v in settings(deployment).items() if k not in NOT_ENGINE}
    limit = math.floor(deployment.concurrency) if deployment.concurrency else deployment.max_num_seqs
    scaling: Json = {"min_replicas": deployment.replicas, "max_replicas": deployment.max_replicas}
    deployed: Json = {"autoscaling_config": scaling}
    if limit:
        scaling["target_ongoing_requests"] = max(1, math.floor(0.8 * limit))
        deployed["max_ongoing_requests"] = max(1, limit)
    deployed["graceful_shutdown_timeout_s"] = deployment.drain_s
    values = {k: v for k, v in environment(deployment).items() if k != "HF_HUB_OFFLINE"}
    config = {
        "model_loading_config": {"model_id": deployment.served_model, "model_source": deployment.model},
        "llm_engine": "vLLM",
        "engine_kwargs": engine,
        "deployment_config": deployed,
        "runtime_env": {"env_vars": values},
        "log_engine_metrics": True,
    }
    app = {
        "name": deployment.name,
        "route_prefix": "/",
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [config]},
    }
    return {"applications": [app]}


def ray_service(deployment: Deployment) -> Json:
    memory = mebibytes(deployment.memory_bytes)
    gpu = {"nvidia.com/gpu": str(deployment.gpus)} if deployment.gpus else {}
    worker = _pod(deployment, "worker", str(deployment.cpus), memory, gpu)
    head = _pod(deployment, "head", "2", "4096Mi", {})
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {
            "name": deployment.name,
            "labels": deployment.labels,
            "annotations": {"servetune.dev/spec": deployment.spec_id},
        },
        "spec": {
            "serveConfigV2": yaml_text(application(deployment)),
            "rayClusterConfig": {
                "headGroupSpec": {
                    "rayStartParams": {"dashboard-host": "0.0.0.0", "num-gpus": "0"},  # noqa: S104
                    "template": {"spec": head},
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "engine",
                        "replicas": deployment.replicas,
                        "minReplicas": deployment.replicas,
                        "maxReplicas": deployment.max_replicas,
                        "rayStartParams": {},
                        "template": {"spec": worker},
                    }
                ],
            },
        },
    }


def _pod(deployment: Deployment, name: str, cpus: str, memory: str, gpu: dict[str, str]) -> Json:
    shm = {"medium": "Memory", "sizeLimit": mebibytes(deployment.shm_bytes)}
    ports = [{"name": "serve", "containerPort": PORT}, {"name": "metrics", "containerPort": 8080}]
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": deployment.grace_s,
        "securityContext": pod_security(),
        **(placement(deployment) if gpu else {}),
        "containers": [
            {
                "name": name,
                "image": IMAGE.format(version=label_value(deployment.version.partition("+")[0])),
                "ports": ports,
                "env": [e for e in env(deployment) if e["name"] != "HF_HUB_OFFLINE"],
                "resources": {
                    "requests": {"cpu": cpus, "memory": memory, **gpu},
                    "limits": {"memory": memory, **gpu},
                },
                "securityContext": container_security(),
                "volumeMounts": [
                    *scratch_mounts(),
                    {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - a volume of the pod's own
                ],
            }
        ],
        "volumes": [
            {"name": "cache", "emptyDir": {"sizeLimit": "64Gi"}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": shm},
        ],
    }
