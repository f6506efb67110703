"""Is the spec true? Its exported files are started and nothing else, and every claim is held against them.

A claim is PASS, FAIL or INCONCLUSIVE. Latency fails when its whole interval lies above the limit, and passes
when the value lies below it; the limit is the SLO or what the spec calls a regression, whichever is lower.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import httpx

from bench.grid import Load
from serving import environments, exporters, ready
from serving.child import Child, free_port, start
from serving.config import ServingConfig
from serving.engine import Command, Endpoint
from serving.engines.vllm import Vllm
from serving.errors import UserError
from serving.exporters import reading
from serving.exporters.deployment import Slo
from serving.spec import ServingSpec

Outcome = Literal["pass", "fail", "inconclusive"]
NOT_HELD = frozenset({"version", "seed", "load_format"})
"""Of the server's account: compared elsewhere (version), without effect, or written by the export itself."""

OUR_NAMES = {"ttft": "ttft", "tpot": "tpot", "e2e": "e2e", "itl": "icl"}
READY_S = 600.0


@dataclass(frozen=True)
class Claim:
    """One statement of the spec and what became of it. Latencies in milliseconds."""

    name: str
    verdict: Outcome
    text: str
    effect: float | None = None
    interval: tuple[float, float] | None = None
    threshold: float | None = None


def overall(claims: list[Claim]) -> Outcome:
    """FAIL if one fails, else INCONCLUSIVE if one is, else PASS; nothing claimed is inconclusive."""
    found = {claim.verdict for claim in claims}
    return "fail" if "fail" in found else "pass" if found == {"pass"} else "inconclusive"


def verify(spec: ServingSpec, folder: Path, files: Path | None = None) -> list[Claim]:
    """Starts the exported files (`files`, or a fresh export), logs to `folder`, and checks every claim."""
    if spec.engine.name != "vllm":
        raise UserError(f"engine {spec.engine.name} has no exported files to start", "only vllm has")
    where = files or folder / "files"
    if files is None:
        made = exporters.render(reading.deployment(spec), "vllm", allow_undeployable=True)
        exporters.write(made, where)
    claims = [same_files(spec, where), same_model(spec)]
    if overall(claims) == "fail":
        return claims  # what would be started is not what the spec says
    begun = time.monotonic()
    with started(spec, where, folder) as (server, child):
        if server is None:
            last = child.log_text().strip().splitlines()[-1:]
            return [*claims, Claim("start", "fail", f"it did not become ready: {' '.join(last)}")]
        claims.append(Claim("start", "pass", "ready from the exported files", time.monotonic() - begun))
        return [*claims, settings(spec, server, child.log_text()), *performance(spec, server)]


