"""Target `bom`: a CycloneDX 1.6 bill of materials of what is deployed: model, its files, engine and image.

The model card holds what was measured of it and nothing else. No clock and no chance: the serial number
follows from the spec's id.
"""

from __future__ import annotations

import json
import uuid
from urllib.parse import quote

from servetune.deploy.deployable import PINNED
from servetune.deploy.exporters import banner
from servetune.deploy.exporters.deployment import Deployment

MODEL, ENGINE, IMAGE = "model", "engine", "image"


def files(deployment: Deployment) -> dict[str, str]:
    return {f"{deployment.name}.cdx.json": json.dumps(bom(deployment), indent=2, ensure_ascii=False) + "\n"}


def bom(deployment: Deployment) -> dict[str, object]:

    parts = [engine(deployment), *image(deployment), *plugins(deployment)]
    refs = [str(part["bom-ref"]) for part in parts]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, deployment.spec_id)}",
        "version": 1,
        "metadata": {
            "component": model(deployment),
            "properties": [{"name": "servetune:banner", "value": " ".join(banner(deployment))}],
        },
        "components": parts,
        "dependencies": [{"ref": MODEL, "dependsOn": refs}, *({"ref": ref} for ref in refs)],
    }


def model(deployment: Deployment) -> dict[str, object]:
    """The model with every file of it by its hash, and its card."""
    found: dict[str, object] = {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": deployment.model,
        "modelCard": {"quantitativeAnalysis": {"performanceMetrics": metrics(deployment)}},
        "components": [
            {
                "type": "file",
                "bom-ref": f"file-{number}",
                "name": path,
                "hashes": [{"alg": "SHA-256", "content": sha256}],
            }
            for number, (path, sha256) in enumerate(deployment.files)
        ],
    }
    if deployment.revision is not None:
        found["version"] = deployment.revision
        if deployment.is_hub_model:
            owner, _, name = deployment.model.partition("/")
            found["purl"] = f"pkg:huggingface/{quote(owner)}/{quote(name)}@{quote(deployment.revision)}"
    return found


def metrics(deployment: Deployment) -> list[dict[str, object]]:
    """Scores as shares, latencies in seconds with the upper end of their interval."""
    found: list[dict[str, object]] = [
        {
            "type": f"accuracy {task}",
            "value": f"{score:.6g}",
            "confidenceInterval": {"lowerBound": f"{low:.6g}", "upperBound": f"{high:.6g}"},
        }
        for task, score, low, high in deployment.scores
    ]
    for slo in deployment.slos:
        if slo.measured_s is not None:
            one: dict[str, object] = {"type": f"{slo.name} seconds", "value": f"{slo.measured_s:.6g}"}
            if slo.high_s is not None:
                one["confidenceInterval"] = {"upperBound": f"{slo.high_s:.6g}"}
            found.append(one)
    return found


def engine(deployment: Deployment) -> dict[str, object]:
    version = deployment.version.partition("+")[0]
    return {
        "type": "application",
        "bom-ref": ENGINE,
        "name": deployment.engine,
        "version": deployment.version,
        "purl": f"pkg:pypi/{quote(deployment.engine)}@{quote(version, safe='')}",
    }


def plugins(deployment: Deployment) -> list[dict[str, object]]:
    return [
        {"type": "library", "bom-ref": f"plugin-{number}", "name": name}
        for number, name in enumerate(deployment.plugins)
    ]


def image(deployment: Deployment) -> list[dict[str, object]]:
    """Only an image with a digest: another is no certain content."""
    if not PINNED.fullmatch(deployment.image or ""):
        return []
    name, _, digest = str(deployment.image).partition("@sha256:")
    hashes = [{"alg": "SHA-256", "content": digest}]
    return [{"type": "container", "bom-ref": IMAGE, "name": name, "hashes": hashes}]
