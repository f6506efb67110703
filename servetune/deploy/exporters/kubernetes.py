"""Target `kubernetes`: a Kustomize base, and overlays for staging and production.

The overlays differ in namespace, replicas and host; `serve.yaml` becomes a ConfigMap whose name carries its
hash, so a changed setting is a rollout.
"""

from __future__ import annotations

from servetune.deploy.exporters.deployment import Deployment
from servetune.deploy.exporters.pod import (
    ACCOUNT,
    MODEL_PATH,
    PORT,
    Json,
    container_security,
    env,
    image,
    pod,
    pod_security,
    scratch_mounts,
)
from servetune.deploy.exporters.vllm import model_sums, serve
from servetune.deploy.quoting import kube_text, mebibytes, seconds, yaml_text

DNS_PORTS = ({"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53})
SCRAPED = {"servetune.dev/metrics": "scrape"}
"""On one Service of a model only: a canary's Services select the same pods, which would then count twice."""
FETCH = 'hf download "$MODEL" --revision "$REVISION" --local-dir "$DEST"\n'
VERIFY = 'cd "$DEST" && sha256sum --check --strict /etc/serve/model.sha256\n'


def files(deployment: Deployment) -> dict[str, str]:
    manifests = {
        "deployment.yaml": workload(deployment),
        "service.yaml": service(deployment, deployment.name, SCRAPED),
        "poddisruptionbudget.yaml": disruption_budget(deployment),
        "networkpolicy.yaml": network_policies(deployment),
        "httproute.yaml": route(deployment),
        "model-volume.yaml": claim(deployment),
        "model-job.yaml": model_job(deployment),
    }
    base = {f"base/{file}": yaml_text(*(m if isinstance(m, list) else [m])) for file, m in manifests.items()}
    base["base/serve.yaml"] = yaml_text(serve(deployment))
    base["base/model.sha256"] = model_sums(deployment)
    base["base/kustomization.yaml"] = yaml_text(kustomization(deployment, sorted(manifests)))
    overlays = {
        "overlays/staging/kustomization.yaml": yaml_text(overlay(deployment, "staging", 1)),
        "overlays/production/kustomization.yaml": yaml_text(
            overlay(deployment, "production", deployment.replicas)
        ),
    }
    return base | overlays


def workload(deployment: Deployment) -> Json:
    template = pod(deployment, f"{deployment.name}-serve", f"{deployment.name}-model")
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector(deployment)},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": deployment.name,
            "labels": deployment.labels,
            "annotations": {"servetune.dev/spec": deployment.spec_id},
        },
        "spec": {
            "replicas": deployment.replicas,
            "revisionHistoryLimit": 5,
            "progressDeadlineSeconds": deployment.startup_budget_s + 300,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": selector(deployment)},
            "template": {
                "metadata": {"labels": {**deployment.labels, **selector(deployment)}},
                "spec": {**template, "topologySpreadConstraints": [spread]},
            },
        },
    }


def selector(deployment: Deployment) -> dict[str, str]:
    return {"app.kubernetes.io/name": deployment.name, "app.kubernetes.io/component": "server"}


def service(deployment: Deployment, name: str, labels: dict[str, str] | None = None) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {**deployment.labels, **selector(deployment), **(labels or {})}},
        "spec": {
            "type": "ClusterIP",
            "selector": selector(deployment),
            "ports": [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def disruption_budget(deployment: Deployment) -> Json:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": deployment.name, "labels": deployment.labels},
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(deployment)},
        },
    }


def network_policies(deployment: Deployment) -> list[Json]:
    """The server is reached by the gateway and by Prometheus and reaches nothing: vLLM's key guards only
    some of its routes. The job that fills the model volume may reach the hub over TLS."""
    http = [{"protocol": "TCP", "port": PORT}]
    ingress = [{"from": [_namespace("gateway-system"), _namespace("monitoring")], "ports": http}]
    dns = {"to": [_namespace("kube-system")], "ports": list(DNS_PORTS)}
    hub = {"ports": [{"protocol": "TCP", "port": 443}]}
    job = {**selector(deployment), "app.kubernetes.io/component": "model"}
    return [
        _policy(deployment, deployment.name, selector(deployment), ingress, []),
        _policy(
            deployment, f"{deployment.name}-model", job, [], [dns, hub] if deployment.is_hub_model else []
        ),
    ]


