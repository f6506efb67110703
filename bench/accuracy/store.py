"""Where a run keeps its evaluations: `accuracy/<output key>/`, and in its events which config each is of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.accuracy import cache, result
from bench.accuracy.result import Evaluation
from bench.accuracy.settings import Accuracy
from bench.results import RunFolder
from serving.config import ServingConfig

EVENT = "evaluation"


def folder_of(
    run: RunFolder, identity: Mapping[str, Any], settings: Accuracy, concurrency: int, repeat: int = 0
) -> Path:
    """The folder for evaluating `identity`; equal outputs, equal folder. `repeat` 1 is the A/A of 0."""
    name = cache.key(identity, settings, concurrency)
    return run.path / "accuracy" / (f"{name}-{repeat}" if repeat else name)


def is_complete(folder: Path) -> bool:
    """Whether nothing is left to ask there."""
    return result.state(folder) == "finished"


def record(run: RunFolder, config: ServingConfig, folder: Path, repeat: int = 0) -> None:
    """Says in the run's events that `folder` holds the evaluation of `config`."""
    run.append(EVENT, config=config.key, folder=folder.name, repeat=repeat)


def evaluations(run: RunFolder, config_key: str) -> list[Evaluation]:
    """Evaluations of a config, its A/A repeats after it; empty when it has none."""
    found: dict[int, str] = {}
    for event in run.events():
        if event["event"] == EVENT and event["config"] == config_key:
            found[event["repeat"]] = event["folder"]
    return [result.load(run.path / "accuracy" / found[repeat]) for repeat in sorted(found)]
