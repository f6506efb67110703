"""A failing load says why: kinds and status codes, counts, the server's own words, what to type; everywhere."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.checks import judge
from bench.point import Load, Point
from bench.records import complaints
from bench.records.model import ClientHealth, Record, RequestError, Run
from bench.result import outcomes
from bench.scenario import scenariofile
from servetune.cli.main import main
from servetune.cli.report import as_json
from servetune.report import failed, load_table, page
from servetune.report.ranking import jobs
from serving.config import ServingConfig
from tests.support.odd_server import Odd, odd_server
from tests.support.report_fixture import build

EVIL = "</td><script>alert(1)</script>[red]x[/red]\x1b]0;owned\x07\u202e\u2028\ud800"


def request(
    number: int, detail: str, status: int | None = 404, kind: RequestError | None = RequestError.HTTP_STATUS
) -> Record:
    return Record(number, number * 0.1, number * 0.1, closed_s=number * 0.1 + 0.01, asked_output_tokens=4,
                  status=status, error=kind, error_detail=detail)  # fmt: skip


def run_of(*records: Record, notes: tuple[str, ...] = ()) -> Run:
    config = ServingConfig(engine="endpoint", model="m", url="http://127.0.0.1:9/api")
    client = ClientHealth(1, 0.1, 0.1, 10, 0.1, 0.2, notes)
    return Run(
        Point(config, Load("w", 4, 4, concurrency=1, requests=9)), records, client=client, load_end_s=1.0
    )


def test_groups_by_kind_and_status_with_first_and_most_frequent_words() -> None:
    run = run_of(
        request(3, "404: no such route"),
        request(2, "404: no such route"),
        request(1, "404: still loading"),
        request(4, "", None, RequestError.CONNECT),
        request(5, "503: full", 503),
        request(6, "the load was stopped", None, RequestError.CENSORED),
        request(7, "", 200, None),
    )
    found = complaints.of_run(run)
    assert [(g.name, g.count, g.first_words, g.frequent_words, g.frequent_count) for g in found] == [
        ("http status 404", 3, "still loading", "no such route", 2),
        ("connect", 1, "", "", 1),
        ("http status 503", 1, "full", "full", 1),
    ]
    assert "http://127.0.0.1:9/api/v1/completions was asked" in found[0].hint
    assert "curl http://127.0.0.1:9/api/v1/models" in found[1].hint
    told = complaints.as_json(found)[0]
    assert told["kind"] == "http_status"
    assert (told["status"], told["count"], told["first_words"]) == (404, 3, "still loading")
    json.dumps(told)


def test_every_kind_and_status_has_something_to_type() -> None:
    point = run_of().point
    for kind in set(RequestError) - {RequestError.CENSORED}:
        for status in (None, 200, 302, 400, 401, 403, 404, 405, 413, 418, 422, 429, 500, 502, 503, 504):
            hint = complaints.hint(complaints.Failed(kind, status, 1, "w", "w", 1), point)
            assert hint
            assert "{asked}" not in hint
            assert "{base}" not in hint
    refused = complaints.Failed(
        RequestError.CONNECT, None, 1, "SSLCertVerificationError: certificate verify", "", 1
    )
    assert "SSL_CERT_FILE" in complaints.hint(refused, point)


def test_words_are_one_line_of_bounded_length_and_do_nothing_to_a_terminal() -> None:
    words = complaints.failed([request(0, "500: " + EVIL + "x" * 5000, 500)])[0].first_words
    assert words.isprintable()
    assert len(words) <= 300
    words.encode()


def test_groups_of_several_runs_are_added_up() -> None:
    one = complaints.of_run(run_of(request(0, "404: a"), request(1, "503: b", 503)))
    other = complaints.of_run(run_of(*(request(n, "404: c") for n in range(3))))
    found = complaints.merged((*one, *other))
    assert [(g.status, g.count, g.first_words, g.frequent_words, g.frequent_count) for g in found] == [
        (404, 4, "a", "c", 3),
        (503, 1, "b", "b", 1),
    ]


def test_the_verdict_names_the_cause_and_what_to_type() -> None:
    found = judge(run_of(*(request(n, "404: no such route") for n in range(9))))
    reason = next(r for r in found.reasons if r.check == "errors")
    assert (found.verdict, reason.verdict) == ("invalid", "invalid")
    assert reason.text == "100.0% of the requests failed (9 × http status 404: no such route)"
    assert "was asked" in reason.remedy


def test_a_failing_warm_up_and_odd_answers_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    good = [
        replace(request(n, "", 200, None), error_detail="under Content-Type text/plain") for n in range(3)
    ]
    run = run_of(*good, notes=("2 of 2 warm-up requests failed: http_status: 503: cold",))
    assert complaints.heard(run) == (
        "2 of 2 warm-up requests failed: http_status: 503: cold",
        "3 of the answers: under Content-Type text/plain",
    )
    load_table.show_load(run, judge(run), ())
    said = " ".join(capsys.readouterr().out.split())
    assert "note: 2 of 2 warm-up requests failed: http_status: 503: cold" in said
    assert "note: 3 of the answers" in said


def test_hostile_words_are_shown_and_not_obeyed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def spoil(run: Run) -> Run:
        records = tuple(replace(r, error=RequestError.HTTP_STATUS, status=500, error_detail=f"500: {EVIL}")
                        if r.index % 3 == 0 else r for r in run.records)  # fmt: skip
        client = run.client and replace(run.client, notes=(f"1 of 1 warm-up requests failed: {EVIL}",))
        return replace(run, records=records, client=client)

    folder = build(tmp_path / "run", requests=24, sim=False, change=spoil)
    scenario = scenariofile.load(folder.path / "scenario.yaml")
    found = list(outcomes(folder, scenario))
    text = page.write(folder, scenario, found, jobs(found)).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "Failed requests" in text
    assert "warm-up requests failed" in text
    out = Console(file=io.StringIO(), width=120, highlight=False)
    failed.show_failures(out, found)
    shown = out.file.getvalue()  # type: ignore[attr-defined]
    run = folder.runs()[0]
    load_table.show_load(run, judge(run), ())
    for words in (text, shown, capsys.readouterr().out):
        assert not {"\x1b", "\x07", "\u202e", "\u2028"} & set(words)
        assert "[red]x[/red]" in " ".join(words.split())
    assert "hint:" in shown
    assert "! " in shown
    points = as_json(folder.path, found)["points"]
    json.dumps(points, ensure_ascii=False).encode()
    assert any(
        error["kind"] == "http_status" and error["status"] == 500 for p in points for error in p["errors"]
    )


ASKED = ["--model", "m", "--concurrency", "2", "--requests", "6", "--output-tokens", "8"]


def load(url: str, tmp_path: Path, *more: str) -> tuple[int, dict[str, object]]:
    file = tmp_path / "load.json"
    status = main(["load", "--url", url, *ASKED, *more, "--json", str(file)])
    return status, json.loads(file.read_text()) if file.exists() else {}


REFUSALS: dict[str, tuple[Odd, str]] = {
    "html": (lambda s, a: s.whole(502, b"<html><h1>Bad Gateway</h1>\x1b[31m</html>", "text/html"), "Bad Gateway"),
    "openai": (lambda s, a: s.whole(400, b'{"error":{"message":"use max_completion_tokens"}}'), "use max_completion_tokens"),
    "fastapi": (lambda s, a: s.whole(404, b'{"detail":"Not Found"}'), "Not Found"),
    "limit": (lambda s, a: s.whole(429, b'{"error":"slow down"}'), "slow down"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_a_load_of_which_everything_fails_says_why(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer, words = REFUSALS[name]
    with odd_server({8: answer, 1: answer}, {}) as url:
        status, data = load(url, tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert status == 1
    (error,) = data["errors"]  # type: ignore[misc]
    assert error["count"] == 6
    assert words in error["first_words"]
    assert f"6 × {error['kind'].replace('_', ' ')} {error['status']}" in said
    assert words in said
    assert any("2 of 2 warm-up requests failed" in note and words in note for note in data["notes"])  # type: ignore[attr-defined]
    assert "warm-up requests failed" in said
    assert "\x1b" not in said


def test_the_key_is_never_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "sesame-0123456789"
    monkeypatch.setenv("CASE_KEY", f" {key}\n")

    def refuse(server: object, asked: object) -> None:
        said = server.headers["authorization"]  # type: ignore[attr-defined]
        server.whole(401, json.dumps({"error": {"message": f"wrong key: {said}"}}).encode())  # type: ignore[attr-defined]

    with odd_server({8: refuse, 1: refuse}, {}) as url:
        _, data = load(url, tmp_path, "--api-key-env", "CASE_KEY")
    said = capsys.readouterr()
    assert data["errors"][0]["first_words"] == "wrong key: Bearer (the key)"  # type: ignore[index]
    assert key not in json.dumps(data) + said.out + said.err


@pytest.mark.parametrize(
    ("url", "key", "said"),
    [
        ("http://127.0.0.1:9/openai?api-version=1", None, "must carry no query"),
        ("http://127.0.0.1:9/v1/chat/completions", None, "leave /chat/completions away"),
        ("http://u:sesame@127.0.0.1:9", None, "no name or password"),
        ("127.0.0.1:9", None, "no http:// or https://"),
        ("http://127.0.0.1:x", None, "is no URL"),
        ("http://127.0.0.1:9", " \n", "CASE_KEY is empty"),
        ("http://127.0.0.1:9", "ses\name", "the key in CASE_KEY"),
    ],
)
def test_what_would_not_be_sent_is_refused_before_the_load(
    url: str, key: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if key is not None:
        monkeypatch.setenv("CASE_KEY", key)
    status, data = load(url, tmp_path, *(["--api-key-env", "CASE_KEY"] if key is not None else []))
    told = capsys.readouterr().err
    assert (status, data) == (2, {})
    assert said in told
    assert "sesame" not in told


def test_one_refusal_of_a_cold_server_is_no_refusal_of_ignore_eos(tmp_path: Path) -> None:
    cold = [True]

    def waking(server: object, asked: dict[str, object]) -> None:
        if cold and cold.pop():
            server.whole(400, b'{"error":"Model m is not ready yet."}')  # type: ignore[attr-defined]
            return
        short = {**asked, "max_tokens": 8 if asked.get("ignore_eos") else 2}
        server.stream(short)  # type: ignore[attr-defined]

    with odd_server({8: waking, 1: waking}, {}) as url:
        _, data = load(url, tmp_path)
    assert data["metrics"]["output_tokens_mean"] == 8  # type: ignore[index]
    assert not any("refuses ignore_eos" in note for note in data["notes"])  # type: ignore[attr-defined]


def test_find_rate_says_why_nothing_was_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(server: object, asked: object) -> None:
        server.whole(503, b'{"error":{"message":"no capacity"}}')  # type: ignore[attr-defined]

    with odd_server({8: refuse, 1: refuse}, {}) as url:
        arguments = [
            "load",
            "--url",
            url,
            "--model",
            "m",
            "--output-tokens",
            "8",
            "--find-rate",
            "--rate",
            "20",
        ]
        status = main([*arguments, "--slo", "e2e:p50<=1s", "--budget", "20s"])
    assert status == 1
    assert "http status 503: no capacity" in " ".join(capsys.readouterr().out.split())
