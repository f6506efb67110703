"""The answers of the simulated server: what each token adds, streamed or kept, as vLLM writes it."""

from __future__ import annotations

import json
from typing import Any

from serving.sim.http import LAST_FRAME, SimConnection, frame
from serving.sim.requests import SimRequest
from serving.sim.scheduler import Sequence
from serving.sim.text import SimText, Vocabulary, digest, log_probability

DONE = frame(b"data: [DONE]\n\n")


class SimItem:
    """One prompt of a request: its sequence, and the tokens it is answered with."""

    __slots__ = ("answer", "finish", "index", "limit", "prompt", "reply", "sequence", "texts")

    def __init__(
        self, reply: SimReply, index: int, sequence: Sequence, answer: SimText, asked: SimRequest
    ) -> None:
        self.reply, self.index, self.sequence, self.answer = reply, index, sequence, answer
        self.prompt = sequence.prompt
        self.texts: list[str] = []
        self.finish: str | None = None
        natural = max(answer.natural_tokens, asked.min_tokens, 1)
        self.limit = sequence.max_tokens if asked.ignore_eos else min(natural, sequence.max_tokens)

    def token(self) -> bool:
        """Adds the next token; True when it was the last one."""
        reply = self.reply
        index = self.answer.next()
        text = reply.vocabulary.texts[index]
        self.texts.append(text)
        self.sequence.output.append(reply.vocabulary.tokens[index])
        count = len(self.texts)
        if count >= self.limit:
            whole = self.limit == self.sequence.max_tokens
            self.finish = "length" if whole else "stop"
        elif reply.asked.stop and self._cut() < len("".join(self.texts)):
            self.finish, text = "stop", ""
        if reply.asked.stream:
            reply.stream(self, text)
        return self.finish is not None

    @property
    def text(self) -> str:
        """What the client gets: up to the first stop text, which is not part of it."""
        if self.reply.asked.prompt_only:
            return ""
        return "".join(self.texts)[: self._cut()]

    def _cut(self) -> int:
        text = "".join(self.texts)
        found = [at for stop in self.reply.asked.stop if (at := text.find(stop)) >= 0]
        return min(found, default=len(text))


