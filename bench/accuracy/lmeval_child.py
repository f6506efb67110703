"""Runs lm-evaluation-harness in the harness's own environment: a job file in, samples as JSONL out.

Started by `bench.accuracy.lmeval`; imports nothing of servetune. The harness's bootstrap is off (ten
seconds, and the statistics are ours).
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any


def main(job_file: str) -> None:
    import lm_eval  # type: ignore[import-not-found,unused-ignore]
    from lm_eval.tasks import TaskManager  # type: ignore[import-not-found,unused-ignore]

    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    manager = TaskManager(include_path=job["include"])
    common: dict[str, Any] = {"model": job["model"], "model_args": job["model_args"], "task_manager": manager}
    found = lm_eval.simple_evaluate(
        **common,
        tasks=[job["task"]],
        apply_chat_template=job["chat"],
        bootstrap_iters=0,
        log_samples=True,
        batch_size=1,
        random_seed=0,
        numpy_random_seed=0,
        torch_random_seed=0,
        fewshot_random_seed=0,
        **chosen(job, manager),
    )
    with Path(job["samples"]).open("w", encoding="utf-8") as file:
        for task, samples in found["samples"].items():
            for sample in samples:
                # `doc_hash` is of the document alone; a filter gives one sample more for each document.
                kept = {k: v for k, v in sample.items() if k not in ("arguments", "doc", "resps")}
                file.write(json.dumps({"task": task, **kept}, default=str) + "\n")


def chosen(job: dict[str, Any], manager: Any) -> dict[str, Any]:
    """`limit` for a plain run; the indices of a split, fixed by their hash, for screening and certifying."""
    if job["split"] == "all":
        return {"limit": job["items"]}
    samples: dict[str, list[int]] = {}
    for name, task in leaves(manager, job["task"]):
        ranked = sorted(range(len(list(task.eval_docs))), key=lambda i: digest(f"order:{name}:{i}"))
        of_split = [
            i for i in ranked if (digest(f"split:{name}:{i}")[0] % 3 == 0) == (job["split"] == "screen")
        ]
        samples[name] = of_split[: job["items"]]
    empty = [name for name, indices in samples.items() if not indices]
    if empty:
        # The harness would take an empty list for "all of them".
        raise SystemExit(f"{', '.join(empty)}: too few items to have any in the split {job['split']}")
    return {"samples": samples}


def leaves(manager: Any, name: str) -> list[tuple[str, Any]]:
    from lm_eval.tasks import get_task_dict

    def walk(tree: dict[Any, Any]) -> list[tuple[str, Any]]:
        flat: list[tuple[str, Any]] = []
        for key, value in tree.items():
            flat += walk(value) if isinstance(value, dict) else [(str(key), value)]
        return flat

    return walk(get_task_dict([name], manager))


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


if __name__ == "__main__":
    main(sys.argv[1])
