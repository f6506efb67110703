"""Evaluations made to order, and the command `servetune gate` called on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import typer

from bench.accuracy.evaluation import Evaluation, Scored, TaskResult, save_head, save_scores
from bench.accuracy.settings import Accuracy
from bench.accuracy.task import Measures
from servetune.cli.gate import gate_command

Right = Mapping[str, float]


def result(
    name: str,
    values: Right,
    *,
    measures: Measures = "accuracy",
    chance: float = 0.25,
    prompt: str = "p",
    input_tokens: int = 10,
    output_tokens: int = 5,
) -> TaskResult:
    scored = {i: Scored(v, str(v), prompt + i, input_tokens, output_tokens) for i, v in values.items()}
    return TaskResult(name, measures, chance, scored)


def evaluation(folder: Path, *tasks: TaskResult, **more: Any) -> Evaluation:
    """An evaluation on disk, as `evaluate` leaves it."""
    folder.mkdir(parents=True)
    made = Evaluation(folder, {"model": "m"}, {t.name: t for t in tasks}, **more)
    for task in tasks:
        save_scores(folder, task)
    kept = Accuracy().model_dump(mode="json")
    save_head(made, {t.name: {} for t in tasks}, kept, "finished")
    return made


def half_right(n: int = 1500, flips: int = 0, losses: int = 0, seed: int = 1) -> tuple[Right, Right]:
    """Baseline and candidate: 60% right; `flips` items change either way, `losses` go wrong."""
    rng = np.random.default_rng(seed)
    base = {str(i): float(v) for i, v in enumerate(rng.random(n) < 0.6)}
    cand = dict(base)
    right, wrong = [i for i in base if base[i]], [i for i in base if not base[i]]
    for i in right[: flips // 2 + losses]:
        cand[i] = 0.0
    for i in wrong[: flips - flips // 2]:
        cand[i] = 1.0
    return base, cand


def run(*arguments: str) -> int:
    app = typer.Typer()
    app.command()(gate_command)
    return int(app(args=list(arguments), standalone_mode=False))
