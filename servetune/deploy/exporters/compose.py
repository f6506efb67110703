"""Target `compose`: one host with docker compose. The key is a file that the container reads."""

from __future__ import annotations

from typing import Any

from servetune.deploy.exporters.deployment import Deployment
from servetune.deploy.exporters.pod import ACCOUNT, CACHE, USER, image
from servetune.deploy.exporters.vllm import run_script, serve
from servetune.deploy.quoting import compose_text, mebibytes, yaml_text

API_KEY = "VLLM_API_KEY"
CACHE_VOLUME = {"type": "volume", "source": "cache", "target": CACHE}


def files(deployment: Deployment) -> dict[str, str]:
    return {
        "compose.yaml": yaml_text(compose(deployment)),
        "serve.yaml": yaml_text(serve(deployment)),
        "run.sh": run_script(deployment),
    }


def compose(deployment: Deployment) -> dict[str, Any]:
    """Weights come from ./model beside the file, read-only; the server listens on this host's loopback."""
    others = {
        s.env: f"${{{s.env}:?set {s.env}}}" for s in deployment.secrets if s.env not in (API_KEY, "HF_TOKEN")
    }
    limits = {"memory": mebibytes(deployment.memory_bytes)[:-2] + "m"}
    resources: dict[str, Any] = {"limits": limits}
    if deployment.gpus:
        device = {"driver": "nvidia", "count": deployment.gpus, "capabilities": ["gpu"]}
        resources["reservations"] = {"devices": [device]}
    fixed = {"MODEL_DIR": "/model", "HOST": "0.0.0.0", "API_KEY_FILE": "/run/secrets/api-key"}  # noqa: S104
    health = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=3)"
    server = {
        "image": compose_text(image(deployment)),
        "entrypoint": ["/bin/sh", "/etc/serve/run.sh"],
        "command": [],
        "environment": {**ACCOUNT, **fixed, **others},
        "configs": [
            {"source": "serve", "target": "/etc/serve/serve.yaml"},
            {"source": "run", "target": "/etc/serve/run.sh", "mode": 0o555},
        ],
        "secrets": ["api-key"],
        "ports": ["127.0.0.1:8000:8000"],
        "volumes": [
            {"type": "bind", "source": "./model", "target": "/model", "read_only": True},
            CACHE_VOLUME,
        ],
        "depends_on": {"cache": {"condition": "service_completed_successfully"}},
        "user": f"{USER}:{USER}",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "shm_size": mebibytes(deployment.shm_bytes)[:-2] + "m",
        "ulimits": {"memlock": -1},
        "restart": "on-failure",
        "stop_grace_period": f"{deployment.grace_s}s",
        "healthcheck": {
            "test": ["CMD", "python3", "-c", health],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": f"{deployment.startup_budget_s}s",
        },
        "deploy": {"resources": resources},
    }
    return {
        "name": deployment.name,
        "services": {"vllm": server, "cache": _cache_owner(deployment)},
        "configs": {"serve": {"file": "./serve.yaml"}, "run": {"file": "./run.sh"}},
        "secrets": {"api-key": {"file": "./api-key"}},
        "volumes": {"cache": {}},
    }


def _cache_owner(deployment: Deployment) -> dict[str, Any]:
    """Gives the cache to the server's user once: a new volume belongs to root where the image has no such
    folder, and then the server can write nowhere."""
    return {
        "image": compose_text(image(deployment)),
        "entrypoint": ["chown", f"{USER}:{USER}", CACHE],
        "command": [],
        "user": "0:0",
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "cap_add": ["CHOWN"],
        "security_opt": ["no-new-privileges:true"],
        "volumes": [CACHE_VOLUME],
        "restart": "no",
    }