def route(deployment: Deployment) -> Json:
    """Only the routes clients need are published; everything else of the server stays inside."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": deployment.name, "labels": deployment.labels},
        "spec": {
            "parentRefs": [{"name": "inference-gateway", "namespace": "gateway-system"}],
            "rules": [
                {
                    "matches": [{"path": {"type": "Exact", "value": path}} for path in deployment.routes],
                    "timeouts": {"request": seconds(deployment.drain_s)},
                    "backendRefs": [{"name": deployment.name, "port": PORT}],
                }
            ],
        },
    }


def claim(deployment: Deployment) -> Json:
    size = mebibytes(max(1.2 * deployment.weights_bytes, 2**30))
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"{deployment.name}-model", "labels": deployment.labels},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}},
    }


def model_job(deployment: Deployment) -> Json:
    """Fills the volume with the pinned files (a hub model) and checks every hash. Model and commit reach
    the script as environment variables, never as part of its text."""
    script = "set -eu\n" + (FETCH if deployment.is_hub_model else "") + VERIFY
    own = [{"name": "MODEL", "value": kube_text(deployment.model)}, {"name": "DEST", "value": MODEL_PATH}]
    if deployment.is_hub_model:
        own.append({"name": "REVISION", "value": deployment.revision or "main"})
    shared = [e for e in env(deployment) if e["name"] in (*ACCOUNT, "HF_HUB_DISABLE_TELEMETRY", "HF_TOKEN")]
    resources = {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}}
    step = {
        "name": "model",
        "image": image(deployment),
        "command": ["/bin/sh", "-c", script],
        "env": own + shared,
        "resources": resources,
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "serve", "mountPath": "/etc/serve", "readOnly": True},
            {"name": "model", "mountPath": "/models"},
            *scratch_mounts(),
        ],
    }
    name = f"{deployment.name}-model"
    pod_spec = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "OnFailure",
        "securityContext": pod_security(),
        "containers": [step],
        "volumes": [
            {"name": "serve", "configMap": {"name": f"{deployment.name}-serve"}},
            {"name": "model", "persistentVolumeClaim": {"claimName": name}},
            {"name": "cache", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    labels = {**deployment.labels, "app.kubernetes.io/component": "model"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {"backoffLimit": 4, "template": {"metadata": {"labels": labels}, "spec": pod_spec}},
    }


def kustomization(deployment: Deployment, resources: list[str]) -> Json:
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
        "configMapGenerator": [{"name": f"{deployment.name}-serve", "files": ["serve.yaml", "model.sha256"]}],
    }


def staged(stage: str) -> dict[str, str]:
    return {"servetune.dev/stage": stage}


def hostname(deployment: Deployment, stage: str) -> str:
    """A placeholder, to be patched in the overlays."""
    return f"{deployment.name}.{stage}.example"


def overlay(deployment: Deployment, stage: str, replicas: int) -> Json:
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": f"{deployment.name}-{stage}",
        "resources": ["../../base"],
        "labels": [{"pairs": staged(stage), "includeTemplates": True}],
        "replicas": [{"name": deployment.name, "count": replicas}],
        "patches": [
            {
                "target": {"kind": "HTTPRoute", "name": deployment.name},
                "patch": yaml_text(
                    [
                        {
                            "op": "add",
                            "path": "/spec/hostnames",
                            "value": [hostname(deployment, stage)],
                        }
                    ]
                ),
            }
        ],
    }


def _namespace(name: str) -> Json:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _policy(
    deployment: Deployment, name: str, pods: dict[str, str], ingress: list[Json], egress: list[Json]
) -> Json:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": deployment.labels},
        "spec": {
            "podSelector": {"matchLabels": pods},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    }
