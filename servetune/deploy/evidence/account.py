"""The server's own account of what it runs, held against that of the server that was measured."""

from __future__ import annotations

import re

from servetune.deploy.spec import ServingSpec
from serving import wire
from serving.claims import Claim, Verdict
from serving.config import ServingConfig
from serving.engine import Endpoint
from serving.engines.vllm import Vllm
from serving.launch import ready

FINGERPRINT = "system_fingerprint"
OF_MEMORY, ROOM = frozenset({"num_gpu_blocks", "kv_cache_tokens"}), 0.05
NOT_HELD = frozenset({"version", "seed", "load_format", FINGERPRINT})
"""Of the server's account: compared elsewhere (version), without effect, or written by the export itself."""


def settings(spec: ServingSpec, server: Endpoint, log: str) -> Claim:
    """The server's own account against the one that was measured, setting by setting."""
    names, said = said_of(spec, server.url, server.api_key_env, log)
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
        f"{n}: measured {spec.effective[n]}, runs {said[n]}"
        for n in held
        if differs(n, spec.effective[n], said[n])
    ]
    verdict: Verdict = "FAIL" if wrong else "PASS" if held else "INCONCLUSIVE"
    text = "; ".join(wrong) or f"0 differences in {len(held)} settings: {', '.join(held)}"
    return Claim("settings", verdict, text, float(len(wrong)))


def differs(name: str, measured: object, runs: object) -> bool:
    """Whether a setting is another one; what depends on the memory that was free may differ by ROOM."""
    if name in OF_MEMORY and isinstance(measured, int) and isinstance(runs, int) and measured > 0:
        return abs(runs / measured - 1) > ROOM
    return measured != runs


def said_of(
    spec: ServingSpec, url: str, api_key_env: str | None, log: str = ""
) -> tuple[list[str], dict[str, object]]:
    """Names of the models it serves, and its settings by neutral names. Only GETs are sent."""
    config = config_of(spec, api_key_env)
    with ready.client(url, config, 30.0) as http:
        names = wire.model_names(wire.said(http, "/v1/models"))
    return names, Vllm().effective(url, config, log)


def fingerprint(spec: ServingSpec, server: Endpoint) -> list[Claim]:
    """`system_fingerprint` of one short answer against that of the verified start.

    Without one in the spec the claim says what the server sends, for `verify -o` to keep.

    vllm-VERSION[-parallelism]-HASH. The hash covers settings and also the model's path, so that another
    hash alone is no proof of another server.
    """
    wanted, said = spec.effective.get(FINGERPRINT), asked_fingerprint(spec, server)
    if said is not None and wanted in (None, said):
        return [Claim("fingerprint", "PASS", said)]
    if wanted is None:
        return []
    if said is None:
        return [Claim("fingerprint", "INCONCLUSIVE", f"verified {wanted}, the server sends none")]
    text = f"verified {wanted}, runs {said}"
    if said.rpartition("-")[0] != str(wanted).rpartition("-")[0]:
        return [Claim("fingerprint", "FAIL", text)]
    return [Claim("fingerprint", "INCONCLUSIVE", f"{text}: a setting differs, or only the model's path")]


def asked_fingerprint(spec: ServingSpec, server: Endpoint) -> str | None:
    """What the server writes into an answer of one token; None: it writes none."""
    body = {"model": spec.model.served_name, "prompt": "a", "max_tokens": 1, "temperature": 0.0}
    with ready.client(server.url, config_of(spec, server.api_key_env), 60.0) as http:
        answer = wire.loads(http.post("/v1/completions", json=body).raise_for_status().content)
    said = answer.get(FINGERPRINT) if isinstance(answer, dict) else None
    return said if isinstance(said, str) and re.fullmatch(r"[\w.+-]{1,200}", said) else None


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
