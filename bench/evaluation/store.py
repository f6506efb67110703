"""Where a run keeps its evaluations: `accuracy/<output key>/`, and in its events which config each is of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.accuracy import cache, evaluation
from bench.accuracy.evaluation import Evaluation
from bench.accuracy.settings import Accuracy
from bench.records.folder import RunFolder
from serving.config import ServingConfig
from serving.errors import Failure

EVENT = "evaluation"
CERTIFICATE, SPOT = 10, 20
"""`repeat` of an evaluation on the held-out items, and of one that checks an evaluation that is shared."""


def folder_of(
    run: RunFolder,
    identity: Mapping[str, Any],
    settings: Accuracy,
    concurrency: int,
    repeat: int = 0,
    config_key: str = "",
) -> Path:
    """The folder for evaluating `identity`; equal outputs, equal folder. `repeat` 1 is the A/A of 0.

    A spot check has a folder for each `config_key`: it is there to be compared with the shared one.
    """
    name = cache.key(identity, settings, concurrency)
    if repeat == SPOT:
        return run.path / "accuracy" / f"{name}-spot-{config_key}"
    return run.path / "accuracy" / (f"{name}-{repeat}" if repeat else name)


def is_complete(folder: Path) -> bool:
    """Whether nothing is left to ask there."""
    return evaluation.state(folder) == "finished"


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
    found = _folders(run, config_key)
    return [_load(run, found[repeat]) for repeat in sorted(found) if repeat < CERTIFICATE]


def of_repeat(run: RunFolder, config_key: str, repeat: int) -> Evaluation | None:
    """The one of CERTIFICATE or SPOT; None when there is none."""
    name = _folders(run, config_key).get(repeat)
    return None if name is None else _load(run, name)


def pair(run: RunFolder, config_key: str, baseline: str) -> tuple[list[Evaluation], list[Evaluation]]:
    """What is compared of a config and the baseline: their held-out answers where both have them.

    The baseline's A/A repeats follow its first evaluation, where that is what is compared.
    """
    mine, theirs = (of_repeat(run, key, CERTIFICATE) for key in (config_key, baseline))
    if mine is not None and theirs is not None:
        return [mine], [theirs]
    return evaluations(run, config_key), evaluations(run, baseline)


def shares(run: RunFolder, config_key: str) -> bool:
    """Whether its evaluation was made by asking another config, whose outputs should be the same."""
    own = _folders(run, config_key).get(0)
    first = next((e["config"] for e in run.events() if e["event"] == EVENT and e["folder"] == own), None)
    return own is not None and first != config_key


def _folders(run: RunFolder, config_key: str) -> dict[int, str]:
    """Repeat -> folder of what was evaluated."""
    return {
        event["repeat"]: event["folder"]
        for event in run.events()
        if event["event"] == EVENT and event["config"] == config_key and event["folder"] is not None
    }


def _load(run: RunFolder, name: str) -> Evaluation:
    return evaluation.load(run.path / "accuracy" / name)
