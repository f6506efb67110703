"""The evaluations of one launch inside a run: shared where outputs must be equal, kept, recorded, resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.accuracy import cache, evaluation
from bench.accuracy.evaluate import DISK, Life, evaluate, leaf
from bench.accuracy.evaluation import Evaluation
from bench.accuracy.settings import Accuracy
from bench.accuracy.task import Task
from bench.evaluation import store
from bench.plan import evaluations
from bench.plan.evaluations import Evaluating
from bench.plan.planning import Launch, Plan
from bench.progress import Watch
from bench.records.folder import RunFolder
from serving.engines import engine
from serving.errors import Failure, FailureKind
from serving.launch.launch import Server


def owed(plan: Plan, run: RunFolder, launch: Launch) -> list[Evaluating]:
    """What this launch has to evaluate and the run does not hold yet; a failed one counts as held."""
    mine = [one for one in plan.evaluations if one.launch == launch.name]
    held = store.held(run) if mine else set()
    return [one for one in mine if (one.config, one.repeat) not in held]


def evaluate_launch(
    plan: Plan, run: RunFolder, launch: Launch, server: Server, watch: Watch, trial_s: float
) -> None:
    """Every evaluation that the launch owes. `trial_s`: what launch and load took, which bounds a screening.

    A server that dies is a `failure` in what is stored, never an exception, and so is an evaluation that
    breaks off for whatever reason but a full disk; an interrupt leaves the
    answers so far, and the next call goes on with them.
    """
    settings = plan.scenario.accuracy
    if settings is None:
        return
    named = {task.name: task for task in evaluations.tasks_of(plan.scenario)}
    refused = {n.task: n.why for n in plan.not_asked if n.engine == launch.config.engine}
    users = evaluations.concurrency_of(launch.points, settings)
    reference, budget_s = None, settings.within_s
    if launch.config.key != plan.baseline:
        reference = next(iter(store.evaluations(run, plan.baseline or "")), None)
        budget_s = settings.budget_s(trial_s)
    for one in owed(plan, run, launch):
        tasks = [named[name] for name in one.tasks]
        rules = cache.spot_settings(settings) if one.repeat == store.SPOT else settings
        try:
            made = _one(
                run, launch, server, rules, tasks, refused, users, watch, one.repeat, reference, budget_s
            )
        except Exception as error:  # measured points stand; what could not be scored is told, and is no pass
            first = leaf(error)
            if isinstance(first, OSError) and first.errno in DISK:
                raise
            what = f"{type(first).__name__}: {first}"
            store.record_missing(run, one.config, one.repeat, Failure(FailureKind.NOT_SCORED, what))
            continue
        watch.evaluated(launch.config, made)


def not_evaluated(plan: Plan, run: RunFolder, launch: Launch, failure: Failure) -> None:
    """Records that the server was not there to be asked, so that nobody takes silence for a pass."""
    for one in owed(plan, run, launch):
        store.record_missing(run, one.config, one.repeat, failure)


def _one(
    run: RunFolder,
    launch: Launch,
    server: Server,
    settings: Accuracy,
    tasks: Sequence[Task],
    refused: Mapping[str, str],
    concurrency: int,
    watch: Watch,
    repeat: int,
    baseline: Evaluation | None,
    budget_s: float | None,
) -> Evaluation:
    config = launch.config
    what = cache.identity(config, server.endpoint.version, config.device)
    folder = store.folder_of(run, what, settings, concurrency, repeat, config.key)
    if store.is_complete(folder):
        made = evaluation.load(folder)
    else:
        life = Life(
            server.alive,
            server.why_dead,
            lambda: engine(config.engine).reset_prefix_cache(server.endpoint.url),
        )
        made = evaluate(
            server.endpoint, tasks, settings.model_copy(update={"within_s": budget_s}), folder, concurrency,
            watch, identity=what, tokenizer=_tokenizer(config.tokenizer, config.model), baseline=baseline,
            life=life, refused=refused,
        )  # fmt: skip
    store.record(run, config, folder, repeat, made.failure)
    return made


def _tokenizer(named: str | None, model: str) -> str:
    """For the harness, which runs in a folder of its own: absolute where it is a folder."""
    chosen = named or model
    return str(Path(chosen).resolve()) if Path(chosen).is_dir() else chosen
