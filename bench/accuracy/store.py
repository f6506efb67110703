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
from serving.errors import Failure

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


def record(
    run: RunFolder, config: ServingConfig, folder: Path, repeat: int = 0, failure: Failure | None = None
) -> None:
    """Says in the run's events that `folder` holds the evaluation of `config`."""
    kind = failure.kind if failure else None
    run.append(EVENT, config=config.key, folder=folder.name, repeat=repeat, failure=kind)


def record_missing(run: RunFolder, config_key: str, repeat: int, failure: Failure) -> None:
    """Says that there was no server to ask, and why."""
    why = f"{failure.kind}: {failure.detail}"
    run.append(EVENT, config=config_key, folder=None, repeat=repeat, failure=failure.kind, why=why)


def held(run: RunFolder) -> set[tuple[str, int]]:
    """(config key, repeat) of everything that was evaluated or has failed for good."""
    return {(event["config"], event["repeat"]) for event in run.events() if event["event"] == EVENT}


def missing(run: RunFolder, config_key: str) -> str | None:
    """Why this config was not evaluated, where that is recorded."""
    for event in run.events():
        if event["event"] == EVENT and event["config"] == config_key and event["folder"] is None:
            return str(event["why"])
    return None


def evaluations(run: RunFolder, config_key: str) -> list[Evaluation]:
    """Evaluations of a config, its A/A repeats after it; empty when it has none."""
    found: dict[int, str] = {}
    for event in run.events():
        if event["event"] == EVENT and event["config"] == config_key and event["folder"] is not None:
            found[event["repeat"]] = event["folder"]
    return [result.load(run.path / "accuracy" / found[repeat]) for repeat in sorted(found)]
