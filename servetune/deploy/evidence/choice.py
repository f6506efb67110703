"""Which measured point a spec is of: the winner of a search, or the best of a run; or the next best.

A search has measured its finalists again on fresh launches, so that its answer is taken as it stands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench.records.folder import RunFolder
from bench.result import PointResult
from serving.errors import BrokenRunError, UserError


def choose(
    folder: RunFolder, found: Sequence[PointResult], key: str | None = None, *, fallback: bool = False
) -> PointResult:
    """`found`: every point that did not fail. `key`: the point that was asked for, by its beginning.
    `fallback`: the best one of another configuration. UserError when there is none to be believed.
    """
    if key is not None:
        named = [o for o in found if o.key.startswith(key)]
        if len(named) != 1:
            keys = ", ".join(o.key for o in found)
            raise UserError(f"{len(named)} measured points begin with {key!r}", f"the run has: {keys}")
        return named[0]
    study = answer(folder)
    if study is not None:
        return _of_study(study, found, fallback)
    best = _best(found, "the run")
    if not fallback:
        return best
    others = [o for o in found if o.run.point.config.key != best.run.point.config.key]
    return _best(others, "the run's other configurations")


def answer(folder: RunFolder) -> dict[str, Any] | None:
    """`study.json` of a search; None for a run. UserError when the search has not ended."""
    file = folder.path / "study.json"
    if not file.is_file():
        if (folder.path / "study.jsonl").is_file():
            raise UserError(
                f"the search in {folder.path} has not ended: it has no answer yet",
                "servetune search SCENARIO --resume; or name a point with --point KEY",
            )
        return None
    try:
        loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BrokenRunError(
            f"{file} is not JSON: {error}", "finish the search again with --resume"
        ) from error
    return loaded


def _of_study(study: Mapping[str, Any], found: Sequence[PointResult], fallback: bool) -> PointResult:
    winner = study.get("winner")
    if study.get("verdict") == "not_settled":
        raise UserError(
            f"the search is not settled, so there is no winner yet: {study['unsettled']['why']}",
            "servetune search SCENARIO --resume --rounds N measures the finalists more often; "
            "--point KEY writes the spec of one all the same",
        )
    if winner is None:
        raise UserError(
            "the search found no configuration that keeps every promise",
            "servetune report shows each; --point KEY writes the spec of one all the same",
        )
    if not fallback:
        return _finalist(winner, found)
    sign = 1 if study["goal"][0]["direction"] == "minimize" else -1
    others = [
        f
        for f in study["finalists"]
        if f["feasible"] and f["config_key"] != winner["config_key"] and f["value"] is not None
    ]
    if not others:
        raise UserError(
            "no other finalist kept every promise, so there is no measured fallback",
            "search with more finalists: `search: {finalists: 3}`",
        )
    return _finalist(min(others, key=lambda f: (sign * f["value"], f["config_key"])), found)


def _finalist(one: Mapping[str, Any], found: Sequence[PointResult]) -> PointResult:
    points = set(one["points"])
    return _best([o for o in found if o.key in points], f"configuration {one['config_key']}")


def _best(found: Sequence[PointResult], whose: str) -> PointResult:
    fit = [o for o in found if o.judgement.verdict == "ok" and o.slo == "met"]
    if not fit:
        said = "; ".join(sorted({r.text for o in found for r in o.judgement.reasons}))
        raise UserError(
            f"no point of {whose} is believable and meets the SLOs: {said or 'SLOs are missed or unknown'}",
            "servetune report RUN shows each point; name one with --point KEY to have its spec all the same",
        )
    return max(fit, key=lambda o: (o.metrics["output_token_throughput_per_s"] or 0.0, o.key))
