"""lm-evaluation-harness as a backend: its own environment and process, its tasks, our pairing and statistics.

`lm-eval:arc_easy` names one of its tasks (needs the hub once), `lm-eval-chat:NAME` asks the chat endpoint, a
.yaml beside the scenario is a local task (works offline with local data). Per item it keeps the harness's
`doc_hash` and `prompt_hash`: items pair on the first, and a comparison whose second differs is refused.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.accuracy.evaluation import Scored, TaskResult
from bench.accuracy.settings import Accuracy
from bench.accuracy.task import ONE_PASS, Ask, Item, Measures, Need, Pass, Reply, Score
from bench.store import write_whole
from serving.engine import Endpoint
from serving.errors import ServetuneError, UserError
from serving.install import environments
from serving.install.environment import Environment

NAME = "lm-eval"
CHILD = Path(__file__).parent / "lmeval_child.py"
METRICS = ("exact_match", "acc", "contains", "f1")
"""Preference among the metrics of a sample; else its first one between 0 and 1."""


class HarnessError(ServetuneError):
    """The harness did not get through a task; the others go on without it."""


class HarnessWatch(Protocol):
    def evaluating(self, task: str, done: int, total: int, items_per_s: float) -> None: ...


class LmEvalTask:
    """One task (or group) of the harness. Asks nothing itself: `run` starts the harness."""

    measures: Measures = "accuracy"
    chance = 0.0
    passes: Sequence[Pass] = ONE_PASS

    def __init__(self, name: str) -> None:
        kind, _, rest = name.partition(":")
        self.chat = kind == "lm-eval-chat"
        self.file = None if rest else Path(name)
        self.task = rest or Path(name).stem
        self.name = re.sub(r"[^\w.-]", "_", f"{kind}-{rest}" if rest else f"lm-eval-{self.task}")
        self.needs = frozenset({Need.CHAT if self.chat else Need.COMPLETIONS})
        if self.file is not None and not self.file.is_file():
            raise UserError(
                f"no lm-eval task file {self.file}", "a .yaml beside the scenario, or lm-eval:NAME"
            )

    def items(self) -> Sequence[Item]:
        return ()

    def asks(self, item: Item) -> tuple[Ask, ...]:
        raise NotImplementedError("the harness asks")

    def score(self, item: Item, answers: Mapping[str, Sequence[Reply]]) -> Score:
        raise NotImplementedError("the harness scores")

    def run(
        self,
        endpoint: Endpoint,
        settings: Accuracy,
        folder: Path,
        concurrency: int,
        watch: HarnessWatch,
        tokenizer: str | None = None,
    ) -> tuple[TaskResult, int]:
        """Result and requests sent. A finished earlier run in `folder` is read, not repeated."""
        samples = folder / f"{self.name}.samples.jsonl"
        if not samples.exists():

            def harness(part: Path) -> None:
                self._start(self._job(endpoint, settings, part, concurrency, tokenizer), folder, watch)

            write_whole(samples, harness)
        lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
        scored = {f"{line['task']}/{line['doc_hash'][:16]}": _scored(line) for line in lines}
        return TaskResult(self.name, "accuracy", 0.0, scored, backend=_version()), len(scored)

    def _job(
        self, endpoint: Endpoint, settings: Accuracy, samples: Path, concurrency: int, tokenizer: str | None
    ) -> dict[str, Any]:
        path = "chat/completions" if self.chat else "completions"
        arguments: dict[str, Any] = {
            "model": endpoint.served_model,
            "base_url": f"{endpoint.url}/v1/{path}",
            "num_concurrent": concurrency,
            "timeout": int(settings.request_timeout_s),
            "max_retries": 3,
            "tokenizer_backend": None if self.chat else "huggingface",
        }
        if not self.chat:
            arguments["tokenizer"] = tokenizer or endpoint.served_model
            longest = endpoint.effective.get("max_model_len")
            if isinstance(longest, int):
                # The harness cuts prompts from the left at its own default of 2,048 tokens otherwise, and
                # takes one token more than it is told.
                arguments["max_length"] = longest - 1
        return {
            "model": "local-chat-completions" if self.chat else "local-completions",
            "model_args": arguments,
            "task": self.task,
            "include": str(self.file.parent) if self.file else None,
            "chat": self.chat,
            "items": settings.limit(self.name),
            "split": settings.split,
            "samples": str(samples),
        }

    def _start(self, job: Mapping[str, Any], folder: Path, watch: HarnessWatch) -> None:
        where = environment()
        if where is None or not where.installed:
            raise UserError(
                f"task {self.name} needs lm-evaluation-harness, which is not installed",
                "python -m serving.install.environments install lm-eval",
            )
        job_file, log = folder / f"{self.name}.job.json", folder / f"{self.name}.log"
        job_file.write_text(json.dumps(job, indent=1), encoding="utf-8")
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        # A task file of one's own reads local data, and must not wait for a hub it does not need.
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"} if self.file else {}
        started = time.monotonic()
        with log.open("wb") as output:
            child = subprocess.Popen(
                [str(where.python), str(CHILD), str(job_file)],
                env=clean | offline | environments.NO_TELEMETRY | {"PYTHONSAFEPATH": "1"},
                stdout=output, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True,
            )  # fmt: skip
            try:
                while child.poll() is None:
                    time.sleep(0.2)
                    done, total = progress(log)
                    if total:
                        watch.evaluating(self.name, done, total, done / (time.monotonic() - started))
            finally:
                if child.poll() is None:
                    child.terminate()
                    child.wait(10)
        if child.returncode:
            lines = [x for x in log.read_text(encoding="utf-8", errors="replace").splitlines() if x.strip()]
            raise HarnessError(
                f"lm-eval failed on {self.task}: {' '.join(lines[-1:])[:300]}", f"its log: {log}"
            )


def environment() -> Environment | None:
    return environments.find(NAME, None, "cpu")


def progress(log: Path) -> tuple[int, int]:
    """Requests done and their number, from the harness's last progress bar; (0, 0): none yet."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        bars = re.findall(rb"Requesting API:.*?(\d+)/(\d+)", file.read())
    return (int(bars[-1][0]), int(bars[-1][1])) if bars else (0, 0)


def _version() -> str:
    found = environment()
    return f"lm-eval {found.version}" if found else "lm-eval"


def _scored(line: Mapping[str, Any]) -> Scored:
    known = {
        m: line[m]
        for m in [*METRICS, *line.get("metrics", ())]
        if isinstance(line.get(m), (int, float, bool))
    }
    value = next((float(v) for v in known.values() if 0 <= float(v) <= 1), None)
    if value is None:
        raise HarnessError(
            f"lm-eval task {line['task']} has no metric between 0 and 1: {sorted(known)}",
            "perplexity tasks are covered by the built-in task text",
        )
    return Scored(value, json.dumps(line.get("filtered_resps"))[:120], str(line["prompt_hash"])[:16])
