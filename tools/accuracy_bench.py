"""Items per second of the evaluation, against what the engine serves when the same bytes are merely posted.

    .venv/bin/python tools/accuracy_bench.py --url http://127.0.0.1:8000 --model NAME [--items 200] [--concurrency 8]
    .venv/bin/python tools/accuracy_bench.py --launch vllm --path .models/smollm2-135m-instruct

The bare client sends bodies encoded beforehand and reads answers without looking at them, in alternation
with the evaluation (A B B A), so that a drift of the machine falls on both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench.accuracy.client import body
from bench.accuracy.evaluate import evaluate
from bench.accuracy.preflight import preflight
from bench.accuracy.settings import Accuracy
from bench.accuracy.task import Item, Task, drawn
from bench.accuracy.tasks import tasks
from servetune.cli.json_output import write_json
from serving.config import ServingConfig
from serving.engine import Endpoint
from serving.engines import engine
from serving.launch.launch import launch


def bare(endpoint: Endpoint, task: Task, items: Sequence[Item], concurrency: int) -> float:
    """Items per second of a client that only posts and reads."""
    bodies = [
        json.dumps({"model": endpoint.served_model, **body(ask)}).encode()
        for i in items
        for ask in task.asks(i)
    ]
    chat = any(ask.kind == "chat" for ask in task.asks(items[0]))
    path = "/v1/chat/completions" if chat else "/v1/completions"

    async def send_all() -> float:
        waiting = iter(bodies)
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        async with httpx.AsyncClient(
            base_url=endpoint.url, timeout=120, limits=limits, trust_env=False
        ) as http:

            async def worker() -> None:
                for content in waiting:
                    answer = await http.post(
                        path, content=content, headers={"Content-Type": "application/json"}
                    )
                    answer.raise_for_status()

            started = time.monotonic()
            await asyncio.gather(*(worker() for _ in range(concurrency)))
            return len(items) / (time.monotonic() - started)

    return asyncio.run(send_all())


def ours(endpoint: Endpoint, task: Task, settings: Accuracy, concurrency: int) -> float:
    """Items per second of the evaluation, its preflight and files included."""
    with tempfile.TemporaryDirectory() as folder:
        made = evaluate(endpoint, [task], settings, Path(folder) / "e", concurrency)
        result = made.tasks[task.name]
        if made.failure or result.errors:
            raise SystemExit(f"error: {made.failure or 'some requests failed'}")
        return len(result.scored) / made.seconds


@contextmanager
def endpoint_of(options: argparse.Namespace) -> Iterator[Endpoint]:
    if options.url:
        yield Endpoint(options.url.rstrip("/"), options.model, "endpoint", "unknown")
        return
    eager = {"enforce_eager": True, "max_num_seqs": 32, "kv_cache_bytes": 1 << 30, "max_model_len": 2048}
    settings = eager if options.launch == "vllm" else {}
    config = ServingConfig.model_validate({"engine": options.launch, "model": options.path, **settings})
    with (
        tempfile.TemporaryDirectory() as folder,
        launch(engine(config.engine), config, Path(folder)) as server,
    ):
        yield server.endpoint


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url")
    parser.add_argument("--model")
    parser.add_argument("--launch", choices=("vllm", "transformers", "sim"))
    parser.add_argument("--path", default=".models/smollm2-135m-instruct")
    parser.add_argument("--task", default="facts")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--json", metavar="FILE|-")
    options = parser.parse_args()
    if bool(options.url) == bool(options.launch) or (options.url and not options.model):
        parser.error("either --url and --model, or --launch")
    task = tasks([options.task])[0]
    settings = Accuracy(tasks=(task.name,), items=options.items)
    items = drawn(task.items(), "all", options.items)
    with endpoint_of(options) as endpoint:
        started = time.monotonic()
        refusal = preflight(endpoint, [task]).refusal(task)
        ready_s = time.monotonic() - started
        if refusal:
            raise SystemExit(f"error: {refusal}")
        bare(endpoint, task, items[: 2 * options.concurrency], options.concurrency)
        rates: dict[str, list[float]] = {"bare": [], "ours": []}
        for name in ("bare", "ours", "ours", "bare"):
            if name == "bare":
                rates[name].append(bare(endpoint, task, items, options.concurrency))
            else:
                rates[name].append(ours(endpoint, task, settings, options.concurrency))
    means = {name: sum(values) / len(values) for name, values in rates.items()}
    found = {
        "task": task.name, "items": len(items), "concurrency": options.concurrency, "preflight_s": ready_s,
        "bare_items_per_s": means["bare"], "items_per_s": means["ours"],
        "share_of_what_the_engine_serves": means["ours"] / means["bare"], "passes": rates,
    }  # fmt: skip
    print(
        f"{task.name}: {means['ours']:.1f} items/s of {means['bare']:.1f} that the engine serves "
        f"({means['ours'] / means['bare']:.0%}) at concurrency {options.concurrency}; preflight {ready_s:.2f} s",
        file=sys.stderr,
    )
    write_json(found, options.json or "-")


if __name__ == "__main__":
    main()
