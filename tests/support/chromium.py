"""A headless Chromium, driven by its devtools protocol: one page, its console, its size, screenshots."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Tab:
    """One tab. `console` collects everything the page complains about."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.count, self.console, self.requested = socket, 0, [], []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            self._hear(message)
            if message.get("id") == self.count:
                assert "error" not in message, message
                return message["result"]

    def _hear(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.console.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.console.append(str([a.get("value") for a in params["args"]]))
        elif method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])

    def evaluate(self, expression: str) -> Any:
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def open(self, page: Path, width: int, height: int = 900, dark: bool = False) -> None:
        """Loads a file at a viewport `width` CSS pixels wide and waits until its script is through."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=page.resolve().as_uri())
        until = time.monotonic() + 60
        while self.evaluate("document.documentElement?.dataset.ready || ''") != "yes":
            assert time.monotonic() < until, f"the page is not ready: {self.console}"
            time.sleep(0.1)
        self.evaluate("new Promise((done) => setTimeout(done, 400))")

    def screenshot(self, file: Path, whole: bool = True) -> None:
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def tab(profile: Path) -> Iterator[Tab]:
    """A browser of our own with an empty profile; skips without Chromium, fails without it in CI."""
    if BINARY is None:
        if os.environ.get("CI"):
            pytest.fail("CI without Chromium: the page cannot be looked at")
        pytest.skip("no Chromium on this machine")
    websocket = pytest.importorskip("websocket")
    process = subprocess.Popen(
        [BINARY, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--remote-debugging-port=0", "--remote-allow-origins=*",
         f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield Tab(websocket.create_connection(_address(profile, process), timeout=60))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """The first page's websocket, asked of the port that the browser wrote down."""
    import urllib.request

    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, "Chromium ended at once"
        written = profile / "DevToolsActivePort"
        if written.exists() and written.read_text().count("\n"):
            port = int(written.read_text().split("\n")[0])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
                pages = [t for t in json.load(answer) if t["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise AssertionError("Chromium opened no debugging port")
