"""The content of study.json: the answer of a search, what mattered, and what was spent (docs/search.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search.budget import ledger
from search.engine_evaluator import EngineEvaluator
from search.explain import explained
from search.finals.answer import SearchResult
from search.loop import Loop

if TYPE_CHECKING:
    from bench.scenario.model import Scenario

SCHEMA = 1


def written(
    scenario: Scenario, loop: Loop, evaluator: EngineEvaluator, answer: SearchResult, ended: str
) -> dict[str, Any]:
    """`ended`: why there were no more trials."""
    history = loop.log.history()
    failures: dict[str, int] = {}
    for one in history:
        if one.failure is not None:
            failures[one.failure] = failures.get(one.failure, 0) + 1
    spent = ledger(history)
    return {
        "schema": SCHEMA,
        "scenario": scenario.name,
        "question": scenario.question,
        "scenario_sha256": scenario.sha256,
        "goal": [
            {"metric": m, "direction": "minimize" if low else "maximize"} for m, low in loop.goal.metrics
        ],
        "slos": [str(slo) for slo in scenario.slos],
        "sampler": scenario.search.sampler,
        "seed": scenario.seed,
        "simulated": any(one.simulated for one in history),
        "ended": ended,
        **answer.as_json(evaluator.config, loop.space),
        "trials": len(loop.log.trials()),
        "launches": sum(event["event"] == "launch" for event in evaluator.folder.events()),
        "failures": failures,
        "ledger": {**spent, "total": sum(spent.values())},
        "cost": loop.budget.cost(sum(spent.values())),
        "explained": explained(
            loop.space,
            loop.goal,
            loop.study.constraints,
            [one.outcomes[-1] for one in loop.log.trials()],
            answer.winner.settings if answer.winner else None,
        ),
        "feasibility": evaluator.feasible.report(failures.get("does_not_fit", 0)),
        "runs": ["."],
    }
