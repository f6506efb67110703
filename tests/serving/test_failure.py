"""Failure classes: each from a real log, and no log that can break the classifier."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import FailureKind
from serving.failure.classify import RULES, TAIL_LINES, classify, tail

LOGS = Path(__file__).parents[1] / "logs"
K = FailureKind

REAL = {
    "vllm-0.32.0-cpu-badflag": (2, K.BAD_FLAG, "unrecognized arguments: --no-such-flag"),
    "vllm-0.32.0-cpu-bnb": (1, K.UNSUPPORTED, "Unknown quantization method: bitsandbytes"),
    "vllm-0.32.0-cpu-fp8": (1, K.UNSUPPORTED, "static_scaled_fp8_quant"),
    "vllm-0.32.0-cpu-w8a16": (1, K.UNSUPPORTED, "Failed to find a kernel"),
    "vllm-0.32.0-cpu-len": (1, K.UNSUPPORTED, "max_model_len (100000) is greater than the derived"),
    "vllm-0.32.0-cpu-batch": (1, K.UNSUPPORTED, "max_num_batched_tokens (4) must be greater"),
    "vllm-0.32.0-cpu-oomkv": (1, K.OOM_LAUNCH, "is less than requested memory for kv"),
    "vllm-0.32.0-cpu-port": (1, K.PORT_TAKEN, "ddress already in use"),
    "vllm-0.24.0-cuda-bad-flag": (2, K.BAD_FLAG, "unrecognized arguments: --no-such-flag"),
    "vllm-0.24.0-cuda-quantization": (1, K.UNSUPPORTED, "Cannot find the config file for modelopt_fp4"),
    "vllm-0.24.0-cuda-too-long": (1, K.UNSUPPORTED, "max_model_len (100000) is greater than the derived"),
    "public-cuda-oom-launch": (1, K.OOM_LAUNCH, "Free memory on device"),
    "public-cuda-oom-cache-blocks": (1, K.OOM_LAUNCH, "No available memory for the cache blocks"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_logs_of_launches(name: str) -> None:
    code, kind, text = REAL[name]
    log = (LOGS / f"{name}.log").read_text()
    failure = classify(code, log, phase="launch", settings={"dtype": "float16"})
    assert failure.kind == kind
    assert text in failure.detail
    assert "\n" not in failure.detail
    assert not failure.detail.startswith("(")
    assert failure.hint
    assert failure.exit_code == code
    assert failure.log_tail[-1] == log.strip().splitlines()[-1]
    assert failure.settings == {"dtype": "float16"}


def test_every_log_is_held_against_a_class() -> None:
    elsewhere = {
        "vllm-0.32.0-cpu-int8",
        "vllm-0.32.0-cpu-notready",
        "vllm-0.32.0-cpu-kill9",
        "public-cuda-oom-load",
    }
    assert {path.stem for path in LOGS.glob("*.log")} == set(REAL) | elsewhere


def test_out_of_memory_under_load_is_another_class_than_at_launch() -> None:
    log = (LOGS / "public-cuda-oom-load.log").read_text()
    failure = classify(1, log, phase="load")
    assert failure.kind == K.OOM_LOAD
    assert failure.detail.startswith("torch.OutOfMemoryError: CUDA out of memory")


def test_a_worker_killed_from_outside() -> None:
    """vLLM's API server ends by itself then, with status 0, and its log does not know the signal."""
    log = (LOGS / "vllm-0.32.0-cpu-kill9.log").read_text()
    failure = classify(0, log, phase="load")
    assert failure.kind == K.CRASH
    assert failure.detail.startswith("Worker proc VllmWorker-0 died unexpectedly")
    told = classify(0, log.replace("exit code: None", "exit code: -9"), phase="load")
    assert told.kind == K.KILLED


def test_not_ready_in_time_waits_are_told() -> None:
    log = (LOGS / "vllm-0.32.0-cpu-notready.log").read_text()
    failure = classify(None, log, phase="launch", behaviour="not_ready", waited_s=6.0)
    assert failure.kind == K.NOT_READY
    assert "6 s" in failure.detail


