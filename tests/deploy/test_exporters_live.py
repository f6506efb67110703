"""A real Prometheus with the exported rules watches a simulated engine: quiet while it is well, and the
alert fires when it slows down."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.export_fixture import tool
from tests.support.prometheus_fixture import ALERT, HEALTHY, prometheus, traffic, wait
from tests.support.sim_process import started


@pytest.mark.slow
def test_a_slowdown_fires_the_exported_alert(tmp_path: Path) -> None:
    tool("prometheus")
    with (
        started(tmp_path, fault=f"slow_after:{HEALTHY}") as server,
        prometheus(tmp_path, server.url.removeprefix("http://")) as states,
    ):
        with traffic(server, stop_after=HEALTHY - 5):
            time.sleep(6)
            # Prometheus takes up its targets every 5 s, which is as long as this scaled alert waits.
            assert wait(lambda: "ServetuneAbsent" not in states(), 15), states()
            assert ALERT not in states()
        with traffic(server):
            assert wait(lambda: states().get(ALERT) == "firing", 90), states()


@pytest.mark.slow
def test_a_server_that_is_gone_fires_absent(tmp_path: Path) -> None:
    with prometheus(tmp_path, "127.0.0.1:9") as states:
        assert wait(lambda: states().get("ServetuneAbsent") == "firing", 60), states()
