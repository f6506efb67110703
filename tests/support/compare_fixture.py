"""Runs of several launches a side, made to order, to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bench.compare.comparison import Comparison, compare_all
from bench.records.model import Run
from serving.config import ServingConfig
from tests.support.synthetic import closed_loop

SCENARIO = """\
schema: 1
name: test
question: does compare work
model: {name: m, path: m, shape: llama-3.1-8b}
engines: [{engine: sim}]
workloads: [{name: test, concurrency: 16, requests: 320, input_tokens: 128, output_tokens: 20}]
"""


def launches(
    count: int, side: str, *, seed: int = 0, slower: float = 1.0, spread: float = 0.01, **config
) -> list[Run]:
    """One run a launch; launches differ by `spread` in everything they do."""
    out = []
    for i in range(count):
        rng = np.random.default_rng([seed, i, ord(side)])
        pace = slower * float(np.exp(rng.normal(0, spread)))
        run = closed_loop(rounds=20, seed=int(rng.integers(1 << 30)), ttft_s=0.1 * pace, step_s=0.01 * pace,
                          launch=f"{side}{i}", repeat=i)  # fmt: skip
        made = ServingConfig(engine="sim", model="m", **config)
        out.append(replace(run, point=replace(run.point, config=made)))
    return out


def compare(a: Sequence[Run], b: Sequence[Run], metric: str, **options: Any) -> Comparison:
    """The claim about one metric; the runs of each side are repeats of one point."""
    ((_, claim),), _ = compare_all(a, b, [metric], **options)
    return claim
