"""report.html: one file, no network, every text escaped, and it works in a real browser at both widths."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.metrics import METRICS
from bench.records.folder import RunFolder
from bench.records.model import Run
from bench.result import PointResult, outcomes
from bench.scenario import scenariofile
from servetune.report import page
from servetune.report.ranking import jobs
from tests.support.chromium import Tab, tab
from tests.support.page_fixture import EVIL, check, write
from tests.support.report_fixture import SCENARIO, build


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(build(tmp_path_factory.mktemp("page") / "run", requests=200))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hostile text in every field that is text."""

    def spoil(run: Run) -> Run:
        config = run.point.config.model_copy(update={"extra_args": {EVIL: EVIL}, "attention_backend": EVIL})
        load = replace(run.point.load, workload=EVIL)
        failure = run.failure and replace(
            run.failure, detail=EVIL, hint=EVIL, log_tail=(EVIL, "</pre>" + EVIL), settings={EVIL: EVIL}
        )
        return replace(
            run, point=replace(run.point, config=config, load=load), failure=failure, launch=EVIL,
            engine_version=EVIL, effective={EVIL: EVIL}, notes=(EVIL,),
        )  # fmt: skip

    quoted = json.dumps(EVIL)
    text = re.sub(r"question: .*", f"question: {quoted}", SCENARIO).replace("example price list", f"{quoted}")
    text = text.replace("name: SmolLM2-135M-Instruct", f"name: {quoted}")
    folder = build(tmp_path_factory.mktemp("hostile") / "run", requests=24, scenario=text, change=spoil)
    manifest = folder.manifest
    manifest["environment"] = {EVIL: {EVIL: [EVIL, {EVIL: EVIL}]}}
    manifest["device"] = EVIL
    manifest["plan"]["dropped"] = [{"point": EVIL, "reason": EVIL, "points": 1}]
    (folder.path / "manifest.json").write_text(json.dumps(manifest))
    return write(folder)