class SimReply:
    """One HTTP request being answered, from its items' tokens."""

    def __init__(
        self,
        connection: SimConnection,
        asked: SimRequest,
        *,
        identity: str,
        created: int,
        model: str,
        vocabulary: Vocabulary,
        seed: int,
        loss: float,
    ) -> None:
        self.connection, self.asked, self.vocabulary = connection, asked, vocabulary
        self.identity, self.created, self.model = identity, created, model
        self.seed, self.loss = seed, loss
        self.items: list[SimItem] = []
        for index, (prompt, limit) in enumerate(zip(asked.prompts, asked.max_tokens, strict=True)):
            sequence = Sequence(prompt=prompt, max_tokens=limit)
            answer = SimText(len(vocabulary.texts), digest(prompt, asked.salt), seed, loss)
            sequence.owner = SimItem(self, index, sequence, answer, asked)
            self.items.append(sequence.owner)
        self._left = len(self.items)
        self._started = False
        kind = "chat.completion.chunk" if asked.chat else "text_completion"
        self._head = (
            f'data: {{"id":{json.dumps(identity)},"object":"{kind}","created":{created},'
            f'"model":{json.dumps(model)},"choices":[{{"index":'
        )
        self._middle = ',"delta":{"content":"' if asked.chat else ',"text":"'
        self._tail = (
            '"},"logprobs":null,"finish_reason":' if asked.chat else '","logprobs":null,"finish_reason":'
        )

    def stream(self, item: SimItem, text: str) -> None:
        """Writes the event of one token, and whatever must come before it or after the last."""
        parts = []
        if not self._started:
            self._started = True
            self.connection.start_events()
        if self.asked.chat and len(item.texts) == 1:
            parts.append(frame(f'{self._head}{item.index},"delta":{{"role":"assistant","content":""}},'
                               '"logprobs":null,"finish_reason":null}]}\n\n'.encode()))  # fmt: skip
        if self.asked.echo and len(item.texts) == 1:
            text = "".join(self.vocabulary.text_of(item.prompt)) + text
        finish = f'"{item.finish}"' if item.finish else "null"
        usage = f',"usage":{json.dumps(self.usage())}' if self.asked.continuous_usage else ""
        plain = text if text[:1] == " " and text[1:].isalpha() else json.dumps(text)[1:-1]
        parts.append(
            frame(
                f"{self._head}{item.index}{self._middle}{plain}{self._tail}{finish}"
                f',"stop_reason":null}}]{usage}}}\n\n'.encode()
            )
        )
        if item.finish:
            self._left -= 1
            if not self._left:
                if self.asked.include_usage:
                    usage = json.dumps(self.usage(details=True))
                    head = self._head.removesuffix('[{"index":')
                    parts.append(frame(f'{head}[],"usage":{usage}}}\n\n'.encode()))
                parts.extend((DONE, LAST_FRAME))
        self.connection.write(b"".join(parts))
        if not self._left:
            self.connection.done()

    def finished(self) -> None:
        """One item of an answer that is not streamed has its last token; the last of them sends it all."""
        if self.asked.stream:
            return
        self._left -= 1
        if self._left:
            return
        kind = "chat.completion" if self.asked.chat else "text_completion"
        self.connection.json(
            {
                "id": self.identity,
                "object": kind,
                "created": self.created,
                "model": self.model,
                "choices": [self._choice(item) for item in self.items],
                "usage": self.usage(details=True),
            }
        )

    def fail(self, message: str) -> None:
        """Ends the answer with an error: an event inside a stream that has begun, else HTTP 500."""
        if self._started:
            error = {"error": {"message": message, "type": "InternalServerError", "param": None, "code": 500}}
            event = b"data: " + json.dumps(error).encode() + b"\n\n"
            self.connection.write(frame(event) + DONE + LAST_FRAME)
            self.connection.done()
        else:
            self.connection.error(500, message, "InternalServerError")

    def usage(self, *, details: bool = False) -> dict[str, Any]:
        prompt = sum(len(item.prompt) for item in self.items)
        output = sum(len(item.texts) for item in self.items)
        found: dict[str, Any] = {
            "prompt_tokens": prompt,
            "total_tokens": prompt + output,
            "completion_tokens": output,
        }
        if details:
            found["prompt_tokens_details"] = {
                "cached_tokens": sum(i.sequence.cached_tokens for i in self.items)
            }
        return found

    def _choice(self, item: SimItem) -> dict[str, Any]:
        text = item.text
        if self.asked.chat:
            logprobs = None if self.asked.logprobs is None else {"content": self._chat_logprobs(item)}
            message = {"role": "assistant", "content": text}
            return {"index": item.index, "message": message, "logprobs": logprobs,
                    "finish_reason": item.finish, "stop_reason": None}  # fmt: skip
        if self.asked.echo:
            text = "".join(self.vocabulary.text_of(item.prompt)) + text
        logprobs = None if self.asked.logprobs is None else self._logprobs(item)
        return {"index": item.index, "text": text, "logprobs": logprobs, "finish_reason": item.finish,
                "stop_reason": None}  # fmt: skip

    def _logprobs(self, item: SimItem) -> dict[str, Any]:
        """As the completions endpoint has them: parallel lists, null for the first token of an echo."""
        tokens = [*item.prompt, *item.sequence.output] if self.asked.echo else item.sequence.output
        texts = (self.vocabulary.text_of(item.prompt) if self.asked.echo else []) + item.texts
        if self.asked.prompt_only:
            tokens, texts = item.prompt, texts[: len(item.prompt)]
        before = None if self.asked.echo else item.prompt[-1]
        values: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        offsets, offset = [], 0
        for token, text in zip(tokens, texts, strict=True):
            offsets.append(offset)
            offset += len(text)
            if before is None:
                values.append(None)
                tops.append(None)
            else:
                value, best = log_probability(before, token, self.seed, self.loss)
                values.append(value)
                tops.append({text: value} if best else {text: value, self._other(text): value / 2})
            before = token
        return {"tokens": texts, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}

    def _chat_logprobs(self, item: SimItem) -> list[dict[str, Any]]:
        before, found = item.prompt[-1], []
        for token, text in zip(item.sequence.output, item.texts, strict=True):
            value, _ = log_probability(before, token, self.seed, self.loss)
            found.append({"token": text, "logprob": value, "bytes": list(text.encode()), "top_logprobs": []})
            before = token
        return found

    def _other(self, text: str) -> str:
        """A token that is likelier than `text` where `text` is not the most likely one."""
        first, second = self.vocabulary.texts[:2]
        return second if text == first else first
