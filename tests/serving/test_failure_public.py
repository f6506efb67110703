"""Failure classes on pieces of logs that others published: kind, the line that tells, and what to do."""

from __future__ import annotations

import csv
import re
import time
from pathlib import Path

import pytest

from serving.errors import FailureKind
from serving.failure.classify import READ_CHARACTERS, RULES, Phase, classify

FOLDER = Path(__file__).parents[1] / "logs" / "public"


def rows() -> dict[str, dict[str, str]]:
    with (FOLDER / "index.tsv").open() as index:
        return {row["excerpt"]: row for row in csv.DictReader(index, delimiter="\t", quoting=csv.QUOTE_NONE)}


INDEX = rows()
BROKEN = [name for name in INDEX if not name.startswith("healthy-")]

AROUND = """\
(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1)   File "/venv/bin/vllm", line 8, in <module>
(APIServer pid=1)     sys.exit(main())
(APIServer pid=1)   File "/venv/vllm/v1/engine/utils.py", line 964, in wait_for_engine_startup
(APIServer pid=1)     raise RuntimeError(
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
/usr/lib/python3.12/multiprocessing/resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 \
leaked shared_memory objects to clean up at shutdown
"""


@pytest.mark.parametrize("name", INDEX)
def test_a_published_failure_is_read_as_its_thread_tells(name: str) -> None:
    row = INDEX[name]
    log = (FOLDER / f"{name}.log").read_text()
    phase: Phase = "load" if row["phase"] == "load" else "launch"
    failure = classify(int(row["exit"]), log, phase=phase, settings={"device": "cuda"})
    assert failure.kind is FailureKind[row["kind"]]
    assert row["detail"] in failure.detail
    assert row["hint"] in failure.hint
    assert "\n" not in failure.detail
    assert "pid=" not in failure.detail[:20]


@pytest.mark.parametrize("name", BROKEN)
def test_a_cause_is_found_between_a_healthy_start_and_the_api_servers_end(name: str) -> None:
    row = INDEX[name]
    healthy = "".join(path.read_text() for path in sorted(FOLDER.glob("healthy-*.log")))
    log = healthy + (FOLDER / f"{name}.log").read_text() + AROUND
    phase: Phase = "load" if row["phase"] == "load" else "launch"
    failure = classify(int(row["exit"]), log, phase=phase, settings={"device": "cuda"})
    assert failure.kind is FailureKind[row["kind"]]
    assert row["detail"] in failure.detail


def test_every_excerpt_has_its_row_and_every_row_its_excerpt() -> None:
    assert {path.stem for path in FOLDER.glob("*.log")} == set(INDEX)
    assert all(all(row.values()) for row in INDEX.values())
    assert sum(name.startswith("healthy-") for name in INDEX) >= 8
    assert len({row["source"].split()[0] for row in INDEX.values()}) >= 50


def test_excerpts_are_short_and_name_no_home() -> None:
    for path in FOLDER.glob("*.log"):
        text = path.read_text()
        assert 1 <= len(text.splitlines()) <= 25, path.name
        assert "/home/" not in text, path.name
        assert "hf_" not in text.replace("hf_hub", "").replace("hf_config", ""), path.name


@pytest.mark.parametrize(
    "filler",
    [
        "x" * 4_000_000,
        "ValueError: must " * 30_000,
        "a b " * 100_000,
        "\n".join(["(EngineCore pid=9) ERROR 11-23 07:00:00 [core.py:1] File shm_broadcast.py"] * 6000),
        "(((((" * 80_000,
        "CUDA error: NCCL WARN ImportError: nothing " * 9000,
        "\n" * 400_000,
        "\n".join(["(a pid=1)" + " " * 19_000] * 20),
        "\n".join(["(" + "pid=" * 4000 + " KeyError: x"] * 25),
        "\n".join(["x" * 18_000 + " CUDA out of memory"] * 22),
    ],
    ids=[
        "one word",
        "half a match",
        "words",
        "frames",
        "brackets",
        "beginnings",
        "blank",
        "spaces",
        "prefixes",
        "a word before a match",
    ],
)
def test_a_long_log_is_read_at_once(filler: str) -> None:
    """Far below a second of computing on 400,000 characters, whatever they are."""
    log = filler[-READ_CHARACTERS:] + "\nKeyError: 'the end'"
    started = time.process_time()
    classify(1, log, phase="launch")
    assert time.process_time() - started < 1.5


ACTION = re.compile(
    r"(?:^|: |; |, |, or |and | or |\()(lower|raise|choose|set|leave|change|remove|reset|delete|download|own|move|install|"
    r"update|run|try|find|see|check|start|accept|name|dmesg|env \w+=)\b|engine: \w+ brings it|lists (its flags|what works)"
)
"""A hint says what to do: a verb at the beginning of a clause, an environment variable to set, or where to look."""