def test_a_silent_server_hangs_unless_its_log_names_the_cause() -> None:
    assert classify(None, "all is well", phase="load", behaviour="silent").kind == K.HANG
    log = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    assert classify(None, log, phase="load", behaviour="silent").kind == K.OOM_LOAD


@pytest.mark.parametrize(
    ("code", "log", "kind"),
    [
        (-signal.SIGKILL, "", K.KILLED),
        (-signal.SIGTERM, "", K.KILLED),
        (-signal.SIGSEGV, "", K.CRASH),
        (-signal.SIGABRT, "", K.CRASH),
        (0, "", K.CRASH),
        (3, "KeyError: 'x'", K.CRASH),
        (1, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", K.OOM_LAUNCH),
        (2, "Error: No such option: --wrong", K.BAD_FLAG),
        (1, "[Errno 98] error while attempting to bind on address: address already in use", K.PORT_TAKEN),
    ],
)
def test_exit_codes_and_short_logs(code: int, log: str, kind: FailureKind) -> None:
    assert classify(code, log, phase="launch").kind == kind


def test_the_kernels_out_of_memory_killer_is_not_a_kill_from_outside() -> None:
    assert classify(-9, "", phase="launch", out_of_host_memory=True).kind == K.OOM_LAUNCH
    assert classify(-9, "", phase="load", out_of_host_memory=True).kind == K.OOM_LOAD
    assert classify(-9, "", phase="load", out_of_host_memory=False).kind == K.KILLED


def test_the_cause_is_told_rather_than_its_consequence() -> None:
    log = (
        "(EngineCore pid=9) ERROR 11-23 07:00:00 [core.py:1] KeyError: 'the cause'\n"
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n"
    )
    assert "the cause" in classify(1, log, phase="launch").detail


def test_requests_refused_under_load_do_not_explain_a_crash() -> None:
    log = "ValueError: max_tokens must be at least 1\nerror: argument of a request\nKeyError: 'real'"
    failure = classify(1, log, phase="load")
    assert failure.kind == K.CRASH
    assert "real" in failure.detail


@given(
    st.one_of(st.none(), st.integers(-70, 255)),
    st.text(),
    st.sampled_from(("launch", "load")),
    st.sampled_from(("exited", "not_ready", "silent", "failing")),
    st.booleans(),
)
def test_any_log_and_status_yields_a_failure(code, log, phase, behaviour, oom) -> None:  # type: ignore[no-untyped-def]
    failure = classify(code, log, phase=phase, behaviour=behaviour, out_of_host_memory=oom)
    assert failure.detail
    assert failure.hint
    assert len(failure.log_tail) <= TAIL_LINES


@given(st.sampled_from(RULES), st.text(alphabet=st.characters(exclude_characters="\r\n"), max_size=60))
def test_a_rules_text_is_found_anywhere_in_a_long_log(rule, noise) -> None:  # type: ignore[no-untyped-def]
    examples = {
        K.PORT_TAKEN: "OSError: [Errno 98] address already in use",
        K.OOM_LAUNCH: "torch.OutOfMemoryError: CUDA out of memory.",
        K.BAD_FLAG: "vllm: error: unrecognized arguments: --x",
        K.UNSUPPORTED: "ValueError: Failed to find a kernel that can implement it",
        K.KILLED: "Worker proc VllmWorker-0 died unexpectedly (exit code: -9), shutting down executor.",
        K.HANG: "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=2, OpType=ALLREDUCE)",
        K.NOT_READY: "TimeoutError: Timed out waiting for engine core processes to start.",
        K.CRASH: "Worker proc VllmWorker-0 died unexpectedly (exit code: None), shutting down executor.",
    }
    log = "\n".join(["line"] * 500 + [examples[rule.kind]] + ["line"] * 500)
    assert classify(1, log, phase="launch").kind == rule.kind


def test_the_tail_is_short_and_without_blank_lines() -> None:
    kept = tail("\n".join(["x" * 5000, ""] * 200))
    assert len(kept) == TAIL_LINES
    assert max(map(len, kept)) <= 2000
