"""The way back: what a deployment of one target is replaced by when it has to go, as commands and files.

The earlier spec, or the measured fallback, is rendered by the same exporter into a folder of its own, so that
going back is starting files that were verified once, not editing those that failed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from servetune.deploy.exporters import delivery, render, rendered
from servetune.deploy.exporters.deployment import Deployment
from servetune.deploy.exporters.placed import namespace
from servetune.deploy.quoting import one_line

WEIGHTS_WAIT_S = 3600
"""How long filling the model volume may take before somebody has to look."""

ROLLBACK, FALLBACK, RUNBOOK = "rollback", "fallback", "ROLLBACK.md"


def _vllm(now: Deployment, then: Deployment, folder: str) -> list[str]:
    home = f"/opt/servetune/{then.name}"
    return [
        f"(cd {folder} && sha256sum -c --strict MANIFEST.sha256)",
        f"install -D -t {home} {folder}/serve.yaml {folder}/run.sh {folder}/model.sha256",
        f"(cd {home}/model && sha256sum -c --quiet ../model.sha256)",
        f"cp {folder}/{then.name}.service /etc/systemd/system/",
        "systemctl daemon-reload",
        f"systemctl stop {now.name}.service",
        f"systemctl start {then.name}.service",
    ]


def _compose(now: Deployment, then: Deployment, folder: str) -> list[str]:
    return ["docker compose down", f"(cd {folder} && docker compose up --detach --wait)"]


def _kubernetes(now: Deployment, then: Deployment, folder: str) -> list[str]:
    """Same name: the old objects replace the new. Another name: both stand until the old is ready."""
    space = f"--namespace {namespace(then)}"
    watched = f"deployment/{then.name} {space}"
    apply = [
        f"kubectl apply -k {folder}/overlays/production",
        f"kubectl rollout status {watched} --timeout {_wait_s(then)}s",
    ]
    if now.name != then.name:
        return [*apply, "kubectl delete -k overlays/production"]
    # A Job cannot be changed: its template names the image and the hashes of its spec.
    return [f"kubectl delete job {then.name}-model {space} --ignore-not-found", *apply]


def _helm(now: Deployment, then: Deployment, folder: str) -> list[str]:
    chart = "vllm/vllm-stack --version 0.1.12"
    return [
        f"helm upgrade {then.name} {chart} --values {folder}/values.yaml --wait --timeout {_wait_s(then)}s"
    ]


def _apply(file: str) -> Callable[[Deployment, Deployment, str], list[str]]:
    def commands(now: Deployment, then: Deployment, folder: str) -> list[str]:
        gone = [] if now.name == then.name else [f"kubectl delete -f {file}"]
        return [f"kubectl apply -f {folder}/{file}", *gone]

    return commands


def _delivery(now: Deployment, then: Deployment, folder: str) -> list[str]:
    """An aborted canary is back at once; a promoted one takes the earlier objects, engine settings among
    them. Other weights come first, in the volume that both share."""
    space, job = f"--namespace {namespace(then)}", f"{then.name}-model"
    weights = [
        f"kubectl delete job {job} {space} --ignore-not-found",
        f"kubectl apply -f {folder}/model/",
        f"kubectl wait --for condition=complete job/{job} {space} --timeout {WEIGHTS_WAIT_S}s",
    ]
    shared = now.name == then.name and now.files != then.files
    return [
        f"kubectl argo rollouts abort {now.name} --namespace {namespace(now)}",
        *(weights if shared else []),
        f"kubectl apply -f {folder}/",
        f"kubectl argo rollouts promote {then.name} --full {space}",
        f"kubectl argo rollouts status {then.name} {space} --timeout {_wait_s(then)}s",
    ]


COMMANDS: dict[str, Callable[[Deployment, Deployment, str], list[str]]] = {
    "vllm": _vllm,
    "compose": _compose,
    "kubernetes": _kubernetes,
    "production-stack": _helm,
    "kserve": _apply("llminferenceservice.yaml"),
    "ray": _apply("rayservice.yaml"),
    "delivery": _delivery,
}
"""Target -> the commands that bring the files in a folder into the place of what runs."""


def files(
    now: Deployment, target: str, earlier: Deployment | None, fallback: Deployment | None
) -> dict[str, str]:
    """ROLLBACK.md and the folders it speaks of, to stand beside the files of `now`. Targets that run nothing
    have none."""

    if target not in COMMANDS:
        return {}
    found: dict[str, str] = {}
    for folder, other in ((ROLLBACK, earlier), (FALLBACK, fallback)):
        if other is not None:
            if target == "delivery":
                parts = partial(delivery.whole, beside=other.name != now.name)
                made = rendered(other, parts, allow_undeployable=True)
            else:
                made = render(other, target, allow_undeployable=True)
            found |= {f"{folder}/{path}": text for path, text in made.items()}
    return {RUNBOOK: runbook(now, target, earlier, fallback), **found}


def runbook(now: Deployment, target: str, earlier: Deployment | None, fallback: Deployment | None) -> str:
    lines = [f"# The way back from {now.name}, spec {one_line(now.spec_id)}", ""]
    if earlier is None:
        lines += [
            "Nothing ran before, so there is nothing to go back to: stop it and take its route away. The",
            "spec that replaces this one names it (`servetune spec STUDY --replaces THIS.yaml`) and is",
            "exported with `--rollback THIS.yaml`.",
            "",
        ]
    for folder, other, title in (
        (ROLLBACK, earlier, "Back to what ran before"),
        (FALLBACK, fallback, "On to the measured fallback, when what ran before cannot serve either"),
    ):
        if other is not None:
            lines += [f"## {title}: {other.name}, spec {one_line(other.spec_id)}", ""]
            lines += [f"NOT DEPLOYABLE: {one_line(why)}" for why in other.refusals]
            lines += ["```", *COMMANDS[target](now, other, folder), "```", ""]
            rate = f"{other.safe_rate:.4g} requests/s a replica" if other.safe_rate else "a rate not measured"
            lines += [f"It holds {rate}; allow {_wait_s(other)} s for its start.", ""]
    return "\n".join(lines)


def _wait_s(deployment: Deployment) -> int:
    return deployment.startup_budget_s + deployment.grace_s