class Elements(HTMLParser):
    """Counts elements and keeps what scripts hold."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attributes if k in ("src", "href", "action", "srcset", "data")]
        assert not [k for k, _ in attributes if k.startswith("on")], f"<{tag}> has an event handler"
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script" and self.scripts:
            self.scripts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self.tags.append("/script")


def parsed(file: Path) -> Elements:
    elements = Elements()
    elements.feed(file.read_text(encoding="utf-8"))
    return elements


def test_the_page_refers_to_nothing_outside_itself(file: Path) -> None:
    elements = parsed(file)
    assert elements.links
    assert all(link.startswith("#") for link in elements.links)
    assert not {"link", "iframe", "object", "embed", "base", "img"} & set(elements.tags)
    styles = re.findall(r"<style[^>]*>(.*?)</style>", file.read_text(encoding="utf-8"), re.S)
    assert styles
    assert not any("@import" in style or re.search(r"url\((?!['\"]?data:)", style) for style in styles)


def test_the_policy_allows_exactly_the_two_scripts(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    said = policy[1].replace("&#39;", "'")
    assert said.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in said.split("style-src")[0]
    assert "unsafe-eval" not in said
    bodies = re.findall(r"<script>(.*?)</script>", text, re.S)
    digests = {base64.b64encode(hashlib.sha256(b.encode()).digest()).decode() for b in bodies}
    assert digests == set(re.findall(r"sha256-([^']+)'", said))
    assert len(digests) == 2


def test_hostile_text_adds_no_element(file: Path, hostile: Path) -> None:
    elements = parsed(hostile)
    assert elements.tags.count("script") == 3
    assert "img" not in elements.tags
    data = json.loads(elements.scripts[0])
    assert data["points"][0]["settings"]["attention_backend"] == EVIL
    text = hostile.read_text(encoding="utf-8")
    assert EVIL not in text
    assert "&lt;script&gt;document.title" in text


def test_the_data_is_what_was_measured(file: Path) -> None:
    data = json.loads(parsed(file).scripts[0])
    assert len(data["points"]) == 44
    assert [m["name"] for m in data["metrics"]] == [
        n for n in METRICS if n in {m["name"] for m in data["metrics"]}
    ]
    folder = RunFolder.open(file.parent)
    found = {o.key: o for o in outcomes(folder, scenariofile.load(file.parent / "scenario.yaml"))}
    index = next(i for i, m in enumerate(data["metrics"]) if m["name"] == "ttft_p50_ms")
    for point in data["points"]:
        value = found[point["key"]].metrics["ttft_p50_ms"]
        assert point["values"][index] == (None if value is None else pytest.approx(value, rel=1e-4))


def test_the_page_is_about_the_size_of_plotly(file: Path) -> None:
    assert file.stat().st_size - len(page._plotly()) < 600_000
    assert not list(file.parent.glob("*.part"))


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    folder = build(tmp_path / "run", requests=24)
    lines = (folder.path / "events.jsonl").read_text().splitlines()[:5]
    (folder.path / "events.jsonl").write_text("\n".join([*lines, '{"event":"interrupted"}', ""]))
    assert "interrupted: 4 of 44 points" in write(folder).read_text()
    (folder.path / "events.jsonl").write_text('{"event":"started"}\n')
    assert "not finished: 0 of 44 points" in write(folder).read_text()


def test_a_thousand_points_are_a_page_in_seconds(tmp_path: Path) -> None:
    folder = build(tmp_path / "run", requests=60)
    scenario = scenariofile.load(folder.path / "scenario.yaml")
    found = list(outcomes(folder, scenario))

    def moved(o: PointResult, users: int) -> PointResult:
        load = replace(o.run.point.load, concurrency=users)
        return replace(o, run=replace(o.run, point=replace(o.run.point, load=load)))

    many = [moved(o, users) for o in found for users in range(1, 24)]
    began = time.process_time()
    written = page.write(folder, scenario, many, jobs(many))
    assert time.process_time() - began < 10
    assert written.stat().st_size < 12_000_000


# ---- in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with tab(tmp_path_factory.mktemp("browser") / "profile") as made:
        yield made


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_works_at_both_widths(browser: Tab, file: Path, width: int, dark: bool) -> None:
    browser.open(file, width, dark=dark)
    check(browser)
    drawn = {
        "#curves-plot .scatterlayer .trace": 9,
        "#map-plot .heatmaplayer image": 1,
        "#cost-bars .bar": 17,
    }
    for what, count in drawn.items():
        assert browser.evaluate(f"document.querySelectorAll({what!r}).length") == count, what
    outside = browser.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, dialog, details') && "
        "e.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert outside == 0


def test_rows_can_be_filtered_and_sorted(browser: Tab, file: Path) -> None:
    browser.open(file, 1440)
    shown = "[...document.querySelectorAll('#table tbody tr')].filter(r => !r.hidden)"
    browser.evaluate(
        "const f = document.querySelector('#table-controls'); f.text.value = 'transformers c=8';"
        "f.dispatchEvent(new Event('input'))"
    )
    assert browser.evaluate(f"{shown}.length") == 6
    browser.evaluate(
        "document.querySelector('#table-controls').text.value = '';"
        "document.querySelector('#table-controls').dispatchEvent(new Event('input'));"
        "[...document.querySelectorAll('#table th button')]"
        ".find(b => b.textContent.includes('output tokens')).click()"
    )
    values = browser.evaluate(
        "(() => { const heads = [...document.querySelectorAll('#table th')];"
        " const i = heads.findIndex(h => h.textContent.includes('output tokens'));"
        " const rows = [...document.querySelectorAll('#table tbody tr')];"
        " return rows.map(r => r.cells[i].dataset.sort ?? null) })()"
    )
    known = [float(v) for v in values if v is not None]
    assert known == sorted(known)
    assert values[-1] is None
    check(browser)


def test_a_row_opens_its_point_from_the_keyboard(browser: Tab, file: Path) -> None:
    browser.open(file, 390)
    browser.evaluate("document.querySelector('button[data-candidate]').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.send("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r",
                     windowsVirtualKeyCode=13)  # fmt: skip
    browser.evaluate("new Promise((done) => setTimeout(done, 500))")
    assert browser.evaluate("document.querySelector('#point').open")
    assert browser.evaluate("document.querySelectorAll('#point-body .plot .scatterlayer').length") == 5
    assert browser.evaluate("document.querySelectorAll('#point-body tr').length") > 40
    assert browser.evaluate("document.querySelector('#point').scrollWidth <= innerWidth")
    check(browser)


def test_hostile_text_does_nothing_in_a_browser(browser: Tab, hostile: Path) -> None:
    browser.open(hostile, 390)
    browser.evaluate(
        "[...document.querySelectorAll('button[data-candidate]')]"
        ".filter((_, i) => i % 9 == 0).forEach(b => b.click())"
    )
    browser.evaluate("new Promise((done) => setTimeout(done, 500))")
    assert browser.evaluate("document.title") != "owned"
    assert browser.evaluate("document.querySelectorAll('img').length") == 0
    check(browser)


@pytest.mark.parametrize("events", [0, 5])
def test_an_unfinished_run_is_a_page_too(browser: Tab, tmp_path: Path, events: int) -> None:
    folder = build(tmp_path / "run", requests=24)
    lines = (folder.path / "events.jsonl").read_text().splitlines()[: events + 1]
    (folder.path / "events.jsonl").write_text("\n".join([*lines, ""]))
    browser.open(write(folder), 390)
    check(browser)
