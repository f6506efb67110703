"""A search on a local Ray cluster of several nodes, with simulated engines; one node is killed on the way."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.records.folder import RunFolder
from search.resume import StudyLog
from servetune.cli.main import main

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # off: Ray stays on loopback
ray = pytest.importorskip("ray", reason="servetune[ray] is not installed")

TEXT = """\
schema: 1
name: ray-sim
question: Which batch is cheapest? (simulated)
device: cpu
model: {name: Llama-3.1-8B, path: llama-3.1-8b, shape: llama-3.1-8b, tokenizer: none}
engines:
  - engine: sim
    settings: {max_model_len: 4096, sim: {gpu: h200, shape: llama-3.1-8b, seed: 1, time_scale: 1}}
    space:
      quantization: [none, fp8]
      max_num_seqs: [4, 16, 64]
workloads:
  - {name: chat, input_tokens: 64, output_tokens: 32, concurrency: 8, requests: 240, warmup_requests: 1}
search: {goal: minimize usd_per_million_good_tokens, trials: 5, finalists: 1, robust: false, sampler: random}
slos: ["ttft:p50<=2s"]
price: {per_hour: 4.00, currency: USD, source: made up for this test, date: 2026-05-01, per: gpu}
seed: 1
"""


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "node_ip_address": "127.0.0.1"},
    )
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_trials_run_on_several_nodes_and_a_lost_node_costs_its_trial_only(
    tmp_path: Path, cluster: Any
) -> None:
    doomed = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
    (tmp_path / "ray-sim.yaml").write_text(TEXT)
    study = tmp_path / "study"
    log = StudyLog(study)

    def kill_one() -> None:
        """As soon as two trials are under way at once."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if (study / "study.jsonl").exists() and sum(not t.ended for t in StudyLog(study).trials()) >= 2:
                time.sleep(3)  # until its task has begun: one that has not is simply placed elsewhere
                cluster.remove_node(doomed, allow_graceful=False)
                return
            time.sleep(0.2)

    killer = threading.Thread(target=kill_one)
    killer.start()
    status = main(
        [
            "search",
            str(tmp_path / "ray-sim.yaml"),
            "--out",
            str(study),
            "--ray",
            f"127.0.0.1:{cluster.address.rpartition(':')[2]}",
        ]
    )
    killer.join()
    assert status in (0, 3)
    trials = log.trials()
    assert len(trials) == 5
    assert all(one.ended for one in trials)
    assert {one.attempts for one in trials} == {1, 2}, "what ran on the lost node was asked again"
    assert [o.failure for one in trials for o in one.outcomes] == [None] * sum(
        len(t.outcomes) for t in trials
    )
    folder = RunFolder.open(study)
    for one in trials:
        for key in one.outcomes[-1].points:
            assert folder.run(key).records, "what was measured elsewhere lies in the study"
    launches = [event["name"] for event in folder.events() if event["event"] == "launch"]
    assert len(set(launches)) == len(launches)
    assert json.loads((study / "study.json").read_text())["verdict"] in (
        "winner",
        "default_is_best",
        "not_settled",
    )


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_without_a_cluster_the_error_comes_at_once_and_says_what_to_type(address: str) -> None:
    from search.cluster.cluster import Cluster
    from serving.errors import UserError

    with pytest.raises(UserError, match=address) as raised:
        Cluster.join(address, "cpu", simulated=True)
    assert "--ray local" in raised.value.hint
