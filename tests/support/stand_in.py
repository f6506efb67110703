"""A tiny stand-in for an engine, with the faults that a real one has, and the check that nothing is left."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from serving.config import ServingConfig
from serving.engine import Command

MARK = "SERVETUNE_TEST_MARK"

PROGRAM = r"""
import json, os, signal, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, mode = int(sys.argv[1]), sys.argv[2]
if mode == "bad_flag":
    print("serve: error: unrecognized arguments: --no-such-flag"); sys.exit(2)
if mode == "oom":
    print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."); sys.exit(1)
if mode == "crash":
    raise RuntimeError("broken on purpose")
if mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "segfault":
    os.kill(os.getpid(), signal.SIGSEGV)
if mode == "never":
    time.sleep(600)
if mode in ("stubborn", "deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode in ("family", "orphans", "stubborn"):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    for _ in range(2):
        subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
    between = f"import subprocess as s, sys; s.Popen([sys.executable, '-c', {deaf!r}], start_new_session=True)"
    subprocess.run([sys.executable, "-c", between])
if mode == "orphans":
    os._exit(7)


class Answer(BaseHTTPRequestHandler):
    def log_message(self, *given):
        pass

    def say(self, body, kind="application/json"):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(body.encode())
        self.wfile.flush()

    def do_GET(self):
        if self.path == "/v1/models":
            name = "another" if mode == "stranger" else "stand-in"
            self.say(json.dumps({"data": [{"id": name}]}))
        elif self.path == "/health":
            self.say("")
        elif self.path == "/settings":
            seqs = 4 if mode == "coerces" else 8
            self.say(json.dumps({"max_num_seqs": seqs, "version": "9.9" if mode == "old" else "1.0"}))
        else:
            self.send_error(404)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        event = 'data: {"choices": [{"text": "x"}]}\n\n'
        if mode == "error":
            self.send_error(500, "broken on purpose")
        elif mode == "dies_on_request":
            print("RuntimeError: dead on purpose", flush=True); os._exit(3)
        elif mode == "mute":
            time.sleep(600)
        elif mode == "stalls":
            self.say(event, "text/event-stream"); time.sleep(600)
        elif mode == "empty":
            self.say("data: [DONE]\n\n", "text/event-stream")
        else:
            self.say(event + "data: [DONE]\n\n", "text/event-stream")


print("stand-in listens", flush=True)
ThreadingHTTPServer(("127.0.0.1", port), Answer).serve_forever()
"""


class StandIn:
    """Engine protocol over PROGRAM; `mode` is the fault."""

    name = "stand-in"
    simulated = False
    honours = frozenset({"max_num_seqs", "quantization"})

    def __init__(self, mode: str = "ok", mark: str = "") -> None:
        self.mode, self.mark = mode, mark

    def problems(self, config: ServingConfig) -> list[str]:
        return []

    def version(self, config: ServingConfig) -> str:
        return "1.0"

    def command(self, config: ServingConfig, port: int) -> Command:
        return Command((sys.executable, "-c", PROGRAM, str(port), self.mode), {MARK: self.mark})

    def served_model(self, config: ServingConfig) -> str:
        return "stand-in"

    def effective(self, url: str, config: ServingConfig, log: str) -> dict[str, object]:
        import httpx

        found: dict[str, object] = httpx.get(f"{url}/settings", trust_env=False).json()
        return found

    def without_effect(
        self, config: ServingConfig, effective: Mapping[str, object], log: str
    ) -> dict[str, str]:
        return {"quantization": "on purpose"} if self.mode == "idle" else {}

    def reset_prefix_cache(self, url: str) -> bool:
        return False


def config(**settings: object) -> ServingConfig:
    return ServingConfig.model_validate({"engine": "sim", "model": "m", "max_num_seqs": 8, **settings})


def marked(mark: str) -> list[int]:
    """Process ids, of any session or parent, whose environment carries the mark."""
    found = []
    needle = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if needle in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_until_none(mark: str, timeout_s: float) -> list[int]:
    deadline = time.monotonic() + timeout_s
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
