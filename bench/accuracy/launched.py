"""The evaluation of one launch inside a run: shared where outputs must be equal, kept, recorded, resumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.accuracy import cache, result, store
from bench.accuracy import tasks as tasks_named
from bench.accuracy.evaluate import Life, Watch, evaluate
from bench.accuracy.result import Evaluation
from bench.accuracy.settings import Accuracy
from bench.accuracy.task import Task
from bench.results import RunFolder
from serving.config import ServingConfig
from serving.engines import engine

if TYPE_CHECKING:
    from serving.process import Server


def is_baseline(config: ServingConfig, settings: Accuracy, first: ServingConfig) -> bool:
    """Whether `config` is what the others are held against: as the scenario says, else the first of all."""
    if settings.baseline is None:
        return config.key == first.key
    have = config.model_dump(mode="json")
    return all(have.get(name) == value for name, value in settings.baseline.items())


def evaluate_launch(
    run: RunFolder,
    config: ServingConfig,
    server: Server,
    settings: Accuracy,
    concurrency: int,
    watch: Watch,
    *,
    beside: Path = Path(),
    device: str = "cpu",
    baseline: Evaluation | None = None,
    twice: bool = False,
) -> Evaluation:
    """The evaluation of `config`, from this run where one of equal outputs is complete, else asked now.

    `beside`: the scenario's folder, for task files. `twice`: it is the baseline; it is evaluated a second
    time, as its own A/A. A dead server is a `failure` in what is returned, never an exception.
    """
    what = cache.identity(config, server.endpoint.version, device)
    users = settings.concurrency or concurrency
    tasks = tasks_named(settings.tasks, beside)
    made = _one(run, config, server, settings, tasks, users, watch, what, 0, baseline)
    if twice and settings.aa and not made.failure:
        again = [task for task in tasks if task.measures in ("accuracy", "tripwire")]
        _one(run, config, server, settings, again, users, watch, what, 1, None)
    return made


def _one(
    run: RunFolder,
    config: ServingConfig,
    server: Server,
    settings: Accuracy,
    tasks: Sequence[Task],
    concurrency: int,
    watch: Watch,
    what: dict[str, object],
    repeat: int,
    baseline: Evaluation | None,
) -> Evaluation:
    folder = store.folder_of(run, what, settings, concurrency, repeat)
    if store.is_complete(folder):
        made = result.load(folder)
    else:
        life = Life(
            server.alive,
            server.why_dead,
            lambda: engine(config.engine).reset_prefix_cache(server.endpoint.url),
        )
        made = evaluate(
            server.endpoint, tasks, settings, folder, concurrency, watch, identity=what,
            tokenizer=config.tokenizer or config.model, baseline=baseline, life=life,
        )  # fmt: skip
    store.record(run, config, folder, repeat)
    return made