def test_every_rule_says_what_to_do() -> None:
    for rule in RULES:
        assert ACTION.search(rule.hint), rule.hint


def test_levels_that_tell_of_no_failure_are_not_read() -> None:
    scary = "torch.OutOfMemoryError: CUDA out of memory"
    for line in (
        f"INFO 11-23 07:00:00 [core.py:1] {scary}",
        f"(EngineCore pid=9) WARNING 11-23 07:00:00 [core.py:1] {scary}",
        f"\x1b[0;36m(APIServer pid=1)\x1b[0;0m (EngineCore pid=9) INFO 11-23 07:00:00 [core.py:1] {scary}",
        f"/venv/torch/x.py:1: UserWarning: {scary}",
        f'    raise RuntimeError("{scary}")',
        f"host:1:2 [0] NCCL INFO {scary}",
    ):
        failure = classify(1, f"{line}\nKeyError: 'model'", phase="launch")
        assert (failure.kind, failure.detail) == (FailureKind.CRASH, "exit status 1: KeyError: 'model'")
    told = classify(
        1, f"\x1b[0;36m(EngineCore pid=9)\x1b[0;0m ERROR 11-23 07:00:00 [core.py:1] {scary}", phase="launch"
    )
    assert (told.kind, told.detail) == (FailureKind.OOM_LAUNCH, scary)


def test_errors_an_engine_survives_are_not_its_end() -> None:
    """vLLM 0.32 logs these as errors and goes on: no FlashAttention, no Triton kernels for one family of models."""
    log = (
        "(Worker pid=7) ERROR 11-23 07:00:00 [fa_utils.py:212] Cannot use FA version 2 is not supported due to "
        "FA2 is unavailable due to: /venv/vllm_flash_attn/_vllm_fa2_C.abi3.so: undefined symbol: _ZN3c10\n"
        "(Worker pid=7) ERROR 11-23 07:00:01 [config.py:35] Failed to import Triton kernels. Please make sure "
        "your triton version is compatible. Error: cannot import name 'routing' from 'triton_kernels.routing'\n"
        "KeyError: 'model'\n"
    )
    failure = classify(1, log, phase="launch", settings={"device": "cuda"})
    assert (failure.kind, failure.detail) == (FailureKind.CRASH, "exit status 1: KeyError: 'model'")


def test_a_driver_that_torch_warns_of_matters_only_to_a_gpu() -> None:
    log = (
        "x.py:1: UserWarning: CUDA initialization: Found no NVIDIA driver on your system.\nKeyError: 'model'"
    )
    assert "KeyError" in classify(1, log, phase="launch").detail
    assert "no NVIDIA driver" in classify(1, log, phase="launch", settings={"device": "cuda"}).detail


def test_what_the_engine_says_of_its_own_end_is_not_the_cause() -> None:
    log = (
        "(Worker_TP0 pid=7) ERROR 11-23 07:00:00 [multiproc_executor.py:1] AssertionError\n"
        "(EngineCore pid=9) ERROR 11-23 07:00:01 [core.py:1] EngineCore failed to start.\n"
        "(EngineCore pid=9) ERROR 11-23 07:00:01 [core.py:1] Exception: WorkerProc initialization failed due to "
        "an exception in a background process. See stack trace for root cause.\n"
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. "
        "Failed core proc(s): {}\n"
    )
    assert classify(1, log, phase="launch").detail == "exit status 1: AssertionError"


def test_a_refused_flag_tells_which_part_of_it() -> None:
    log = (FOLDER / "badflag-old-subflag.log").read_text()
    assert "use_inductor Unexpected keyword argument" in classify(2, log, phase="launch").detail


def test_a_worker_that_was_ended_after_another_failed_is_not_the_cause() -> None:
    log = (
        "(Worker_TP1 pid=8) ERROR 11-23 07:00:00 [multiproc_executor.py:1] KeyError: 'the cause'\n"
        "(EngineCore pid=9) ERROR 11-23 07:00:01 [multiproc_executor.py:2] "
        "Worker proc VllmWorker-0 died unexpectedly (exit code: -15), shutting down executor.\n"
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n"
    )
    failure = classify(1, log, phase="launch")
    assert (failure.kind, failure.detail) == (FailureKind.CRASH, "exit status 1: KeyError: 'the cause'")


def test_errors_of_requests_under_load_are_not_the_servers() -> None:
    log = (
        "(APIServer pid=1) ERROR 11-23 07:00:00 [serving.py:1] ValueError: max_model_len (9) must be larger\n"
        "(EngineCore pid=9) ERROR 11-23 07:00:01 [multiproc_executor.py:2] "
        "Worker proc VllmWorker-0 died unexpectedly (exit code: None), shutting down executor.\n"
    )
    assert classify(0, log, phase="load").detail.startswith("Worker proc VllmWorker-0 died unexpectedly")
