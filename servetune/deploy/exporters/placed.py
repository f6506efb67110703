"""The objects of an overlay as `kubectl kustomize` builds them, for folders that are applied as they are."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from servetune.deploy.exporters import banner, headed, kubernetes
from servetune.deploy.exporters.deployment import Deployment
from servetune.deploy.exporters.pod import Json, config_map
from servetune.deploy.exporters.vllm import model_sums, serve
from servetune.deploy.quoting import yaml_text

STAGE = "production"
HASH_LETTERS = str.maketrans("013ae", "ghkmt")


def namespace(deployment: Deployment) -> str:
    return f"{deployment.name}-{STAGE}"


def placed(deployment: Deployment, found: Json) -> Json:
    """The object in the namespace of the production overlay."""
    metadata = found["metadata"]
    return {**found, "metadata": {"name": metadata["name"], "namespace": namespace(deployment), **metadata}}


def hostname(deployment: Deployment) -> str:
    return kubernetes.hostname(deployment, STAGE)


def engine(deployment: Deployment) -> dict[str, Json | list[Json]]:
    """File -> objects that hold the engine's settings, and what stands around its pods.

    The Deployment has no replicas: a Rollout refers to it and runs the pods; its own would be a second set.
    """
    config = settings(deployment)
    workload = _named(kubernetes.workload(deployment), config["metadata"]["name"], deployment)
    workload["spec"]["replicas"] = 0
    _label(workload["spec"]["template"])
    made: dict[str, Json | list[Json]] = {
        "config.yaml": config,
        "deployment.yaml": workload,
        "service.yaml": kubernetes.service(deployment, deployment.name, kubernetes.SCRAPED),
        "poddisruptionbudget.yaml": kubernetes.disruption_budget(deployment),
        "networkpolicy.yaml": kubernetes.network_policies(deployment),
    }
    return {path: _all_placed(deployment, found) for path, found in made.items()}


def settings(deployment: Deployment) -> Json:
    """The ConfigMap of serve.yaml and the model's hashes, under the name that kustomize gives it: with the
    same content the pods are the same, and a rollout that knows them starts no others."""
    head, name = banner(deployment), f"{deployment.name}-serve"
    data = {
        "model.sha256": headed("model.sha256", model_sums(deployment), head),
        "serve.yaml": headed("serve.yaml", yaml_text(serve(deployment)), head),
    }
    return config_map(deployment, f"{name}-{content_hash(data)}", data)


def volume(deployment: Deployment) -> Json:
    found: Json = _all_placed(deployment, kubernetes.claim(deployment))
    return found


def model_job(deployment: Deployment) -> Json:
    config = settings(deployment)["metadata"]["name"]
    job = _named(kubernetes.model_job(deployment), config, deployment)
    _label(job["spec"]["template"])
    found: Json = _all_placed(deployment, job)
    return found


def content_hash(data: dict[str, str]) -> str:
    """Suffix of a generated ConfigMap: kustomize's own (api/hasher), of Go's JSON of its content. The name is
    always empty there, for it is looked up under one key `metadata/name`."""
    said = {"data": data, "kind": "ConfigMap", "name": ""}
    text = json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return hashlib.sha256(text.encode()).hexdigest()[:10].translate(HASH_LETTERS)


def _named(found: Json, config: str, deployment: Deployment) -> Json:
    """The object with the generated ConfigMap in place of the one it was generated from."""
    for volume in found["spec"]["template"]["spec"]["volumes"]:
        if volume.get("configMap") == {"name": f"{deployment.name}-serve"}:
            volume["configMap"] = {"name": config}
    return found


def _all_placed(deployment: Deployment, found: Any) -> Any:
    if isinstance(found, list):
        return [_all_placed(deployment, one) for one in found]
    _label(found)
    return placed(deployment, found)


def _label(found: Json) -> None:
    metadata = found["metadata"]
    metadata["labels"] = {**metadata["labels"], **kubernetes.staged(STAGE)}