def verify_live(spec: ServingSpec, url: str, api_key_env: str | None) -> list[Claim]:
    """The claims that a running deployment can answer without being touched: no request but GETs."""
    base = url.rstrip("/").removesuffix("/v1")
    server = Endpoint(base, spec.model.served_name, "vllm", spec.engine.version, api_key_env=api_key_env)
    try:
        return [settings(spec, server, "")]
    except httpx.TransportError as error:
        return [Claim("start", "fail", f"{base} does not answer: {error}")]
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        return [
            Claim(
                "settings", "inconclusive", f"{error.request.url.path} answers {status}: give --api-key-env"
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
    verdict: Outcome = "fail" if wrong else "pass"
    return Claim("files", verdict, "; ".join(wrong) or f"{len(wanted)} files as exported", float(len(wrong)))


def same_model(spec: ServingSpec) -> Claim:
    """The hashes of the model's files, where they lie in a folder here."""
    weights = Path(spec.model.source).expanduser()
    if not weights.is_dir():
        return Claim(
            "model", "inconclusive", f"{spec.model.source} is no folder here; its hashes were not read"
        )
    wrong = []
    for listed in spec.model.files:
        file = weights / listed.path
        if not file.is_file():
            wrong.append(f"{listed.path} is missing")
            continue
        with file.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != listed.sha256:
                wrong.append(f"{listed.path} differs")
    verdict: Outcome = "fail" if wrong else "pass"
    return Claim(
        "model", verdict, "; ".join(wrong) or f"{len(spec.model.files)} files as hashed", float(len(wrong))
    )


@contextmanager
def started(spec: ServingSpec, where: Path, folder: Path) -> Iterator[tuple[Endpoint | None, Child]]:
    """run.sh as a child of ours, with the engine of the spec's version; None when it does not get ready."""
    environment = environments.find("vllm", spec.engine.version.partition("+")[0], spec.hardware.device)
    if environment is None or not environment.installed:
        raise UserError(f"vllm {spec.engine.version} is not installed here", "make engines")
    port, weights = free_port(), Path(spec.model.source).expanduser()
    env = {"VLLM": str(environment.program("vllm")), "PORT": str(port)}
    if weights.is_dir():
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


def settings(spec: ServingSpec, server: Endpoint, log: str) -> Claim:
    """The server's own account against the one that was measured, setting by setting."""
    config = config_of(spec, server.api_key_env)
    with ready.client(server.url, config, 30.0) as http:
        names = [m["id"] for m in http.get("/v1/models").raise_for_status().json()["data"]]
    said = Vllm().effective(server.url, config, log)
    wrong = (
        []
        if spec.model.served_name in names
        else [f"serves {', '.join(names)}, not {spec.model.served_name}"]
    )
    version = str(said.get("version", "")).partition("+")[0]
    if version != spec.engine.version.partition("+")[0]:
        wrong.append(f"version: measured {spec.engine.version}, runs {version}")
    held = sorted(set(spec.effective) & set(said) - NOT_HELD)
    wrong += [
        f"{n}: measured {spec.effective[n]}, runs {said[n]}" for n in held if spec.effective[n] != said[n]
    ]
    verdict: Outcome = "fail" if wrong else "pass" if held else "inconclusive"
    text = "; ".join(wrong) or f"0 differences in {len(held)} settings: {', '.join(held)}"
    return Claim("settings", verdict, text, float(len(wrong)))


def performance(spec: ServingSpec, server: Endpoint) -> list[Claim]:
    """The measured load once more, and each latency that the spec promises."""
    from bench.intervals import intervals
    from bench.load.running import measure
    from bench.metrics import compute
    from bench.prompts import prompts

    point = loaded(spec)
    if point is None or not spec.slos:
        return [Claim("performance", "inconclusive", "the spec has no evidence whose load can be repeated")]
    weights = Path(spec.model.source).expanduser()
    tokenizer = str(weights) if (weights / "tokenizer.json").is_file() else None
    run, judgement = measure(server, point, prompts(tokenizer), (), seed=1)
    found, known = compute(run), intervals(run)
    claims = []
    for fact, slo in zip(spec.slos, reading.deployment(spec).slos, strict=True):
        name = f"{OUR_NAMES[fact.metric]}_p{fact.percentile:g}_ms"
        interval = known.get(name)
        low_high = (float(interval.low), float(interval.high)) if interval else None
        claims.append(judged(name, slo, found.get(name), low_high, judgement.verdict != "invalid"))
    return claims


def judged(
    name: str, slo: Slo, value: float | None, interval: tuple[float, float] | None, believed: bool
) -> Claim:
    """One latency in milliseconds against the lower of its SLO and its regression limit."""
    limit = 1000 * min(slo.limit_s, slo.regression_s or slo.limit_s)
    if value is None or not believed:
        why = "too few samples" if value is None else "this measurement is invalid"
        return Claim(name, "inconclusive", why, value, interval, limit)
    low = interval[0] if interval else value
    verdict: Outcome = "pass" if value <= limit else "fail" if low > limit else "inconclusive"
    return Claim(name, verdict, f"{value:.4g} ms, at most {limit:.4g} ms", value, interval, limit)


def loaded(spec: ServingSpec) -> Load | None:
    """The load of the evidence that the promises are from: the highest rate that held."""
    held = [e for e in spec.evidence if e.get("verdict") == "ok" and e.get("slo") == "met" and "load" in e]
    if not held:
        return None
    load: Mapping[str, Any] = max(held, key=lambda e: (e["load"].get("rate_per_s", 0.0), str(e.get("key"))))[
        "load"
    ]
    names = {field.name for field in fields(Load)}
    return Load(**load) if set(load) <= names and load.get("arrivals") != "trace" else None


def config_of(spec: ServingSpec, api_key_env: str | None = None) -> ServingConfig:
    """What `Vllm.effective` needs to read the server's words: where, and which method was asked for."""
    method = spec.parameters.get("quantization")
    return ServingConfig(
        engine="vllm",
        device=spec.hardware.device,
        model=spec.model.source,
        quantization=str(method.value) if method else "none",
        api_key_env=api_key_env,
    )
