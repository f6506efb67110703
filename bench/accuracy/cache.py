"""One evaluation for all configurations that must give the same output, and a test of that assumption.

Everything counts as able to change an output unless it is listed in WITHOUT_EFFECT: an engine flag
nobody thought of gets an evaluation of its own rather than somebody else's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.accuracy.claims import Claim, Outcome, missing
from bench.accuracy.floor import exact_share
from bench.accuracy.result import Evaluation
from bench.accuracy.settings import Accuracy
from serving.config import ServingConfig

WITHOUT_EFFECT = frozenset(
    {
        "max_num_seqs",
        "max_num_batched_tokens",
        "gpu_memory_utilization",
        "kv_cache_bytes",
        "enable_chunked_prefill",
        "enable_prefix_caching",
        "api_key_env",
        "gpus",
        "attempt",
    }
)
"""Settings that should change when tokens come, not which. `spot_check` holds them to it."""
SPOT_ITEMS = 60
"""Of a task, that a spot check asks again; a share of changed answers of 7% and more shows for certain."""
PIECE = 1 << 20
HASHED_WHOLE = 64 * PIECE


def identity(config: ServingConfig, engine_version: str, device: str) -> dict[str, Any]:
    """What is served, as far as it can change an output. `device`: kind and model ("cpu", "NVIDIA H200")."""
    weights = config.checkpoint or config.model
    return {
        **planned(config),
        "engine_version": engine_version,
        "device": device,
        "weights": weights_hash(weights) if Path(weights).is_dir() else config.revision or "unpinned",
        "model": Path(config.model).name,
    }


def planned(config: ServingConfig) -> dict[str, Any]:
    """What is known of `identity` before anything starts: the settings that can change an output."""
    return {k: v for k, v in config.settings.items() if k not in WITHOUT_EFFECT}


def key(what: Mapping[str, Any], settings: Accuracy, concurrency: int) -> str:
    """12 hex digits: equal keys, one evaluation. Tasks, items and concurrency are part of it."""
    asked = settings.model_dump(mode="json", include={"tasks", "items", "split", "within_s"})
    text = json.dumps([dict(what), asked, concurrency], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def weights_hash(folder: str) -> str:
    """Of a model folder: configuration, tokenizer and template whole, weights by size and samples."""
    names = sorted(
        p
        for p in Path(folder).iterdir()
        if p.suffix in (".json", ".jinja", ".safetensors", ".model", ".gguf")
    )
    stamp = tuple(
        (str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in names if p.name != "provenance.json"
    )
    return _hash_of(stamp)


@lru_cache(maxsize=64)
def _hash_of(files: tuple[tuple[str, int, int], ...]) -> str:
    """Files above 64 MiB by 64 pieces of 1 MiB spread over them: a second for any model, and any
    requantization changes every piece."""
    whole = hashlib.sha256()
    for name, size, _ in files:
        whole.update(f"{Path(name).name}:{size}".encode())
        with Path(name).open("rb") as file:
            if size <= HASHED_WHOLE:
                whole.update(file.read())
                continue
            for part in range(64):
                file.seek((size - PIECE) * part // 63)
                whole.update(file.read(PIECE))
    return whole.hexdigest()[:16]


def spot_settings(settings: Accuracy) -> Accuracy:
    """What a spot check asks: the first items of the same split, in the same order."""
    return settings.model_copy(update={"items": SPOT_ITEMS, "within_s": None, "stop_early": False})


def spot_check(
    shared: Evaluation, again: Evaluation, noise: float = 0.0, confidence: float = 0.95
) -> list[Claim]:
    """Does a configuration that shares an evaluation really answer alike? One claim a task.

    Effect: share of items whose answer differs. `noise`: the baseline's own A/A share. FAIL when even
    the interval's low end is above it by a point: then the cache's assumption is wrong for this engine.
    """
    claims = []
    for name, first in shared.tasks.items():
        other = again.tasks.get(name)
        both = [
            i
            for i in first.scored
            if other and i in other.scored and first.scored[i].prompt == other.scored[i].prompt
            if not any(s.error or s.unanswered for s in (first.scored[i], other.scored[i]))
        ]
        if other is None or not both:
            claims.append(missing("Stability", f"spot check: {name}", "no items answered on both sides"))
            continue
        changed = sum(first.scored[i].choice != other.scored[i].choice for i in both)
        low, high = exact_share(changed, len(both), confidence)
        limit = noise + 0.01
        # 3.7 / n: the upper end of the interval when nothing at all differs.
        alike = high <= max(limit, 3.7 / len(both))
        verdict: Outcome = "FAIL" if low > limit else "PASS" if alike else "INCONCLUSIVE"
        claims.append(
            Claim(
                "Stability", f"spot check: {name}", verdict, changed / len(both), (low, high), limit, "share",
                len(both), note="answers that differ although only settings differ that should not matter",
            )
        )  # fmt: skip
    return claims
