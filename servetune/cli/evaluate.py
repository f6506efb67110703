"""`servetune evaluate`: scores a server that runs already, into a folder that `servetune gate` compares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate_command(
    url: Annotated[str, typer.Option(help="Base URL of the server, without /v1.")],
    model: Annotated[str, typer.Option(help="The name requests carry.")],
    out: Annotated[Path, typer.Option(help="Folder of the evaluation; an unfinished one is gone on with.")],
    task: Annotated[
        list[str] | None, typer.Option(help="Task, suite, .jsonl or .yaml file; repeatable. Default: quick.")
    ] = None,
    items: Annotated[int | None, typer.Option(help="Most items of one task.", min=1)] = None,
    concurrency: Annotated[int, typer.Option(help="Items asked at a time.", min=1)] = 8,
    baseline: Annotated[
        Path | None,
        typer.Option(help="Evaluation of the baseline: stop as soon as the candidate is rejected."),
    ] = None,
    within: Annotated[str | None, typer.Option(help="Stop asking after this long, such as 60s.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or hub id, for lm-eval tasks.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Name of the variable that holds the key.")] = None,
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write the data as JSON to a file, or -.")
    ] = None,
) -> int:
    """Score a running server on accuracy, stability and security tasks; `servetune gate` compares two."""
    from bench.accuracy import evaluation
    from bench.accuracy.evaluate import evaluate
    from bench.accuracy.settings import Accuracy
    from bench.accuracy.tasks import tasks
    from servetune.cli.json_output import write_json
    from servetune.report.evaluation import Bar, as_json, show_evaluation
    from serving.engine import Endpoint
    from serving.errors import UserError
    from serving.units import seconds

    names = tuple(task or ("quick",))
    try:
        limit = None if within is None else seconds(within)
    except ValueError as error:
        raise UserError(f"--within: {error}", "write it like 60s") from error
    settings = Accuracy(tasks=names, items=items, within_s=limit)
    endpoint = Endpoint(url.rstrip("/"), model, "endpoint", "unknown", api_key_env=api_key_env)
    reference = evaluation.load(baseline) if baseline else None
    with Bar() as bar:
        made = evaluate(
            endpoint, tasks(names, Path.cwd()), settings, out, concurrency, bar,
            identity={"url": endpoint.url, "model": model}, tokenizer=tokenizer, baseline=reference,
        )  # fmt: skip
    if made.refused and not made.tasks:
        first = next(iter(made.refused.items()))
        raise UserError(f"{first[0]}: {first[1]}", "choose a task this engine can answer: --task answers")
    if json:
        write_json(as_json(made), json)
    if json != "-":
        show_evaluation(made)
    return 1 if made.failure or made.refused or made.rejected else 0
