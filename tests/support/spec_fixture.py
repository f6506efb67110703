"""Serving specs: the golden one with some parts changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from servetune.deploy.deployable import with_id
from servetune.deploy.spec import ServingSpec
from tests.support.sim_process import MODEL

GOLDEN = Path(__file__).parents[1] / "golden" / "spec.yaml"

LOAD = {"workload": "chat", "input_tokens": 32, "output_tokens": 16, "arrivals": "constant", "rate_per_s": 8.0,
        "duration_s": 8.0, "warmup_requests": 1}  # fmt: skip


def spec_of(*whole: str, **parts: Any) -> ServingSpec:
    """The golden spec with `parts` laid over its own; those named in `whole` take their place."""
    body = yaml.safe_load(GOLDEN.read_text())
    for name, value in parts.items():
        merged = isinstance(value, dict) and name not in whole
        body[name] = {**body.get(name, {}), **value} if merged else value
    body["metadata"]["id"] = ""
    return with_id(ServingSpec.model_validate(body))


def simulated(**parts: Any) -> ServingSpec:
    """A spec that a simulated server of the same settings answers to."""
    body = {"model": {"source": MODEL, "revision": None, "served_name": MODEL, "files": []},
            "engine": {"version": "1+simulated"}, "effective": {"max_model_len": 2048},
            "accuracy": {"facts": [], "floor": None, "verdict": None, "certified": False},
            "evidence": [{"key": "a", "verdict": "ok", "slo": "met", "load": LOAD}]}  # fmt: skip
    return spec_of("effective", **{**body, **parts})
