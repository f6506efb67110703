"""What a tool reported of a load, held against what the server truly did; both parts as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rivals.clients import Told

from bench.proof.conformance import EXPECTED

STREAMS = "plain:50:10"
"""The server's script under many users: the first token after 50 ms, then one every 10."""
TOLERANCE_MS, TOLERANCE = 20.0, 0.05


@dataclass(frozen=True)
class Truth:
    """What the server did for the last `requests` it got; percentiles as numpy's, milliseconds.

    busy: the share of users x time in which the server had a request to work on; a tool that is slow leaves it idle.
    """

    requests: int
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    tpot_p50_ms: float | None
    e2e_p50_ms: float | None
    busy: float | None


@dataclass(frozen=True)
class Run:
    client: str
    version: str
    model: str
    streams: int
    requests: int
    output_tokens: int
    truth: Truth
    told: Told | None
    status: int
    wall_s: float
    cpu_s: float
    last_line: str

    @property
    def tool(self) -> str:
        return f"{self.client} {self.version}"


def wrong(run: Run) -> list[str]:
    """What is not so in a tool's report: counts, tokens, and times more than 20 ms (TPOT: 5%) off."""
    if run.told is None:
        return [run.last_line]
    told, true = run.told, run.truth
    fails = run.model in EXPECTED and EXPECTED[run.model].error is not None
    good = 0 if fails else run.requests
    found = []
    if told.completed != good:
        word = "failures reported as successes" if fails else f"of {run.requests} successes reported"
        found.append(f"{told.completed} {word}")
    if not fails and told.failed:
        found.append(f"{told.failed} reported as failed")
    if fails or not told.completed:
        return found
    tokens = run.requests * run.output_tokens
    if told.output_tokens is not None and abs(told.output_tokens - tokens) > 0.001 * tokens:
        found.append(f"{told.output_tokens / run.requests:.3g} tokens a request, truly {run.output_tokens}")
    for name, read, truly in (
        ("TTFT", told.ttft_p50_ms, true.ttft_p50_ms),
        ("TTFT p99", told.ttft_p99_ms, true.ttft_p99_ms),
        ("E2E", told.e2e_p50_ms, true.e2e_p50_ms),
    ):
        if read is not None and truly is not None and abs(read - truly) > TOLERANCE_MS:
            found.append(f"{name} {read:,.1f} ms, truly {truly:,.1f}")
    read, truly = told.tpot_p50_ms, true.tpot_p50_ms
    if read is not None and truly is not None and abs(read - truly) > TOLERANCE * truly:
        found.append(f"TPOT {read:.2f} ms, truly {truly:.2f}")
    return found


def tables(runs: Sequence[Run], client_cores: int) -> str:
    """Both parts as Markdown."""
    lines = [f"{client_cores} core{'s' * (client_cores > 1)} for the client, one for the server.", ""]
    names = list(dict.fromkeys(run.tool for run in runs))
    heads = ("streams", "client", "TTFT p50 (true)", "TTFT p99 (true)", "TPOT (true)", "E2E (true)",
             "server kept busy", "CPU s, whole command", "wall s")  # fmt: skip
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for run in (run for run in runs if run.model == STREAMS):
        told = run.told or Told(0, 0)
        cells = [
            f"{_ms(getattr(told, name), digits)} ({_ms(getattr(run.truth, name), digits)})"
            for name, digits in (
                ("ttft_p50_ms", 1),
                ("ttft_p99_ms", 1),
                ("tpot_p50_ms", 2),
                ("e2e_p50_ms", 0),
            )
        ]
        busy = "-" if run.truth.busy is None else f"{run.truth.busy:.0%}"
        who = run.tool + (f" ({told.verdict})" if told.verdict else "")
        lines.append(
            f"| {run.streams} | {who} | {' | '.join(cells)} | {busy} | {run.cpu_s:.0f} | {run.wall_s:.0f} |"
        )
    cases = list(dict.fromkeys(run.model for run in runs if run.model != STREAMS))
    if cases:
        lines += ["", "| case | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for case in cases:
        found = {run.tool: wrong(run) for run in runs if run.model == case}
        cells = ["not run" if name not in found else "; ".join(found[name]) or "right" for name in names]
        lines.append(f"| `{case}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ms(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
