"""Target `vllm`: the one engine configuration, a script that starts it anywhere, and a systemd unit.

`serve.yaml` is the same file in every other target, so one hash proves that they run the same server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from servetune.deploy.exporters.deployment import Deployment
from servetune.deploy.quoting import one_line, shell, yaml_text
from serving.sim.metrics import ITL_BUCKETS, LATENCY_BUCKETS, TTFT_BUCKETS

OWN_LOADERS = frozenset({"bitsandbytes", "gguf"})
"""Quantizations whose weights are read by a loader of their own."""

HARDENED = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
FAMILIES = {
    "ttft": ("time_to_first_token", TTFT_BUCKETS),
    "itl": ("inter_token_latency", ITL_BUCKETS),
    "tpot": ("inter_token_latency", ITL_BUCKETS),
    "e2e": ("request_latency", LATENCY_BUCKETS),
}
"""Latency -> bucket family and its default bounds: the same in vLLM 0.20.2, 0.24.0, 0.28.0
(`v1/metrics/loggers.py`), 0.31.0 and 0.32.0 (`v1/metrics/buckets.py`)."""

BUCKETS_SINCE = (0, 32)


def files(deployment: Deployment) -> dict[str, str]:
    return {
        "serve.yaml": yaml_text(serve(deployment)),
        "run.sh": run_script(deployment),
        f"{deployment.name}.service": unit(deployment),
        "model.sha256": model_sums(deployment),
    }


def serve(deployment: Deployment) -> dict[str, object]:
    """The content of serve.yaml, for `vllm serve --config`.

    `x: false` is written `no-x: true`: vLLM 0.32 looks for the --no- form among the flags of its outer
    parser, where no flag of `serve` is, and drops the line without a word.
    """
    asked = settings(deployment)
    return {f"no-{k}" if v is False else k: True if v is False else v for k, v in asked.items()}


def settings(deployment: Deployment) -> dict[str, object]:
    """Every flag of the server by its long name. Host, port and key come from the start."""
    quantization = deployment.flags.get("quantization")
    base: dict[str, object] = {
        "model": deployment.model,
        "revision": deployment.revision,
        "served-model-name": deployment.served_model,
        "load-format": None if quantization in OWN_LOADERS else "safetensors",
    }
    own = {
        "shutdown-timeout": deployment.drain_s,
        "disable-fastapi-docs": True,
        "custom-histogram-buckets": buckets(deployment) or None,
    }
    found = {**base, **deployment.flags, **own}
    return {name: value for name, value in found.items() if value is not None}


def buckets(deployment: Deployment) -> dict[str, list[float]]:
    """Default bounds with every SLO limit and regression limit among them, for a limit between two bounds
    can only be guessed at. Empty for versions without the flag, where `histogram.count` decides."""
    if _version(deployment.version) < BUCKETS_SINCE:
        return {}
    found: dict[str, set[float]] = {}
    for slo in deployment.slos:
        family, default = FAMILIES[slo.metric]
        limits = [float(slo.limit_s)] + ([round(slo.regression_s, 6)] if slo.regression_s else [])
        found.setdefault(family, set(default)).update(limits)
    return {family: sorted(bounds) for family, bounds in sorted(found.items())}


def environment(deployment: Deployment) -> dict[str, str]:
    """Environment of the server, without secrets. Weights are local when it starts, so no hub is asked."""
    return {**HARDENED, "HF_HUB_OFFLINE": "1", **deployment.env}


def run_script(deployment: Deployment) -> str:
    """Starts the server from serve.yaml beside it. MODEL_DIR, HOST, PORT, VLLM say where things are here."""
    exports = "".join(f"export {name}={shell(value)}\n" for name, value in environment(deployment).items())
    return f"""#!/bin/sh
