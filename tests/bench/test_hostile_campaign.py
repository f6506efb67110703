"""A campaign over a server that answers oddly: each odd answer costs its point, with the reason, and no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import campaign
from bench.records.folder import RunFolder
from bench.records.model import RequestError
from servetune.cli.bench import run
from tests.support.odd_server import Odd, odd_server

GOOD = 8
SCENARIO = """\
schema: 1
name: odd
question: does one odd answer end the campaign?
device: cpu
model: {{name: m, path: m, tokenizer: none}}
engines:
  - engine: endpoint
    settings: {{url: "{url}"}}
workloads:
  - {{name: w, input_tokens: 16, output_tokens: {tokens}, concurrency: 2, requests: 6, warmup_requests: 1,
     request_timeout_s: 10s}}
"""

ODD: dict[str, tuple[Odd, RequestError | None, str]] = {
    "a count beyond int64": (
        lambda s, asked: s.stream(asked, count="9" * 30), RequestError.MALFORMED, "usage.completion_tokens is 999"),
    "a negative count": (
        lambda s, asked: s.stream(asked, count="-5"), RequestError.MALFORMED, "usage.completion_tokens is -5"),
    "half a character": (
        lambda s, asked: s.stream(asked, text='"\\ud83d"'), None, "lone surrogates"),
    "half a finish reason": (
        lambda s, asked: s.stream(asked, first='{"choices":[{"text":"x","finish_reason":"\\ud800"}]}'), None, ""),
    "an error in half words": (
        lambda s, asked: s.stream(asked, first='{"error":{"message":"no \\ud800 room"}}'), RequestError.IN_STREAM,
        "no \ufffd room"),
    "nested without end": (
        lambda s, asked: s.stream(asked, first="[" * 100_000), RequestError.MALFORMED, "nested too deeply"),
    "line separators": (
        lambda s, asked: s.stream(asked, text='" \u2028\x85"'), None, ""),
    "bytes that are not UTF-8": (
        lambda s, asked: s.whole(500, b"\xff\xfe \xed\xa0\x80 \x1b[31mred"), RequestError.HTTP_STATUS, "500: "),
    "another protocol": (
        lambda s, asked: s.wfile.write(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
        RequestError.MALFORMED, "another protocol"),
}  # fmt: skip


@pytest.mark.parametrize(
    "models", [b"<!doctype html>", b'[{"id":"m"},null]', b'{"data":null}'], ids=["html", "list", "null"]
)
def test_an_odd_answer_costs_its_point_and_resume_goes_on(
    models: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(campaign, "_calibration", lambda plan: None)  # a minute, and of the machine
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    chosen = ODD if models.startswith(b"<") else dict(list(ODD.items())[:2])
    odd = {GOOD + 1 + number: answer for number, (answer, _, _) in enumerate(chosen.values())}
    metrics = b'# TYPE vllm:e2e_request_latency_seconds histogram\nvllm:e2e_request_latency_seconds_bucket{le="x"} 1\n'
    gets = {
        "/v1/models": models,
        "/version": b'{"version":"\\ud800\\u001b[31m1"}',
        "/health": b"",
        "/metrics": metrics,
    }
    file, out = tmp_path / "odd.yaml", tmp_path / "run"
    with odd_server(odd, gets) as url:
        file.write_text(SCENARIO.format(url=url, tokens=[GOOD, *odd]))
        assert run(file, out=out, resume=False, json=None) == 0
        said = capsys.readouterr()
        folder = RunFolder.open(out)
        runs = {run.point.load.output_tokens: run for run in folder.runs()}
        assert list(runs) == [GOOD, *odd]
        assert all(record.ok for record in runs[GOOD].records)
        for tokens, (name, (_, error, words)) in zip(odd, chosen.items(), strict=True):
            records = runs[tokens].records
            assert len(records) == 6, name
            assert {record.error for record in records} == {error}, name
            assert all(words in record.error_detail for record in records), name
        # Interrupted before its last point: what is left is measured, and what is there is read again.
        events = out / "events.jsonl"
        lines = [line for line in events.read_text().splitlines() if '"finished"' not in line]
        events.write_text(
            "\n".join(line for line in lines if json.loads(line).get("key") != runs[max(odd)].point.key)
            + "\n"
        )
        assert run(file, out=out, resume=True, json=str(tmp_path / "out.json")) == 0
    assert len(RunFolder.open(out).runs()) == 1 + len(odd)
    points = json.loads((tmp_path / "out.json").read_text())["points"]
    assert sum(len(point["errors"]) for point in points) == sum(
        error is not None for _, error, _ in chosen.values()
    )
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in (said.out, said.err, page):
        assert "\x1b[31m" not in text
    assert "usage.completion_tokens is" in said.out
    assert "usage.completion_tokens is" in page


def test_half_characters_in_what_is_stored_do_not_break_a_later_report(tmp_path: Path) -> None:
    """A folder of an earlier servetune may hold them in its JSON."""
    from servetune.cli.report import show_folder
    from tests.support.report_fixture import build

    folder = build(tmp_path / "run", requests=24, sim=False)
    key = folder.runs()[0].point.key
    stored = folder.path / "points" / key / "point.json"
    facts = json.loads(stored.read_text())
    stored.write_text(
        json.dumps({**facts, "notes": ["cut \ud83d", "\ud83d\ude00"], "engine_version": "1 \ud800"})
    )
    show_folder(folder, json=None)
    assert folder.run(key).notes == ("cut \ufffd", "\N{GRINNING FACE}")
