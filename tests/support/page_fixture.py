"""The report page written from a run, and what every page must show in a browser."""

from __future__ import annotations

from pathlib import Path

from bench.records.folder import RunFolder
from bench.result import outcomes
from bench.scenario import scenariofile
from servetune.report import page
from servetune.report.ranking import jobs
from tests.support.chromium import Tab

EVIL = (
    "<script>document.title='owned'</script>\"'><img src=x onerror=\"document.title='owned'\"></script><!--"
)


def write(folder: RunFolder) -> Path:
    scenario = scenariofile.load(folder.path / "scenario.yaml")
    found = list(outcomes(folder, scenario))
    return page.write(folder, scenario, found, jobs(found))


def check(browser: Tab) -> None:
    """Nothing sticks out, nothing was asked of a network, nothing was complained about."""
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.console == []
    assert [u for u in browser.requested if not u.startswith(("file:", "data:", "blob:"))] == []
