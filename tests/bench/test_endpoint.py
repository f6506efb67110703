"""endpoint: a server somebody else runs; its key comes from the environment and goes nowhere else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from serving.config import ServingConfig
from serving.engines.endpoint import RunningEndpoint
from serving.errors import EngineError, FailureKind
from serving.launch.launch import launch

KEY = "s3cret-key"


class Provider(BaseHTTPRequestHandler):
    """A hosted provider: chat only, with a key, without /health and /version."""

    def log_message(self, *given: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/v1/models" else 404, {"data": [{"id": "big"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if self.path != "/v1/chat/completions":
            return self._answer(404, {})
        if self.headers.get("authorization") != f"Bearer {KEY}":
            return self._answer(401, {"error": f"not valid: {self.headers.get('authorization')}"})
        event = {"choices": [{"delta": {"role": "assistant", "content": "x"}}]}
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode())
        return None

    def _answer(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def config(**settings: object) -> ServingConfig:
    return ServingConfig.model_validate({"engine": "endpoint", "model": "big", **settings})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "needs `url`"),
        ({"url": "localhost:8000"}, "no http://"),
        ({"url": "http://u:p@127.0.0.1"}, "must carry no name"),
        ({"url": "http://127.0.0.1:1/v1"}, "leave /v1 away"),
        ({"url": "http://127.0.0.1:1", "api_key_env": "SURELY_NOT_SET"}, "SURELY_NOT_SET"),
    ],
)
def test_what_cannot_be_asked_is_said_beforehand(settings: dict[str, object], said: str) -> None:
    problems = RunningEndpoint().problems(config(**settings))
    assert any(said in text for text in problems), problems


def test_a_provider_with_chat_and_a_key(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVIDER_KEY", KEY)
    asked = config(url=url, api_key_env="PROVIDER_KEY")
    assert RunningEndpoint().problems(asked) == []
    with launch(RunningEndpoint(), asked, tmp_path) as server:
        assert server.alive()
        assert server.endpoint.version == "unknown"
        assert server.endpoint.pid is None
        assert server.log_text() == ""
        assert KEY not in repr(server)
        assert server.why_silent([]).kind == FailureKind.HANG
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_wrong_key_is_not_ready_and_is_not_repeated(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "wrong-key-of-mine")
    asked = config(url=url, api_key_env="PROVIDER_KEY")
    with pytest.raises(EngineError) as caught, launch(RunningEndpoint(), asked, tmp_path):
        pass
    assert caught.value.failure.kind == FailureKind.NOT_READY
    assert "401" in caught.value.failure.detail
    assert "wrong-key-of-mine" not in repr(caught.value.failure)


def test_nobody_there(tmp_path: Path) -> None:
    with (
        pytest.raises(EngineError) as caught,
        launch(RunningEndpoint(), config(url="http://127.0.0.1:9"), tmp_path),
    ):
        pass
    assert caught.value.failure.kind == FailureKind.NOT_READY


def test_another_model_is_another_identity(url: str, tmp_path: Path) -> None:
    asked = config(url=url, model="small")
    with pytest.raises(EngineError) as caught, launch(RunningEndpoint(), asked, tmp_path):
        pass
    assert caught.value.failure.kind == FailureKind.WRONG_IDENTITY
    assert "big" in caught.value.failure.detail
