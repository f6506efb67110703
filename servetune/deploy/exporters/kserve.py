"""Target `kserve`: an LLMInferenceService (v1alpha2) that runs the measured image with the measured file.

Nothing travels in VLLM_ADDITIONAL_ARGS, which the default launcher hands to `eval`; command, image and
probes are all written out, since the numbers hold for no other. A canary is a second service of the same
`group`, with a weight; `canaryTrafficPercent` of the older kind does nothing in the default mode.
"""

from __future__ import annotations

from servetune.deploy.exporters.deployment import PRESTOP_S, Deployment
from servetune.deploy.exporters.pod import (
    CONFIG_PATH,
    Json,
    config_map,
    container,
    pod_security,
    scratch_mounts,
)
from servetune.deploy.exporters.pod import placement as place
from servetune.deploy.exporters.vllm import serve
from servetune.deploy.quoting import mebibytes, yaml_text

MOUNTED_MODEL = "/mnt/models"
"""Where KServe's storage initializer puts the weights."""

STABLE_WEIGHT = 100


def files(deployment: Deployment) -> dict[str, str]:
    settings = yaml_text(serve(deployment))
    documents = [
        config_map(deployment, f"{deployment.name}-serve", {"serve.yaml": settings}),
        service(deployment),
    ]
    return {"llminferenceservice.yaml": yaml_text(*documents)}


def service(deployment: Deployment) -> Json:
    main = container(deployment, "main")
    main["command"] = ["vllm", "serve", MOUNTED_MODEL]
    # KServe merges its preset, whose preStop is an exec, and a handler of both kinds is refused.
    main["lifecycle"] = {"preStop": {"exec": {"command": ["/bin/sleep", str(PRESTOP_S)]}}}
    main["volumeMounts"] = [
        {"name": "serve", "mountPath": CONFIG_PATH, "readOnly": True},
        *scratch_mounts(),
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - a volume of the pod's own
    ]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        main[probe]["httpGet"]["scheme"] = "HTTP"
    shm = {"medium": "Memory", "sizeLimit": mebibytes(deployment.shm_bytes)}
    template: Json = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": deployment.grace_s,
        "securityContext": pod_security(),
        **place(deployment),
        "containers": [main],
        "volumes": [
            {"name": "serve", "configMap": {"name": f"{deployment.name}-serve"}},
            {"name": "cache", "emptyDir": {"sizeLimit": "8Gi"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "4Gi"}},
            {"name": "shm", "emptyDir": shm},
        ],
    }
    spec: Json = {
        "model": {"uri": uri(deployment), "name": deployment.served_model},
        "replicas": deployment.replicas,
        "template": template,
        "router": {"gateway": {}, "route": {"group": deployment.name, "weight": STABLE_WEIGHT}},
    }
    if deployment.tensor_parallel > 1:
        spec["parallelism"] = {"tensor": deployment.tensor_parallel}
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {
            "name": deployment.name,
            "labels": deployment.labels,
            "annotations": {"servetune.dev/spec": deployment.spec_id},
        },
        "spec": spec,
    }


def uri(deployment: Deployment) -> str:
    """`hf://owner/name:commit`, or a claim of that name that holds the folder."""
    if deployment.is_hub_model:
        return f"hf://{deployment.model}" + (f":{deployment.revision}" if deployment.revision else "")
    return f"pvc://{deployment.name}-model/weights"
