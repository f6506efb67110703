"""Deployments for the exporters' tests: a plain one, one on the CPU, and one made of hostile values."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from servetune.deploy.exporters.deployment import Deployment, ExportedSlo, Secret

COMMIT = "0123456789abcdef0123456789abcdef01234567"
IMAGE = "docker.io/vllm/vllm-openai:v0.32.0@sha256:" + "a1" * 32
NASTY = "x\"'`\\ $(touch /tmp/pwned) ${HOME} {{ .Values.x }} %n\n- on: 12:30\r\t#€漢字😀 </script>"

PLAIN = Deployment(
    title="qwen3-8b-fp8",
    spec_id="0a1b2c3d4e5f",
    refusals=(),
    engine="vllm",
    version="0.32.0",
    image=IMAGE,
    model="Qwen/Qwen3-8B",
    revision=COMMIT,
    files=(("config.json", "ab" * 32), ("model-00001-of-00001.safetensors", "cd" * 32)),
    served_model="Qwen/Qwen3-8B",
    flags={
        "quantization": "fp8",
        "max-model-len": 8192,
        "max-num-seqs": 96,
        "max-num-batched-tokens": 4096,
        "gpu-memory-utilization": 0.9,
        "enable-prefix-caching": False,
        "enable-chunked-prefill": True,
    },
    device="cuda",
    weights_bytes=16 * 2**30,
    cold_start_s=93.2,
    slos=(
        ExportedSlo("ttft", 99, 0.3, 0.21, 0.23),
        ExportedSlo("tpot", 95, 0.03, 0.018, 0.019),
        ExportedSlo("e2e", 50, 4.0, 2.1, 2.2),
        ExportedSlo("e2e", 99.9, 12.0),
    ),
    safe_rate=6.25,
    gpus=1,
    gpu_product="NVIDIA H200",
    max_model_len=8192,
    max_num_seqs=96,
    replicas=4,
    concurrency=41.0,
    queue_at_knee=3.5,
    kv_peak=0.71,
    cache_labels={"cache_dtype": "auto", "enable_prefix_caching": "False"},
    worst_request_s=52.0,
    scores=(("facts", 0.71, 0.66, 0.76),),
    env={"VLLM_MAX_N_SEQUENCES": "8"},
    secrets=(Secret("VLLM_API_KEY", "inference-keys", "api-key"), Secret("HF_TOKEN", "hub", "token")),
)

CPU = replace(
    PLAIN,
    title="smollm2-135m",
    model=".models/smollm2-135m-instruct",
    served_model="smollm2-135m-instruct",
    revision=None,
    flags={"kv-cache-memory-bytes": 2**30, "max-model-len": 512, "max-num-seqs": 8, "enforce-eager": True},
    device="cpu",
    weights_bytes=269_000_000,
    gpus=0,
    gpu_product=None,
    replicas=1,
    max_model_len=512,
    max_num_seqs=8,
    cache_labels={},
)

HOSTILE = replace(
    PLAIN,
    title=NASTY * 20,
    spec_id=NASTY,
    refusals=(f"unpinned {NASTY}",),
    version=NASTY,
    image=None,
    model=NASTY,
    revision=None,
    served_model=NASTY,
    flags={**PLAIN.flags, "tokenizer": NASTY, "speculative-config": {"model": NASTY, "on": "no"}},
    gpu_product=NASTY,
    env={"CUSTOM": NASTY, "YES": "on", "TIME": "12:30", "OCTAL": "08", "EXP": "1e3"},
    cache_labels={"cache_dtype": NASTY},
)

UNMEASURED = replace(
    PLAIN, slos=(), safe_rate=None, concurrency=None, queue_at_knee=None, kv_peak=None, cache_labels={}
)

ALL = {"plain": PLAIN, "cpu": CPU, "hostile": HOSTILE, "unmeasured": UNMEASURED}


def tool(name: str) -> str:
    """Path of a validator (also from SERVETUNE_TOOLS, a folder); skips with the reason when it is not there."""
    places = os.environ.get("SERVETUNE_TOOLS", "") + os.pathsep + os.environ.get("PATH", "")
    found = shutil.which(name, path=places)
    if found is None:
        pytest.skip(f"not checked: {name} is not installed (Debian packages: prometheus, systemd)")
    return found


CRDS = Path(__file__).parents[3] / "shared" / "data" / "crds"
