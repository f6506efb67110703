"""The simulated engine as a process: `python -m serving.sim.server --port N --settings JSON`.

An OpenAI-compatible server whose times are computed (`serving.costmodel.roofline`), never measured. Listens
on 127.0.0.1 by default. Imports nothing heavy: it answers within a few tenths of a second of its start.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from serving.costmodel import hardware, shapes
from serving.costmodel.defaults import resolve
from serving.sim import launch
from serving.sim.http import PreciseSelector, SimConnection
from serving.sim.loop import SimLoop
from serving.sim.metrics import render
from serving.sim.replies import SimReply
from serving.sim.requests import RefusedError, parse
from serving.sim.scheduler import Setup, setup
from serving.sim.settings import VERSION, settings
from serving.sim.text import Vocabulary

BACKLOG = 4096


def build(asked: Mapping[str, Any]) -> Setup:
    """The setup of a server from neutral settings (ServingConfig.settings). ValueError says why not."""
    sim = settings(asked.get("sim", {}))
    device = hardware.find(sim.gpu)
    if device is None:
        raise ValueError(f"unknown gpu {sim.gpu!r}; known: {', '.join(hardware.HARDWARE)}")
    shape = shapes.find(sim.shape or str(asked.get("checkpoint") or asked["model"]))
    if shape is None:
        raise ValueError(f"unknown shape {sim.shape or asked['model']!r}; known: {', '.join(shapes.SHAPES)}")
    resolved = resolve(asked, device, shape)
    if sim.fault.name == "ignores_setting":
        resolved = replace(resolved, quantization="none")
    return setup(resolved, device, shape, sim)


def tokenizer_file(asked: Mapping[str, Any]) -> Path | None:
    """tokenizer.json of the tokenizer asked for, or of the model's folder; None: words are tokens."""
    named = asked.get("tokenizer")
    if named == "none":
        return None
    file = Path(str(named or asked["model"])) / "tokenizer.json"
    if file.is_file():
        return file
    if named:
        raise ValueError(f"no tokenizer.json in {named}")
    return None


class SimServer:
    """The routes. One instance a process."""

    def __init__(self, asked: Mapping[str, Any], built: Setup, layers: int, vocabulary: Vocabulary) -> None:
        self.asked, self.setup, self.layers, self.vocabulary = asked, built, layers, vocabulary
        wrong = built.sim.fault.name == "wrong_model"
        self.model = "another-model" if wrong else str(asked["model"])
        self.loop = SimLoop(built, salt="/".join(Path.cwd().parts[-2:]))
        self._replies = 0
        self._routes: dict[tuple[str, str], Callable[[SimConnection, str, bytes], None]] = {
            ("GET", "/health"): lambda connection, _, __: connection.answer(200, b"", "text/plain"),
            ("GET", "/ping"): lambda connection, _, __: connection.answer(200, b"", "text/plain"),
            ("GET", "/version"): lambda c, _, __: c.json({"version": VERSION, "simulated": True}),
            ("GET", "/v1/models"): lambda connection, _, __: connection.json(self.models()),
            ("GET", "/server_info"): lambda connection, _, __: connection.json(self.info()),
            ("GET", "/metrics"): self.metrics,
            ("POST", "/reset_prefix_cache"): self.reset,
            ("POST", "/v1/completions"): lambda c, _, body: self.generate(c, body, chat=False),
            ("POST", "/v1/chat/completions"): lambda c, _, body: self.generate(c, body, chat=True),
        }

    def handle(self, connection: SimConnection, method: str, target: str, body: bytes) -> None:
        """Answers one request."""
        parts = urlsplit(target)
        path = parts.path.rstrip("/") or "/"
        route = self._routes.get((method, path))
        if route is not None:
            route(connection, parts.query, body)
        elif any(path == known for _, known in self._routes):
            connection.error(405, "Method Not Allowed")
        else:
            connection.error(404, "Not Found", "NotFoundError")

    def models(self) -> dict[str, Any]:
        card = {
            "id": self.model,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "servetune-sim",
            "root": self.model,
            "max_model_len": self.setup.resolved.max_model_len,
        }
        return {"object": "list", "data": [card]}

    def info(self) -> dict[str, Any]:
        """The server's own account: neutral settings, memory in bytes, and that it is simulated."""
        sim = self.setup.sim
        return {
            "simulated": True,
            "version": VERSION,
            "model": self.model,
            "settings": asdict(self.setup.resolved),
            "quantized_layers": self.layers,
            "memory": self.setup.budget.as_json(),
            "gpu": sim.gpu,
            "shape": self.setup.shape.name,
            "seed": sim.seed,
            "time_scale": sim.time_scale,
            "noise": sim.noise,
            "launch_factor": self.loop.scheduler.launch_factor,
            "words_are_tokens": self.vocabulary.words,
        }

    def metrics(self, connection: SimConnection, query: str, body: bytes) -> None:
        resolved, budget = self.setup.resolved, self.setup.budget
        info = {
            "engine": "0",
            "block_size": str(budget.block_tokens),
            "num_gpu_blocks": str(self.loop.scheduler.pool.total),
            "cache_dtype": resolved.kv_cache_dtype,
            "enable_prefix_caching": str(resolved.enable_prefix_caching),
            "gpu_memory_utilization": str(resolved.gpu_memory_utilization),
            "simulated": "True",
        }
        only = parse_qs(query).get("name[]", [])
        text = render(self.loop.metrics, self.loop.gauges(), self.model, info, only)
        connection.answer(200, text.encode(), "text/plain; version=0.0.4; charset=utf-8")

    def reset(self, connection: SimConnection, query: str, body: bytes) -> None:
        """Like vLLM: 200 when the cache is empty, an error while requests run."""
        if self.loop.scheduler.pool.reset():
            connection.answer(200, b"", "text/plain")
        else:
            connection.error(409, "the prefix cache is in use by running requests", "ConflictError")

    def generate(self, connection: SimConnection, body: bytes, *, chat: bool) -> None:
        resolved, sim = self.setup.resolved, self.setup.sim
        try:
            asked = parse(body, chat=chat, model=self.model, max_model_len=resolved.max_model_len,
                          vocabulary=self.vocabulary)  # fmt: skip
        except RefusedError as refused:
            connection.error(refused.status, refused.message, refused.kind, refused.param)
            return
        self._replies += 1
        self.loop.submit(
            SimReply(
                connection,
                asked,
                identity=f"{'chatcmpl' if chat else 'cmpl'}-{self._replies}",
                created=int(time.time()),
                model=self.model,
                vocabulary=self.vocabulary,
                seed=sim.seed,
                loss=self.loop.loss,
            )
        )


