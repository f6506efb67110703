"""A stand-in for the Kubernetes API on loopback: enough for the real kubectl to apply and delete objects, with
the refusals that matter here (unknown kinds, missing namespaces, Jobs and claims that cannot be changed)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KINDS = {
    "v1": ["Namespace", "ConfigMap", "Service", "PersistentVolumeClaim"],
    "apps/v1": ["Deployment"],
    "batch/v1": ["Job"],
    "policy/v1": ["PodDisruptionBudget"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "gateway.networking.k8s.io/v1": ["HTTPRoute"],
    "argoproj.io/v1alpha1": ["Rollout", "AnalysisTemplate"],
    "keda.sh/v1alpha1": ["ScaledObject"],
    "monitoring.coreos.com/v1": ["ServiceMonitor", "PrometheusRule"],
}
PLURALS = {k.lower() + "s": k for kinds in KINDS.values() for k in kinds} | {
    "networkpolicies": "NetworkPolicy"
}
IMMUTABLE = {"Job": "template", "PersistentVolumeClaim": "resources"}
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Cluster:
    """Objects by namespace, kind and name; the namespaces that exist; what was refused."""

    def __init__(self, *namespaces: str) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.namespaces = {"default", *namespaces}
        self.refused: list[str] = []

    def put(self, space: str, new: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        kind, name = new["kind"], new["metadata"]["name"]
        if kind == "Namespace":
            self.namespaces.add(name)
        elif space not in self.namespaces:
            return self._no(404, f"namespaces {space!r} not found")
        old = self.objects.get((space, kind, name))
        field = IMMUTABLE.get(kind)
        if old and field and old["spec"][field] != new["spec"][field]:
            return self._no(422, f"{kind} {name!r} is invalid: spec.{field}: field is immutable")
        text = json.dumps(new)
        metadata = {
            **new["metadata"],
            "annotations": {**new["metadata"].get("annotations", {}), APPLIED: text},
        }
        self.objects[space, kind, name] = {**new, "metadata": metadata}
        return (200 if old else 201), self.objects[space, kind, name]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [found for (_, k, _), found in self.objects.items() if k == kind]

    def _no(self, code: int, why: str) -> tuple[int, dict[str, Any]]:
        self.refused.append(why)
        return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": why, "code": code}


class Handler(BaseHTTPRequestHandler):
    cluster: Cluster
    protocol_version = "HTTP/1.1"

    def log_message(self, *said: Any) -> None:
        """Silent: what was refused is in the cluster."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        if path == "version":
            return self.answer(200, {"major": "1", "minor": "32", "gitVersion": "v1.32.0"})
        if path == "api":
            return self.answer(200, {"kind": "APIVersions", "versions": ["v1"]})
        if path == "apis":
            return self.answer(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups()})
        version = path.partition("/")[2] if path != "api/v1" else "v1"
        if version in KINDS:
            found = [resource(kind) for kind in KINDS[version]]
            return self.answer(200, {"kind": "APIResourceList", "groupVersion": version, "resources": found})
        space, kind, name = self.place()
        held = self.cluster.objects.get((space, kind, name))
        return self.answer(200, held) if held else self.answer(404, missing(kind, name))

    def do_POST(self) -> None:
        self.answer(*self.cluster.put(self.place()[0], self.body()))

    def do_PATCH(self) -> None:
        """kubectl sends the whole new object as the annotation of what was applied."""
        self.answer(
            *self.cluster.put(self.place()[0], json.loads(self.body()["metadata"]["annotations"][APPLIED]))
        )

    def do_DELETE(self) -> None:
        self.body()
        gone = self.cluster.objects.pop(self.place(), None)
        self.answer(200, gone or {}) if gone else self.answer(404, missing(*self.place()[1:]))

    def place(self) -> tuple[str, str, str]:
        words = self.path.split("?")[0].strip("/").split("/")
        words = words[2:] if words[0] == "api" else words[3:]
        space = ""
        if words[0] == "namespaces" and len(words) > 2:
            space, words = words[1], words[2:]
        return space, PLURALS.get(words[0], words[0]), words[1] if len(words) > 1 else ""

    def body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")

    def answer(self, code: int, content: Any) -> None:
        text = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def missing(kind: str, name: str) -> dict[str, Any]:
    why = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
    return {**why, "message": f"{kind} {name!r} not found"}


def groups() -> list[dict[str, Any]]:
    named = [(v.partition("/")[0], v) for v in KINDS if "/" in v]
    versions = {g: {"groupVersion": v, "version": v.rpartition("/")[2]} for g, v in named}
    return [{"name": g, "versions": [v], "preferredVersion": v} for g, v in versions.items()]


def resource(kind: str) -> dict[str, Any]:
    plural = next(p for p in reversed(PLURALS) if PLURALS[p] == kind)
    verbs = ["get", "list", "create", "patch", "delete"]
    return {
        "name": plural,
        "singularName": "",
        "kind": kind,
        "namespaced": kind != "Namespace",
        "verbs": verbs,
    }


@contextmanager
def cluster(folder: Path, *namespaces: str) -> Iterator[tuple[Cluster, dict[str, str]]]:
    """Yields the cluster, and the environment in which kubectl speaks to it."""
    state = Cluster(*namespaces)
    handler = type("Bound", (Handler,), {"cluster": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    context = {"name": "here", "context": {"cluster": "here", "user": "", "namespace": "default"}}
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "here", "contexts": [context]}
    file = folder / "kubeconfig.json"
    file.write_text(json.dumps({**config, "clusters": [{"name": "here", "cluster": {"server": address}}]}))
    try:
        yield state, {"PATH": "/usr/bin:/bin", "KUBECONFIG": str(file), "HOME": str(folder)}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
