"""Is the spec true? Its exported files are started and nothing else, and every claim is held against them.

A claim is PASS, FAIL or INCONCLUSIVE. Latency fails when its whole interval lies above the limit, and passes
when the value lies below it; the limit is the SLO or what the spec calls a regression, whichever is lower.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from servetune.deploy import exporters
from servetune.deploy.evidence.account import config_of, fingerprint, settings
from servetune.deploy.evidence.modelfiles import folder as model_folder
from servetune.deploy.exporters import reading
from servetune.deploy.spec import ServingSpec
from servetune.deploy.verify.constraints import performance
from servetune.deploy.verify.scores import accuracy
from servetune.deploy.verify.soak_run import soak
from serving.claims import Claim, Verdict, overall
from serving.engine import Command, Endpoint
from serving.errors import UserError
from serving.install import environments
from serving.launch import ready
from serving.launch.child import Child, free_port, start
from serving.wire import WireError

READY_S = 600.0


def verify(
    spec: ServingSpec, folder: Path, files: Path | None = None, soak_s: float | None = None
) -> list[Claim]:
    """Starts the exported files (`files`, or a fresh export), logs to `folder`, and checks every claim.

    soak_s: how long to go on under the promised load after that; None: not at all.
    """
    if spec.engine.name != "vllm":
        raise UserError(f"engine {spec.engine.name} has no exported files to start", "only vllm has")
    where = files or folder / "files"
    if files is None:
        made = exporters.render(reading.deployment(spec), "vllm", allow_undeployable=True)
        exporters.write(made, where)
    claims = [same_files(spec, where), same_model(spec)]
    if overall(claims) == "FAIL":
        return claims  # what would be started is not what the spec says
    begun = time.monotonic()
    with started(spec, where, folder) as (server, child):
        if server is None:
            last = child.log_text().strip().splitlines()[-1:]
            return [*claims, Claim("start", "FAIL", f"it did not become ready: {' '.join(last)}")]
        claims.append(Claim("start", "PASS", "ready from the exported files", time.monotonic() - begun))
        claims += [settings(spec, server, child.log_text()), *fingerprint(spec, server)]
        claims += performance(spec, server)
        claims += accuracy(spec, server, folder / "accuracy", child.runs)
        if soak_s:
            claims += soak(spec, server, soak_s, child.process.pid, child.runs)
        return claims


def verify_live(spec: ServingSpec, url: str, api_key_env: str | None, *, probe: bool = False) -> list[Claim]:
    """The claims that a running deployment can answer without being touched: no request but GETs.

    probe: and one request for one token, whose answer carries the server's fingerprint.
    """
    base = url.rstrip("/").removesuffix("/v1")
    server = Endpoint(base, spec.model.served_name, "vllm", spec.engine.version, api_key_env=api_key_env)
    try:
        return [settings(spec, server, ""), *(fingerprint(spec, server) if probe else [])]
    except httpx.TransportError as error:
        return [Claim("start", "FAIL", f"{base} does not answer: {error}")]
    except WireError as error:
        return [Claim("settings", "FAIL", f"{base} does not answer as vLLM does: {error}")]
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        return [
            Claim(
                "settings", "INCONCLUSIVE", f"{error.request.url.path} answers {status}: give --api-key-env"
            )
        ]


def same_files(spec: ServingSpec, where: Path) -> Claim:
    """Each file byte for byte what this spec exports: a changed flag is found even with a new manifest."""
    wanted = exporters.render(reading.deployment(spec), "vllm", allow_undeployable=True)
    present = {f.relative_to(where).as_posix(): f for f in where.rglob("*") if f.is_file()}
    wrong = [f"{path} is missing" for path in wanted if path not in present]
    for path, text in wanted.items():
        if path in present and present[path].read_bytes() != text.encode():
            wrong.append(f"{path} differs")
    verdict: Verdict = "FAIL" if wrong else "PASS"
    return Claim("files", verdict, "; ".join(wrong) or f"{len(wanted)} files as exported", float(len(wrong)))


def same_model(spec: ServingSpec) -> Claim:
    """The hashes of the model's files, where they lie here."""
    weights = model_folder(spec.model.source, spec.model.revision)
    if weights is None:
        text = f"{spec.model.source} is neither a folder nor in the hub cache here; its hashes were not read"
        return Claim("model", "INCONCLUSIVE", text)
    known = {listed.path for listed in spec.model.files}
    found = {f.relative_to(weights).as_posix() for f in weights.rglob("*") if f.is_file()}
    wrong = [f"{path} is not of the spec" for path in sorted(found - known)] if known else []
    for listed in spec.model.files:
        file = weights / listed.path
        if not file.is_file():
            wrong.append(f"{listed.path} is missing")
            continue
        with file.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != listed.sha256:
                wrong.append(f"{listed.path} differs")
    verdict: Verdict = "FAIL" if wrong else "PASS"
    return Claim(
        "model", verdict, "; ".join(wrong) or f"{len(spec.model.files)} files as hashed", float(len(wrong))
    )


@contextmanager
def started(spec: ServingSpec, where: Path, folder: Path) -> Iterator[tuple[Endpoint | None, Child]]:
    """run.sh as a child of ours, with the engine of the spec's version; None when it does not get ready."""
    environment = environments.find("vllm", spec.engine.version.partition("+")[0], spec.hardware.device)
    if environment is None or not environment.installed:
        raise UserError(f"vllm {spec.engine.version} is not installed here", "make engines")
    port, weights = free_port(), model_folder(spec.model.source, spec.model.revision)
    env = {"VLLM": str(environment.program("vllm")), "PORT": str(port)}
    if weights is not None:
        env["MODEL_DIR"] = str(weights.resolve())
    log = folder / "server"
    log.mkdir(parents=True, exist_ok=True)
    command = Command((str((where / "run.sh").resolve()),), env)
    child = start(command, log, port, {}, gpu=spec.hardware.device == "cuda")
    try:
        url, config = f"http://127.0.0.1:{port}", config_of(spec)
        deadline = time.monotonic() + max(READY_S, 3 * spec.operations.cold_start_s)
        healthy = ready.wait_healthy(url, config, deadline, child.runs)
        ok = healthy and ready.generate(url, config, spec.model.served_name, 90.0) is None
        yield Endpoint(url, spec.model.served_name, "vllm", spec.engine.version) if ok else None, child
    finally:
        child.stop()