async def serve(asked: Mapping[str, Any], host: str, port: int) -> None:
    """Loads, listens and steps until TERM or INT."""
    built = build(asked)
    launch.announce(built, str(asked["model"]), VERSION)
    vocabulary = Vocabulary(tokenizer_file(asked))
    layers = launch.load(built, str(asked.get("quantization", "none")))
    fault = built.sim.fault
    stop = asyncio.Event()
    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, stop.set)
    if fault.name == "never_ready":
        launch.log("Loading safetensors checkpoint shards:   0% Completed | 0/4", process="EngineCore")
        await stop.wait()
        return
    if fault.name == "slow_ready":
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), fault.value)
            return
    server = SimServer(asked, built, layers, vocabulary)
    listener = _listen(host, port, taken=fault.name == "port_taken")
    http = await running.create_server(lambda: SimConnection(server.handle), sock=listener, backlog=BACKLOG)
    launch.log(f"Starting simulated server on http://{host}:{listener.getsockname()[1]}")
    stepping = running.create_task(server.loop.run())
    gc.collect()
    gc.freeze()
    waiting = running.create_task(stop.wait())
    await asyncio.wait({stepping, waiting}, return_when=asyncio.FIRST_COMPLETED)
    http.close()
    if stepping.done():
        stepping.result()
    launch.log("Shutting down")


def _listen(host: str, port: int, *, taken: bool) -> socket.socket:
    """The bound socket. A port in use ends the process, in the words of uvicorn."""
    try:
        if taken:
            with socket.socket() as holder:
                holder.bind((host, 0))
                holder.listen()
                return socket.create_server(holder.getsockname(), backlog=BACKLOG, reuse_port=False)
        return socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        place = f"('{host}', {port})"
        why = f"error while attempting to bind on address {place}: {(error.strerror or '').lower()}"
        launch.die(1, f"OSError: [Errno {error.errno}] {why}", process="APIServer")


def main() -> None:
    parser = argparse.ArgumentParser(prog="sim_server.py", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--settings", type=json.loads, required=True, help="ServingConfig.settings as JSON")
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(PreciseSelector())) as runner:
        try:
            runner.run(serve(given.settings, given.host, given.port))
        except (ValueError, KeyError) as error:
            launch.die(1, f"ValueError: {error}", process="APIServer")


if __name__ == "__main__":
    main()
