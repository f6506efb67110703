"""What `servetune gate` may be given: the side a text names, and the parts that were chosen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.accuracy import evaluation
from bench.evaluation import store
from bench.gate.judge import Side
from bench.gate.scorecards import baseline_key
from bench.records.folder import RunFolder
from bench.scenario import scenariofile
from serving.claims import PARTS, Claim
from serving.errors import UserError

SIDE = "Run folder, RUN@KEY (a configuration or a point of it), or folder of one evaluation."


def side(text: str, *, of_baseline: bool = False) -> Side:
    """What `text` names: a run folder, RUN@CONFIG, RUN@POINT, a folder under points/, or an evaluation.

    `of_baseline`: a run of several configurations means the one its scenario has as baseline. UserError
    when nothing fits, or the configuration is not singled out.
    """

    path, _, wanted = text.partition("@") if not Path(text).exists() else (text, "", "")
    folder = Path(path)
    if folder.parent.name == "points":
        folder, wanted = folder.parent.parent, folder.name
    if (folder / "evaluation.json").is_file():
        return Side(folder.name, folder, evaluations=(evaluation.load(folder),))
    run = RunFolder.open(folder)
    runs = run.runs()
    if wanted:
        named = [r for r in runs if r.point.key.startswith(wanted)]
        runs = named or [r for r in runs if r.point.config.key.startswith(wanted)]
    configs = {r.point.config.key: r.point.config for r in run.runs()}
    fitting = {r.point.config.key: r.point.config for r in runs}
    if not wanted and of_baseline and baseline_key(run) in fitting:
        fitting = {key: config for key, config in fitting.items() if key == baseline_key(run)}
    if len(fitting) != 1:
        which = "; ".join(f"{folder}@{key[:6]} {config.label}" for key, config in configs.items())
        cause = f"no configuration {wanted!r}" if not fitting else f"{len(fitting)} configurations"
        raise UserError(f"{folder} has {cause}", f"name one: {which}" if which else "the run has no points")
    ((key, config),) = fitting.items()
    scenario = scenariofile.load(folder / "scenario.yaml")
    return Side(
        f"{folder.name}@{key[:6]} ({config.label})" if len(configs) > 1 else folder.name,
        folder,
        tuple(r for r in runs if r.point.config.key == key),
        scenario,
        tuple(store.evaluations(run, key)),
    )


def _chosen(found: list[Claim], only: Sequence[str] | None) -> list[Claim]:

    wanted = {part.capitalize() for part in only or PARTS}
    unknown = wanted - set(PARTS)
    if unknown:
        raise UserError(f"no part {sorted(unknown)[0]!r}", f"one of {', '.join(PARTS)}")
    return [claim for claim in found if claim.part in wanted]
