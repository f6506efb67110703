"""Keys, TLS, proxies and addresses: how the load client reaches a server."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.client.drive import drive
from bench.records.model import RequestError
from bench.traffic.prompts import prompts
from serving.engine import Endpoint
from serving.errors import UserError
from tests.support.load_fixture import CLOSED, free_port, run, url

__all__ = ["url"]


def test_the_key_comes_from_the_environment_and_stays_off_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint(
            f"http://127.0.0.1:{listener.getsockname()[1]}", "m", "x", "1", api_key_env="A_KEY"
        )
        load = replace(CLOSED, concurrency=1, requests=1, request_timeout_s=1.0)
        with pytest.raises(UserError, match="A_KEY is not set"):
            drive(endpoint, load, seed=1, prompts=prompts(None), folder=tmp_path)
        monkeypatch.setenv("A_KEY", "s3cret-value")
        driven = drive(endpoint, load, seed=1, prompts=prompts(None), folder=tmp_path, keep_raw=True)
        listener.settimeout(1)
        connection, _ = listener.accept()
        with connection:
            heard.append(connection.recv(1 << 16))
    assert b"Authorization: Bearer s3cret-value\r\n" in heard[0]
    assert driven.records[0].error is RequestError.TIMEOUT
    assert all(b"s3cret-value" not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def tls(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A TLS front of the scripted server, with a certificate of its own: its URL and the certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    port, behind = free_port(), int(url.rpartition(":")[2])

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", behind)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", port, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{port}", certificate
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_tls(tls: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, certificate = tls
    refused = run(address, CLOSED, tmp_path)
    assert {r.error for r in refused.records} == {RequestError.CONNECT}
    assert "certificate" in refused.records[0].error_detail.lower()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    driven = run(address, CLOSED, tmp_path, model="plain:50:10")
    assert all(r.ok and r.output_tokens == 8 and len(r.event_s) == 8 for r in driven.records)
    assert not any(r.connected_s for r in driven.records)
    assert np.median([(r.first_s or 9) - (r.sent_s or 0) for r in driven.records]) == pytest.approx(
        0.05, abs=0.04
    )


def test_proxies_are_not_used(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert all(r.ok for r in run(url, CLOSED, tmp_path).records)


def test_localhost_finds_the_address_that_answers(url: str, tmp_path: Path) -> None:
    driven = run(url.replace("127.0.0.1", "localhost"), CLOSED, tmp_path)
    assert all(r.ok for r in driven.records)


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://x", "http://no-such-host.invalid"])
def test_an_address_that_is_none_is_the_users(address: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        run(address, CLOSED, tmp_path)
