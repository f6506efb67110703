"""Accuracy in a spec: the scores of the configuration, the floor's word, and the same for run and search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.evaluation import store
from bench.scenario import scenariofile
from servetune.deploy.evidence.scores import accuracy
from servetune.deploy.verify.scores import least
from tests.support.accuracy_campaign import campaign, scenario


@pytest.mark.slow
def test_a_spec_says_what_the_evaluations_of_its_run_found(tmp_path: Path) -> None:
    file = scenario(tmp_path, "{tasks: [facts, text], items: 40}")
    plan, run = campaign(tmp_path, file)
    asked = scenariofile.load(file)
    keys = [launch.config.key for launch in plan.launches]
    found = {key: accuracy(run, asked, key) for key in keys}
    base, shared, other = (found[key] for key in keys[:3])
    assert base.verdict is None  # it is what others are held against
    assert base.floor is None
    assert shared.verdict == "PASS"  # its outputs are the baseline's
    assert other.verdict == "INCONCLUSIVE"
    first = store.evaluations(run, keys[2])[0]
    for fact in other.facts:
        task = first.tasks[fact.task]
        assert fact.score == task.mean
        assert fact.items == len(task.scored)
        assert fact.interval[0] <= fact.score <= fact.interval[1]
        assert fact.baseline == pytest.approx(store.evaluations(run, keys[0])[0].tasks[fact.task].mean)
        assert fact.interval[0] <= least(fact, other) <= fact.score
    assert other.concurrency == 3

    # A search keeps its baseline in its answer, not in the run's plan.
    manifest = json.loads((run.path / "manifest.json").read_text())
    del manifest["plan"]
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    (run.path / "study.json").write_text(json.dumps({"baseline": {"config_key": keys[0]}}))
    assert accuracy(run, asked, keys[2]) == other
    assert accuracy(run, asked, "000000000000").facts == []
    without = asked.model_copy(update={"accuracy": None})
    assert accuracy(run, without, keys[2]).facts == []
