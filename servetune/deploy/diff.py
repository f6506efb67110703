"""`servetune diff A B`: what changes between two specs, or a spec and a running server, and what it risks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from servetune.deploy.evidence.account import NOT_HELD, differs, said_of
from servetune.deploy.spec import ServingSpec
from serving import masking
from serving.config import ROLES, SETTINGS

Risk = Literal["api", "quality", "security", "capacity", "restart", "record"]

RISKS: dict[Risk, str] = {
    "api": "clients see it",
    "quality": "answers may differ: evaluate again",
    "security": "who may reach it, or what code runs",
    "capacity": "latency, rate or memory differ: measure again",
    "restart": "takes a restart, nothing else is known to change",
    "record": "says something else, runs the same",
}
"""Class -> meaning, gravest first."""

BY_NAME: dict[str, Risk] = {
    "model.served_name": "api",
    "model.source": "quality",
    "model.revision": "quality",
    "model.files": "quality",
    "engine.name": "quality",
    "engine.version": "quality",
    "engine.plugins": "security",
    "engine.image": "security",
    "operations.secrets": "security",
    "hardware.device": "capacity",
    "hardware.gpu": "capacity",
    "hardware.gpus": "capacity",
    "capacity.replicas": "capacity",
    **dict.fromkeys(
        (f"parameters.{name}" for name in SETTINGS if ROLES[name].output == "differs"), "quality"
    ),
    **dict.fromkeys((f"parameters.{name}" for name in SETTINGS if ROLES[name].api), "api"),
}
BY_PART: dict[str, Risk] = {"parameters": "capacity", "native": "capacity", "env": "restart"}


@dataclass(frozen=True)
class Change:
    """One neutral name with its value before and after; None: not there."""

    name: str
    before: object
    after: object
    risk: Risk


def changes(a: ServingSpec, b: ServingSpec) -> list[Change]:
    """Every difference but ids, gravest first. Parameters that were only resolved by the engine are facts
    about the server, not settings, and are compared as `effective`."""
    before, after = _flat(a), _flat(b)
    found = [
        Change(name, _shown(name, before.get(name)), _shown(name, after.get(name)), risk(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    order = list(RISKS)
    return sorted(found, key=lambda c: (order.index(c.risk), c.name))


def _shown(name: str, value: object) -> object:
    """A spec holds no secret; one that was written by hand may."""
    part, _, own = name.partition(".")
    return masking.shown(own if part in ("env", "native") else "", value)


def risk(name: str) -> Risk:
    return BY_NAME.get(name) or BY_PART.get(name.partition(".")[0], "record")


def _flat(spec: ServingSpec) -> dict[str, Any]:
    body = spec.model_dump(mode="json")
    found: dict[str, Any] = {
        f"parameters.{n}": p.value for n, p in spec.parameters.items() if p.provenance != "resolved"
    }
    for part in (
        "model",
        "engine",
        "hardware",
        "native",
        "env",
        "effective",
        "capacity",
        "operations",
        "workload",
        "rollback",
    ):
        found |= {f"{part}.{name}": value for name, value in body[part].items()}
    found["model.files"] = {f.path: f.sha256 for f in spec.model.files}
    found |= {f"slos.{s.metric}_p{s.percentile:g}_ms": s.limit_ms for s in spec.slos}
    return {name: value for name, value in found.items() if value is not None}


def live_changes(spec: ServingSpec, url: str, api_key_env: str | None = None) -> list[Change]:
    """What a running server says of itself, where it differs from the spec; it is only read.

    Compared is what both name: a setting that the server does not report cannot differ. httpx.HTTPError when
    it does not answer, WireError when it answers otherwise than vLLM.
    """

    base = url.rstrip("/").removesuffix("/v1")
    names, said = said_of(spec, base, api_key_env)
    asked = {n: p.value for n, p in spec.parameters.items() if p.provenance in ("tuned", "fixed")}
    known = {**asked, **spec.effective}
    found: list[tuple[str, object, object]] = []
    if spec.model.served_name not in names:
        found.append(("model.served_name", spec.model.served_name, ", ".join(names)))
    version = str(said.get("version", "")).partition("+")[0]
    if version != spec.engine.version.partition("+")[0]:
        found.append(("engine.version", spec.engine.version, version or None))
    for name in sorted((known.keys() & said.keys()) - NOT_HELD):
        if differs(name, known[name], said[name]):
            found.append((f"parameters.{name}", known[name], said[name]))
    changed = [Change(name, before, after, risk(name)) for name, before, after in found]
    return sorted(changed, key=lambda c: (list(RISKS).index(c.risk), c.name))
