"""Worker: one trial on a machine of a cluster, from bytes to bytes. Nothing is shared but what is told here.

The node needs servetune, the engines and the model at the same paths. What the trial measured comes back as
files of a run folder, which the searcher adds to the study's own.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.evaluation import store
from bench.plan.target import target_of
from bench.records.folder import RunFolder
from bench.scenario import scenariofile
from bench.scenario.model import Scenario
from search.engine_evaluator import EngineEvaluator
from search.objective import Goal
from search.result import Settings, from_json
from search.timed import Timed
from search.trial import run_trial
from serving.engines import engine
from serving.lock import device_lock

KEPT = ("launch", "point", store.EVENT)
"""Events of a worker's folder that become the study's."""


@dataclass(frozen=True)
class TrialJob:
    """A trial to run. `file`: the scenario's own path, used where the node has the same bytes there.

    history    outcomes so far, as JSON: what is promoted, and the incumbent
    baseline   whether it is one, and is looked at in full;  reference: files of the baseline's evaluation
    """

    number: int
    settings: Settings
    scenario: bytes
    file: str
    manifest: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    baseline: bool
    reference: Files


@dataclass(frozen=True)
class Files:
    """Part of a run folder: a tar of its files, and the events that say what they are."""

    tar: bytes = b""
    events: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class TrialDone:
    """What a trial showed, as JSON, and what it measured."""

    outcomes: tuple[Mapping[str, Any], ...]
    files: Files


def run(job: TrialJob) -> TrialDone:
    """The trial, on this machine. A failure of the engine is an outcome; anything else is an exception."""
    with tempfile.TemporaryDirectory(prefix="servetune-trial-") as scratch:
        scenario = _scenario(job, Path(scratch))
        folder = RunFolder.create(Path(scratch) / "run", job.manifest, job.scenario)
        unpack(job.reference, folder)
        before = len(list(folder.events()))
        target = target_of(None if scenario.device == "auto" else scenario.device, scenario.model)
        # Launch folders of several workers meet in one study.
        evaluator = EngineEvaluator(
            scenario, folder, target, Goal.of(scenario), Timed(), first_launch=1000 * (job.number + 1)
        )
        simulated = all(engine(part.engine).simulated for part in scenario.engines)
        place = f"{target.device}-trial-{os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}"
        with nullcontext() if simulated else device_lock(place, f"servetune search, trial {job.number}"):
            history = [from_json(one) for one in job.history]
            looks = run_trial(evaluator, evaluator.goal, history, job.settings, baseline=job.baseline)
        events = tuple(e for e in list(folder.events())[before:] if e["event"] in KEPT)
        return TrialDone(tuple(one.as_json() for one in looks), Files(_pack(folder, job.reference), events))


def reference(folder: RunFolder, config_key: str) -> Files:
    """The evaluations of the baseline, for whoever screens a candidate elsewhere."""
    events = tuple(e for e in folder.events() if e["event"] == store.EVENT and e["config"] == config_key)
    names = sorted({f"accuracy/{event['folder']}" for event in events if event["folder"]})
    return Files(_tar(folder.path, [folder.path / name for name in names]), events)


def unpack(files: Files, folder: RunFolder) -> None:
    """Adds files and events to a run folder; what it has already stays."""
    if files.tar:
        with tarfile.open(fileobj=io.BytesIO(files.tar)) as tar:
            new = [member for member in tar.getmembers() if not (folder.path / member.name).is_file()]
            tar.extractall(folder.path, new, filter="data")
    for event in files.events:
        folder.append(event["event"], **{k: v for k, v in event.items() if k != "event"})


def _pack(folder: RunFolder, known: Files) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(known.tar)) if known.tar else nullcontext() as tar:
        have = set(tar.getnames()) if tar else set()
    files = [
        path
        for part in ("points", "launches", "accuracy")
        for path in sorted((folder.path / part).rglob("*"))
        if path.is_file() and str(path.relative_to(folder.path)) not in have
    ]
    return _tar(folder.path, files)


def _tar(root: Path, paths: Sequence[Path]) -> bytes:
    if not paths:
        return b""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path in paths:
            tar.add(path, str(path.relative_to(root)))
    return out.getvalue()


def _scenario(job: TrialJob, scratch: Path) -> Scenario:
    """The scenario where it lies, so that its own files are found beside it; else as it was sent."""
    file = Path(job.file)
    same = (
        file.is_file() and hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(job.scenario).digest()
    )
    if not same:
        file = scratch / "scenario.yaml"
        file.write_bytes(job.scenario)
    return scenariofile.load(file)
