"""lm-evaluation-harness: its samples become scores that pair; its process is started, watched, its failure said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.accuracy import lmeval
from bench.accuracy.evaluate import Quiet, evaluate
from bench.accuracy.lmeval import LmEvalTask, progress
from bench.accuracy.pairing import pairing
from bench.accuracy.settings import Accuracy
from bench.accuracy.tasks import tasks
from serving.config import ServingConfig
from serving.engine import Endpoint
from serving.engines import engine
from serving.errors import ServetuneError, UserError
from serving.launch.launch import launch

MODEL = Path(__file__).parents[2] / ".models" / "smollm2-135m-instruct"
YAML = """\
task: three_sums
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["four", "five"]
doc_to_target: gold
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
ENDPOINT = Endpoint("http://127.0.0.1:1", "m", "vllm", "1", effective={"max_model_len": 512})


def sample(doc: str, acc: float, prompt: str = "p") -> str:
    line = {"task": "t", "doc_id": 0, "doc_hash": doc, "prompt_hash": prompt, "target_hash": "x", "metrics": ["acc"],
            "acc": acc, "filtered_resps": [["-1.0", "False"]]}  # fmt: skip
    return json.dumps(line) + "\n"


def test_samples_become_scores_that_pair_on_the_document(tmp_path: Path) -> None:
    task = LmEvalTask("lm-eval:t")
    results = []
    for name, text in (
        ("a", sample("d1", 1.0) + sample("d2", 0.0)),
        ("b", sample("d2", 1.0, "q") + sample("d1", 1.0)),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{task.name}.samples.jsonl").write_text(text)
        result, asked = task.run(ENDPOINT, Accuracy(), tmp_path / name, 2, Quiet())
        assert asked == 2
        results.append(result)
    assert results[0].mean == 0.5
    assert results[0].backend.startswith("lm-eval")
    both = pairing(results[1], results[0])
    assert both.items == ("t/d1",)
    assert both.other_prompts == 1, "the prompt of d2 differs: refused, not compared"


def test_a_task_without_a_share_is_refused(tmp_path: Path) -> None:
    task = LmEvalTask("lm-eval:t")
    (tmp_path / f"{task.name}.samples.jsonl").write_text(sample("d", 117.0))
    with pytest.raises(ServetuneError, match="no metric between 0 and 1"):
        task.run(ENDPOINT, Accuracy(), tmp_path, 1, Quiet())


def test_names_and_files(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("task: mine\n")
    own, hub, chat = tasks(["mine.yaml", "lm-eval:arc_easy", "lm-eval-chat:ifeval"], tmp_path)
    assert [t.name for t in (own, hub, chat)] == ["lm-eval-mine", "lm-eval-arc_easy", "lm-eval-chat-ifeval"]
    with pytest.raises(UserError, match=r"no lm-eval task file .*gone\.yaml"):
        tasks(["gone.yaml"], tmp_path)


def test_the_harness_is_told_the_length_the_server_has(tmp_path: Path) -> None:
    job = LmEvalTask("lm-eval:t")._job(ENDPOINT, Accuracy(items=5), tmp_path / "s", 4, "tok")
    assert job["model_args"]["max_length"] == 511
    assert job["model_args"]["num_concurrent"] == 4
    assert job["items"] == 5
    json.dumps(job)
    assert LmEvalTask("lm-eval-chat:t")._job(ENDPOINT, Accuracy(), tmp_path, 4, None)["chat"] is True


def test_progress_is_read_from_the_last_bar(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(
        b"Requesting API:   2%|x| 8/400 [00:01]\rRequesting API:  50%|xxx| 200/400 [00:09<00:09]\r"
    )
    assert progress(log) == (200, 400)
    log.write_bytes(b"Loading\n")
    assert progress(log) == (0, 0)


def test_without_the_harness_the_way_to_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmeval, "environment", lambda: None)
    with pytest.raises(UserError) as caught:
        LmEvalTask("lm-eval:t").run(ENDPOINT, Accuracy(), tmp_path, 1, Quiet())
    assert "install lm-eval" in caught.value.hint


@pytest.mark.slow
def test_a_local_task_runs_offline_through_the_harness(tmp_path: Path) -> None:
    found = lmeval.environment()
    if found is None or not found.installed or not (MODEL / "tokenizer.json").exists():
        pytest.skip("lm-eval or the small model is not installed: make engines model")
    (tmp_path / "data.jsonl").write_text(
        "".join(json.dumps({"question": f"{n} and {n} make", "gold": n % 2}) + "\n" for n in range(24))
    )
    (tmp_path / "three_sums.yaml").write_text(YAML.format(data=tmp_path / "data.jsonl"))
    config = ServingConfig.model_validate({"engine": "sim", "model": "smollm2-135m", "tokenizer": str(MODEL)})
    with launch(engine("sim"), config, tmp_path / "launch") as server:
        made = evaluate(
            server.endpoint, tasks(["three_sums.yaml"], tmp_path), Accuracy(items=4), tmp_path / "e", 2, tokenizer=str(MODEL)
        )  # fmt: skip
        screen = evaluate(
            server.endpoint, tasks(["three_sums.yaml"], tmp_path), Accuracy(split="screen"), tmp_path / "f", 2,
            tokenizer=str(MODEL),
        )  # fmt: skip
    (task,) = made.tasks.values()
    assert len(task.scored) == 4
    assert task.backend.startswith("lm-eval 0.")
    assert 0 < len(screen.tasks[task.name].scored) < 16
