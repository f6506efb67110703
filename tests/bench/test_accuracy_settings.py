"""`accuracy:` of a scenario, what shares an evaluation, and where a run keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from bench.accuracy import cache
from bench.accuracy.cache import WITHOUT_EFFECT, identity, key, spot_check
from bench.accuracy.evaluation import Evaluation, Scored, TaskResult, save_head, save_scores
from bench.accuracy.settings import Accuracy, floor_share
from bench.evaluation import store
from bench.records.folder import RunFolder
from serving.config import ServingConfig


@pytest.mark.parametrize("text", ["0.99 of baseline", "99% of baseline", "99%", "0.99", 0.99, " 99 % "])
def test_a_floor_in_every_spelling(text: object) -> None:
    assert floor_share(text) == pytest.approx(0.99)


@pytest.mark.parametrize("text", ["99", "1.2", "0", "-1%", "of baseline", "", "0.9.9", None, "101%"])
def test_what_is_no_floor(text: object) -> None:
    with pytest.raises(ValueError, match="share of the baseline"):
        floor_share(text)


def test_the_section_as_a_scenario_writes_it() -> None:
    found = Accuracy.model_validate(
        {
            "floor": "0.98 of baseline",
            "confidence": 0.9,
            "tasks": "facts",
            "items": {"facts": 300},
            "within_s": "60s",
        }
    )
    assert (found.floor, found.tasks, found.within_s) == (0.98, ("facts",), 60)
    assert (found.limit("facts"), found.limit("chat")) == (300, None)
    assert Accuracy(items=7).limit("chat") == 7
    for wrong in ({"floors": 1}, {"floor": 2}, {"confidence": 1.0}, {"tasks": []}, {"items": 0}):
        with pytest.raises(ValidationError):
            Accuracy.model_validate(wrong)
    assert Accuracy.model_validate(found.model_dump(mode="json")) == found


def config(**settings: object) -> ServingConfig:
    return ServingConfig.model_validate({"engine": "sim", "model": "m", **settings})


def of(one: ServingConfig, version: str = "1", device: str = "cpu") -> str:
    return key(identity(one, version, device), Accuracy(), 8)


@pytest.mark.parametrize(
    "settings",
    [{"max_num_seqs": 4}, {"max_num_batched_tokens": 512}, {"gpu_memory_utilization": 0.5}, {"kv_cache_bytes": 1 << 30},
     {"enable_prefix_caching": False}, {"enable_chunked_prefill": True}],
)  # fmt: skip
def test_settings_that_should_not_matter_share_an_evaluation(settings: dict[str, object]) -> None:
    assert set(settings) <= WITHOUT_EFFECT
    assert of(config(**settings)) == of(config())


@pytest.mark.parametrize(
    "settings",
    [{"quantization": "fp8"}, {"dtype": "float16"}, {"kv_cache_dtype": "fp8"}, {"attention_backend": "X"},
     {"max_model_len": 512}, {"revision": "abc"}, {"checkpoint": "c"}, {"tokenizer": "t"}, {"tensor_parallel_size": 2},
     {"enforce_eager": True}, {"engine": "vllm"}, {"extra_args": {"speculative-config": "x"}},
     {"extra_args": {"a-flag-nobody-thought-of": 1}}, {"env": {"VLLM_ATTENTION_BACKEND": "x"}}],
)  # fmt: skip
def test_everything_else_has_its_own(settings: dict[str, object]) -> None:
    assert of(config(**settings)) != of(config())


def test_version_device_tasks_and_load_are_part_of_the_key() -> None:
    assert of(config(), version="2") != of(config())
    assert of(config(), device="NVIDIA H200") != of(config())
    what = identity(config(), "1", "cpu")
    assert key(what, Accuracy(tasks=("chat",)), 8) != key(what, Accuracy(), 8)
    assert key(what, Accuracy(), 1) != key(what, Accuracy(), 8)
    assert key(what, Accuracy(floor=0.9), 8) == key(what, Accuracy(), 8), "the floor changes no output"


def test_every_setting_without_effect_exists() -> None:
    known = set(ServingConfig.model_fields)
    assert {"max_num_seqs", "gpu_memory_utilization"} <= WITHOUT_EFFECT & known
    assert WITHOUT_EFFECT - known <= {"attempt"}


def test_other_weights_are_another_identity(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
        (tmp_path / name / "chat_template.jinja").write_text("same")
    hashes = [cache.weights_hash(str(tmp_path / name)) for name in ("a", "b")]
    assert hashes[0] == hashes[1]
    (tmp_path / "b" / "chat_template.jinja").write_text("another template")
    assert cache.weights_hash(str(tmp_path / "b")) != hashes[0]
    big = tmp_path / "a" / "model.safetensors"
    with big.open("wb") as file:
        file.truncate(80 << 20)
    before = cache.weights_hash(str(tmp_path / "a"))
    with big.open("r+b") as file:
        file.seek(40 << 20)
        file.write(b"x" * (2 << 20))
    assert cache.weights_hash(str(tmp_path / "a")) != before


def evaluated(folder: Path, choices: list[str]) -> Evaluation:
    scored = {str(i): Scored(1.0, c, "p") for i, c in enumerate(choices)}
    return Evaluation(folder, {}, {"facts": TaskResult("facts", "accuracy", 0.25, scored)})


def test_the_spot_check_tells_a_sound_cache_from_a_broken_one(tmp_path: Path) -> None:
    first = evaluated(tmp_path, ["a"] * 300)
    assert spot_check(first, evaluated(tmp_path, ["a"] * 300))[0].verdict == "PASS"
    assert spot_check(first, evaluated(tmp_path, ["b"] * 30 + ["a"] * 270))[0].verdict == "FAIL"
    assert spot_check(first, evaluated(tmp_path, ["b"] * 30 + ["a"] * 270), noise=0.1)[0].verdict != "FAIL"
    assert spot_check(first, evaluated(tmp_path, ["b"] * 3 + ["a"] * 297))[0].verdict == "INCONCLUSIVE"
    assert spot_check(first, Evaluation(tmp_path, {}, {}))[0].verdict == "INCONCLUSIVE"


def test_a_run_finds_its_evaluations_again(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {}, b"")
    settings, what = Accuracy(), identity(config(), "1", "cpu")
    folders = [store.folder_of(run, what, settings, 8, repeat) for repeat in (0, 1)]
    assert folders[0] != folders[1]
    assert store.evaluations(run, config().key) == []
    for repeat, folder in enumerate(folders):
        folder.mkdir(parents=True)
        assert not store.is_complete(folder)
        made = evaluated(folder, ["a"])
        save_scores(folder, made.tasks["facts"])
        save_head(made, {"facts": {}}, settings.model_dump(mode="json"), "finished")
        assert store.is_complete(folder)
        store.record(run, config(), folder, repeat)
    store.record(run, config(max_num_seqs=4), folders[0])
    assert [e.folder for e in store.evaluations(run, config().key)] == folders
    assert [e.folder for e in store.evaluations(run, config(max_num_seqs=4).key)] == folders[:1]