# Starts vllm {one_line(deployment.version)} from serve.yaml, in a container or on a host.
#   VLLM          the program (default: vllm)
#   MODEL_DIR     folder of the weights, when not the model named there
#   HOST PORT     where it listens (default: 127.0.0.1 8000)
#   API_KEY_FILE  file with the key that clients must send
# Further arguments go to vllm and win over serve.yaml.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# A uid without a passwd entry has no other name, and torch asks for one while it is imported.
USER="${{USER:-$(id -un 2>/dev/null || true)}}"
export USER="${{USER:-vllm}}" LOGNAME="${{LOGNAME:-${{USER:-vllm}}}}"
{exports}if [ -n "${{CREDENTIALS_DIRECTORY:-}}" ] && [ -r "$CREDENTIALS_DIRECTORY/api-key" ]; then
    API_KEY_FILE=$CREDENTIALS_DIRECTORY/api-key
fi
if [ -n "${{API_KEY_FILE:-}}" ]; then
    VLLM_API_KEY=$(cat "$API_KEY_FILE")
    [ -n "$VLLM_API_KEY" ] || {{ echo "run.sh: $API_KEY_FILE is empty" >&2; exit 2; }}
    export VLLM_API_KEY
fi
if [ -n "${{MODEL_DIR:-}}" ]; then
    [ -f "$MODEL_DIR/config.json" ] || {{ echo "run.sh: no config.json in $MODEL_DIR" >&2; exit 2; }}
    set -- "$MODEL_DIR" "$@"
else
    set -- {shell(deployment.model)} "$@"{_online(deployment)}
fi
exec "${{VLLM:-vllm}}" serve "$@" --config "$here/serve.yaml" \\
    --host "${{HOST:-127.0.0.1}}" --port "${{PORT:-8000}}"
"""


def unit(deployment: Deployment) -> str:
    """systemd unit for a GPU box. Every value in it is a number or a DNS label."""
    name = deployment.name
    home = f"/opt/servetune/{name}"
    gpu = (
        "DeviceAllow=char-nvidia rw\nDeviceAllow=char-nvidia-uvm rw\n" if deployment.device == "cuda" else ""
    )
    return f"""[Unit]
Description=vLLM {name}
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec={3 * deployment.startup_budget_s}
StartLimitBurst=3

[Service]
Type=exec
ExecStart={home}/run.sh
Environment=VLLM={home}/venv/bin/vllm
Environment=MODEL_DIR={home}/model
Environment=HOME=%S/{name} XDG_CACHE_HOME=%C/{name}
LoadCredential=api-key:/etc/servetune/{name}/api-key
DynamicUser=yes
StateDirectory={name}
CacheDirectory={name}
WorkingDirectory=%S/{name}
Restart=on-failure
RestartSec=10
TimeoutStartSec={deployment.startup_budget_s}
TimeoutStopSec={deployment.grace_s}
KillMode=mixed
LimitMEMLOCK=infinity
LimitNOFILE=65536
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
LockPersonality=yes
CapabilityBoundingSet=
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
{gpu}
[Install]
WantedBy=multi-user.target
"""


def model_sums(deployment: Deployment) -> str:
    """Hashes of the model's files as `sha256sum -c` reads them; a name it would misread is refused."""
    for path, _ in deployment.files:
        if "\n" in path or "\\" in path or path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"model file name {path!r} cannot be listed")
    return "".join(f"{sha256}  {path}\n" for path, sha256 in deployment.files)


def _online(deployment: Deployment) -> str:
    """Without MODEL_DIR a hub model is fetched, at the commit that serve.yaml names."""
    return "\n    unset HF_HUB_OFFLINE" if deployment.is_hub_model else ""


def _version(text: str) -> tuple[int, ...]:
    numbers = text.split("+")[0].split(".")
    return tuple(int(n) for n in numbers if n.isdigit())


def arguments(settings: Mapping[str, object]) -> list[str]:
    """Settings as arguments, in the way `vllm serve --config` turns its file into them."""
    found: list[str] = []
    for name, value in settings.items():
        if isinstance(value, bool):
            found.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, Mapping):
            found += [f"--{name}", json.dumps(value)]
        elif isinstance(value, (list, tuple)):
            found += [f"--{name}", *map(str, value)]
        else:
            found += [f"--{name}", str(value)]
    return found
