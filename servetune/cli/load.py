"""`servetune load`: measures any OpenAI-compatible endpoint; the same code that `servetune bench` uses."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bench.point import Load
    from bench.records.model import Judgement, Run
    from bench.scenario.slo import Slo

SERVER, REQUESTS, LOAD, FIND_RATE = "Server", "Requests", "Load", "Find rate"
ARRIVALS = re.compile(r"(poisson|constant|gamma|ramp|burst)(?::([0-9.]+))?")
ARGUMENT = {"gamma": "cv", "ramp": "ramp_to_per_s", "burst": "burst_size"}


class EndpointKind(StrEnum):
    completions = "completions"
    chat = "chat"


def load(
    url: Annotated[
        str, typer.Option(help="Base URL of the server, with or without /v1.", rich_help_panel=SERVER)
    ],
    model: Annotated[str, typer.Option(help="The model name that requests carry.", rich_help_panel=SERVER)],
    input_tokens: Annotated[int, typer.Option(help="Prompt length, tokens.", rich_help_panel=REQUESTS)] = 128,
    output_tokens: Annotated[
        int, typer.Option(help="Output length asked for, tokens.", rich_help_panel=REQUESTS)
    ] = 64,
    concurrency: Annotated[
        int | None, typer.Option(help="Closed loop: so many users.", rich_help_panel=LOAD)
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Open loop: requests per second.", rich_help_panel=LOAD)
    ] = None,
    arrivals: Annotated[
        str,
        typer.Option(
            help="With --rate: poisson, constant, gamma:CV, ramp:TO_RATE, burst:SIZE.", rich_help_panel=LOAD
        ),
    ] = "poisson",
    trace: Annotated[
        Path | None, typer.Option(help="Replay a trace: CSV, or Mooncake JSONL.", rich_help_panel=LOAD)
    ] = None,
    requests: Annotated[
        int | None, typer.Option(help="End after so many requests.", rich_help_panel=LOAD)
    ] = None,
    duration: Annotated[
        str | None, typer.Option(help="Start no request after this: 30s, 5min.", rich_help_panel=LOAD)
    ] = None,
    warmup: Annotated[
        int, typer.Option(help="Requests before the load, not counted.", rich_help_panel=LOAD)
    ] = 2,
    turns: Annotated[
        int,
        typer.Option(help="Turns of a session, each after the previous answer.", rich_help_panel=REQUESTS),
    ] = 1,
    shared_prefix_tokens: Annotated[
        int, typer.Option(help="Tokens that all prompts begin with.", rich_help_panel=REQUESTS)
    ] = 0,
    tokenizer: Annotated[
        str,
        typer.Option(
            help="Folder or hub id for exact lengths; none: words, as the server's usage counts them.",
            rich_help_panel=REQUESTS,
        ),
    ] = "none",
    endpoint: Annotated[
        EndpointKind, typer.Option(help="Which API.", rich_help_panel=SERVER)
    ] = EndpointKind.completions,
    stream: Annotated[
        bool, typer.Option(help="Stream the answers (without: no TTFT).", rich_help_panel=REQUESTS)
    ] = True,
    temperature: Annotated[float, typer.Option(help="Sampling temperature.", rich_help_panel=REQUESTS)] = 0.0,
    timeout: Annotated[
        str, typer.Option(help="Longest wait for the next output of a request.", rich_help_panel=SERVER)
    ] = "120s",
    workers: Annotated[
        int, typer.Option(help="Load processes; one schedule is split over them.", rich_help_panel=LOAD)
    ] = 1,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict-openai",
            help="Leave out ignore_eos and min_tokens (vLLM's extensions).",
            rich_help_panel=SERVER,
        ),
    ] = False,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the key.", rich_help_panel=SERVER)
    ] = None,
    slo: Annotated[
        list[str] | None, typer.Option(help="Such as ttft:p99<=500ms; repeatable.", rich_help_panel=FIND_RATE)
    ] = None,
    find_rate: Annotated[
        bool,
        typer.Option(
            "--find-rate", help="Find the highest rate that meets every --slo.", rich_help_panel=FIND_RATE
        ),
    ] = False,
    budget: Annotated[
        str, typer.Option(help="With --find-rate: the most time to spend.", rich_help_panel=FIND_RATE)
    ] = "30min",
    resolution: Annotated[
        float,
        typer.Option(
            help="With --find-rate: stop when the interval is this narrow.",
            min=0.001,
            max=1,
            rich_help_panel=FIND_RATE,
        ),
    ] = 0.05,
    seed: Annotated[int, typer.Option(help="Of prompts and arrivals.", rich_help_panel=REQUESTS)] = 0,
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write the data as JSON; - for stdout.")
    ] = None,
) -> int:
    """Measure a running server. Exit status 0; 1 when the measurement is invalid."""
    from bench.scenario.slo import parse
    from bench.traffic.prompts import prompts as prompts_of
    from servetune.cli.json_output import write_json
    from serving.engine import Endpoint
    from serving.errors import UserError
    from serving.units import seconds

    try:
        slos = tuple(parse(text) for text in slo or ())
        duration_s = None if duration is None else seconds(duration)
        timeout_s, budget_s = seconds(timeout), seconds(budget)
    except ValueError as error:
        raise UserError(f"allowed: {error}") from error
    asked = _load(
        concurrency, rate, arrivals, trace, requests, duration_s, find_rate,
        input_tokens=input_tokens, output_tokens=output_tokens, warmup_requests=warmup, turns=turns,
        shared_prefix_tokens=shared_prefix_tokens, endpoint=endpoint.value, stream=stream,
        temperature=temperature, request_timeout_s=timeout_s, silence_timeout_s=min(60.0, timeout_s),
    )  # fmt: skip
    base = _base(url)
    server = Endpoint(base, model, "endpoint", "unknown", api_key_env=api_key_env)
    prompts = prompts_of(None if tokenizer == "none" else tokenizer)
    interrupted = False
    if find_rate:
        from servetune.cli.load_find import find

        data, verdict = find(
            server, asked, prompts, slos, budget_s=budget_s, resolution=resolution, seed=seed,
            workers=workers, lenient=strict, start_rate_per_s=rate, table=json != "-",
        )  # fmt: skip
    else:
        from bench.measure_load import INTERRUPTED, measure
        from bench.metrics import enough

        for line in enough.lines(enough.shortfalls([asked], {str(slo): slo.name for slo in slos})):
            print(f"warning: {line}", file=sys.stderr)
        run, judgement = measure(server, asked, prompts, slos, seed=seed, workers=workers, lenient=strict)
        data, verdict = as_json(run, judgement, slos), judgement.verdict
        if json != "-":
            from servetune.report.load_table import show_load

            show_load(run, judgement, slos)
        interrupted = INTERRUPTED in run.notes
    if json:
        write_json(data, json)
    if interrupted:
        raise KeyboardInterrupt
    return 1 if verdict == "invalid" else 0


def _base(url: str) -> str:
    """The base address of the server. UserError for what cannot be asked, or would not be sent."""
    from serving.engines.endpoint import url_problems
    from serving.errors import UserError

    wrong = url_problems(url)
    if wrong:
        raise UserError(f"--url: {wrong[0]}", "such as http://127.0.0.1:8000; the key: --api-key-env NAME")
    return url.rstrip("/").removesuffix("/v1")


def as_json(run: Run, judgement: Judgement, slos: tuple[Slo, ...]) -> dict[str, Any]:
    """The contract of `servetune load --json`; nulls where the sample is too small, with `needed` beside."""
    from bench.metrics import compute, enough, needed, percentiles
    from bench.metrics.intervals import intervals
    from bench.metrics.view import View
    from bench.records import complaints
    from bench.records.model import RequestError
    from bench.result import slo_state

    metrics = compute(run, slos=slos)
    view = View(run, slos)
    window, lacking = view.window, enough.lacking(view)
    errors = [record.error for record in run.records]
    return {
        "verdict": judgement.verdict,
        "reasons": [
            {"check": r.check, "verdict": r.verdict, "text": r.text, "remedy": r.remedy}
            for r in judgement.reasons
        ],
        "requests": {
            "completed": errors.count(None),
            "failed": sum(e not in (None, RequestError.CENSORED) for e in errors),
            "censored": errors.count(RequestError.CENSORED),
        },
        "window_s": window.end_s - window.start_s,
        "request_throughput_per_s": metrics["request_throughput_per_s"],
        "output_token_throughput_per_s": metrics["output_token_throughput_per_s"],
        **percentiles(run),
        "needed": needed(run),
        "slos": [
            {
                "slo": str(slo),
                "state": state,
                "undetermined": lacking.get(slo.name, "") if state == "unknown" else None,
            }
            for slo, state in ((slo, slo_state(slo, metrics)) for slo in slos)
        ],
        "client": {
            "cpu_share": run.client.cpu_share if run.client else None,
            "cpu_us_per_event": metrics["client_cpu_us_per_event"],
            "workers": run.client.workers if run.client else None,
        },
        "metrics": metrics,
        "intervals": {name: asdict(interval) for name, interval in intervals(run).items()},
        "errors": complaints.as_json(complaints.of_run(run)),
        "notes": [*run.notes, *complaints.heard(run)],
    }


def _load(
    concurrency: int | None, rate: float | None, arrivals: str, trace: Path | None, requests: int | None,
    duration_s: float | None, find_rate: bool, **more: Any,
) -> Load:  # fmt: skip
    """The load the options describe. UserError for options that do not go together."""
    from bench.point import Load
    from serving.errors import UserError

    given = [
        n for n, v in (("--concurrency", concurrency), ("--rate", rate), ("--trace", trace)) if v is not None
    ]
    if find_rate and given not in ([], ["--rate"]):
        raise UserError(f"--find-rate chooses the rate itself; found {' '.join(given)}", "leave it away")
    if not find_rate and len(given) != 1:
        raise UserError(
            f"one of --concurrency, --rate, --trace is needed; found {' and '.join(given) or 'none'}",
            "servetune load --help",
        )
    if not find_rate and requests is None and duration_s is None and trace is None:
        raise UserError("the load has no end", "give --requests N or --duration 60s")
    if trace is not None:
        return Load(
            "trace", arrivals="trace", trace=str(trace), requests=requests, duration_s=duration_s, **more
        )
    if concurrency is not None:
        return Load("load", concurrency=concurrency, requests=requests, duration_s=duration_s, **more)
    match = ARRIVALS.fullmatch(arrivals)
    if match is None or (match[2] is None) != (match[1] not in ARGUMENT):
        raise UserError(f"--arrivals {arrivals}", "poisson, constant, gamma:CV, ramp:TO_RATE or burst:SIZE")
    if match[2] is not None:
        more[ARGUMENT[match[1]]] = int(match[2]) if match[1] == "burst" else float(match[2])
    return Load(
        "load", arrivals=match[1], rate_per_s=rate or 1.0, requests=requests, duration_s=duration_s, **more  # type: ignore[arg-type]
    )  # fmt: skip
