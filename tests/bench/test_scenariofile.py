"""Hostile scenario files: each gives one error with file, line, key, what was found and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.scenario import scenariofile
from serving.errors import ScenarioError

GOOD = """\
schema: 1
name: demo
question: which is fastest?
model: {name: m, path: p}
engines:
  - engine: vllm
    settings: {max_num_seqs: 8}
    grid:
      dtype: [float32, bfloat16]
workloads:
  - name: chat
    concurrency: 4
    requests: 10
slos: ["ttft:p99<=500ms"]
"""


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    return file


def test_a_good_file_is_read_whole(tmp_path: Path) -> None:
    scenario = scenariofile.load(write(tmp_path, GOOD))
    assert scenario.engines[0].grid == {"dtype": ["float32", "bfloat16"]}
    assert scenario.workloads[0].concurrency == (4,)
    assert scenario.slos[0].limit == 500.0
    assert len(scenario.sha256) == 64


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "said"),
    [
        ("name: demo", "nmae: demo", 2, "nmae", "did you mean 'name'"),
        ("name: demo", "name: Demo!", 2, "name", "found 'Demo!'"),
        ("name: demo", "name: demo\nname: two", 3, "name", "first on line 2"),
        ("question: which is fastest?\n", "", None, "question", "required"),
        ("schema: 1", "schema: 7", 1, "schema", "found 7"),
        ("max_num_seqs: 8", "max_num_seq: 8", 7, "engines[0].settings.max_num_seq", "'max_num_seqs'"),
        ("max_num_seqs: 8", "max_num_seqs: 0", 7, "engines[0].settings.max_num_seqs", "found 0"),
        ("max_num_seqs: 8", "max_num_seqs: 8.5", 7, "engines[0].settings.max_num_seqs", "found 8.5"),
        ("max_num_seqs: 8", "kv_cache_bytes: 1Gb", 7, "engines[0].settings.kv_cache_bytes", "GiB"),
        ("max_num_seqs: 8", "device: cuda", 7, "engines[0].settings.device", "its own place"),
        ("max_num_seqs: 8", "dtype: float32", 9, "engines[0].grid.dtype", "it in settings too"),
        ("[float32, bfloat16]", "[float32, bf16]", 9, "engines[0].grid.dtype[1]", "'bfloat16'"),
        ("[float32, bfloat16]", "[]", 9, "engines[0].grid.dtype", "an empty list"),
        ("engine: vllm", "engine: vlm", 6, "engines[0].engine", "sim"),
        ("concurrency: 4", "concurrency: four", 12, "workloads[0].concurrency[0]", "found 'four'"),
        ("concurrency: 4", "concurrency: -1", 12, "workloads[0].concurrency[0]", "found -1"),
        ("concurrency: 4", "rate_per_s: 2\n    arrivals: closed", 11, "workloads[0]", "does not go with"),
        ("concurrency: 4", "concurrency: 4\n    rate_per_s: 2", 11, "workloads[0]", "exactly one of"),
        ("concurrency: 4", "rate_per_s: 2\n    arrivals: gamma", 11, "workloads[0]", "cv goes with"),
        ("requests: 10", "warmup_requests: 1", 11, "workloads[0]", "so that the load ends"),
        ("requests: 10", "requests: 10\n    duration_s: 5 parsecs", 14, "workloads[0].duration_s", "ms"),
        ("<=500ms", "<=500", 14, "slos[0]", "with its unit"),
        ("ttft:p99", "ttft:p98", 14, "slos[0]", "p95"),
        (
            "slos:",
            "rules: [{drop: {max_seqs: 1}, because: x}]\nslos:",
            14,
            "rules[0].drop.max_seqs",
            "max_num_seqs",
        ),
        ("requests: 10", "requests: [10", 14, "yaml", "well-formed"),
        (
            "model: {name: m, path: p}",
            "model: !!python/object/apply:os.system ['true']",
            None,
            "yaml",
            "well-formed",
        ),
    ],
)
def test_one_error_with_its_place(
    tmp_path: Path, old: str, new: str, line: int | None, key: str, said: str
) -> None:
    assert old in GOOD
    file = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ScenarioError) as caught:
        scenariofile.load(file)
    error = caught.value
    assert error.key == key
    if line is not None:
        assert error.line == line
    assert said in f"{error.message} {error.hint}"
    assert str(file) in error.message


@pytest.mark.parametrize("text", ["", "- a list", "just words", "\x00", "a: &x [*x]"])
def test_not_a_mapping_is_an_error_too(tmp_path: Path, text: str) -> None:
    with pytest.raises(ScenarioError):
        scenariofile.load(write(tmp_path, text))


def test_aliases_of_aliases_end_soon(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    with pytest.raises(ScenarioError, match="aliases without end"):
        scenariofile.load(write(tmp_path, bomb))


def test_a_missing_file_names_itself(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"nowhere\.yaml"):
        scenariofile.load(tmp_path / "nowhere.yaml")
