"""A completions server whose every answer is a function of the prompt, with the faults an evaluation must survive."""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from serving.engine import Endpoint

Answering = Callable[[str, list[str]], str]


@dataclass
class Llm:
    """`knows(prompt, tokens)`: the reply to a prompt. `likes(text)`: mean log-probability of a token."""

    knows: Answering = lambda prompt, tokens: " nothing"
    likes: Callable[[str], float] = lambda text: -1.0 - zlib.crc32(text.encode()) % 1000 / 1000
    echo: bool = True
    logprobs: bool = True
    schema: bool = True
    extra_tokens: int = 0
    delay_s: float = 0.0
    dies_after: int | None = None
    silent_after: int | None = None
    refuses: str = ""
    usage: bool = True
    later: tuple[int, str | None] | None = None
    """Every third request is refused at its first try with this status and Retry-After."""
    thinks: str = ""
    """What it thinks before it answers, in the field of its own; `null`: and then says nothing."""
    null: bool = False
    turned_away: set[str] = field(default_factory=set)
    asked: list[dict[str, Any]] = field(default_factory=list)
    busy: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopping: threading.Event = field(default_factory=threading.Event)


def words(text: str) -> list[str]:
    """Tokens: words with the space before them."""
    parts, here = [], ""
    for letter in text:
        if letter == " " and here.strip():
            parts.append(here)
            here = ""
        here += letter
    return [*parts, here] if here else parts


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    llm: Llm

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": "fake"}]})

    def do_POST(self) -> None:
        llm = self.llm
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with llm.lock:
            llm.asked.append(body)
            number = len(llm.asked)
            llm.busy += 1
            llm.most_at_once = max(llm.most_at_once, llm.busy)
        try:
            if llm.dies_after is not None and number > llm.dies_after:
                self.close_connection = True
                self.connection.close()
                return
            if llm.silent_after is not None and number > llm.silent_after:
                llm.stopping.wait(30)
                return
            time.sleep(llm.delay_s)
            key = json.dumps(body, sort_keys=True)
            if llm.later and number % 3 == 0 and key not in llm.turned_away:
                llm.turned_away.add(key)
                self._send(llm.later[0], {"error": "later"}, llm.later[1])
                return
            status, answer = _answer(llm, body, "chat" in self.path)
        finally:
            with llm.lock:
                llm.busy -= 1
        if not llm.usage:
            answer.pop("usage", None)
        self._send(status, answer)

    def _send(self, status: int, answer: dict[str, Any], retry_after: str | None = None) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _answer(llm: Llm, body: dict[str, Any], chat: bool) -> tuple[int, dict[str, Any]]:
    prompts = body.get("prompt", "")
    prompts = prompts if isinstance(prompts, list) else [prompts]
    if chat:
        prompts = ["\n".join(message["content"] for message in body["messages"])]
    if llm.refuses and any(llm.refuses in prompt for prompt in prompts):
        return 400, {"error": {"message": "the prompt is too long"}}
    if body.get("echo"):
        return 200, _echo(llm, prompts, body.get("logprobs"))
    text = llm.knows(prompts[0], words(prompts[0]))
    if "response_format" in body:
        whole = {"name": "x", "topic": "y", "count": 1, "confirmed": True}
        text = json.dumps(whole) if llm.schema else "sure"
    text = text.split(body["stop"][0])[0] if body.get("stop") else text
    made = {"message": {"content": text}} if chat else {"text": text}
    if chat and llm.thinks:
        said = None if llm.null else text
        made = {"message": {"content": said, "reasoning_content": llm.thinks}}
    elif chat and llm.null:
        made = {"message": {"content": None}}
    count = len(words(prompts[0])) + llm.extra_tokens
    usage = {"prompt_tokens": count, "completion_tokens": len(words(text))}
    return 200, {"choices": [{"index": 0, "finish_reason": "stop", **made}], "usage": usage}


def _echo(llm: Llm, prompts: list[str], top: int | None) -> dict[str, Any]:
    choices, total = [], 0
    for index, prompt in enumerate(prompts):
        tokens = [*["<s>"] * llm.extra_tokens, *words(prompt)]
        total += len(tokens)
        shown = tokens if llm.echo else tokens[-1:]
        values = [None, *(llm.likes("".join(shown[: i + 1])) for i in range(1, len(shown)))]
        tops = [None if v is None else {t: v, " other": v - 1} for t, v in zip(shown, values, strict=True)]
        found = {"tokens": shown, "token_logprobs": values, "top_logprobs": tops}
        choices.append({"index": index, "text": prompt, "logprobs": found if llm.logprobs and top else None})
    return {"choices": choices, "usage": {"prompt_tokens": total, "completion_tokens": 0}}


@contextmanager
def served(llm: Llm) -> Iterator[Endpoint]:
    """`llm` on a free port of 127.0.0.1 while the body runs."""
    handler = type("Handler", (_Handler,), {"llm": llm})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Endpoint(f"http://127.0.0.1:{server.server_port}", "fake", "endpoint", "1")
    finally:
        llm.stopping.set()
        server.shutdown()
        server.server_close()
