"""Prompts of an exact token count, no two with a common beginning unless the workload says so.

With a tokenizer: prompts are made of words that are one token each wherever they stand. Without ("none"):
whitespace-separated words, counted as words. Every prompt is its own two words, which no other prompt of the
salt begins with, and then a stretch of one long verified text: so thousands are cut in a second.
"""

from __future__ import annotations

import json
import re
from bisect import bisect
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

from serving.config import ServingConfig
from serving.errors import UserError

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
FEWEST_WORDS = 200
POOL_WORDS = 1 << 15
GOLDEN = 0.618034
"""Multiples of it, without their whole parts, lie evenly between 0 and 1."""
VERIFIED_TOKENS = 100_000
"""Prompts up to so many tokens are all encoded again before a load; of more, a sample of so many."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """`text` as requests carry it; at `own_at` the words `own` that no other prompt has there ("": none)."""

    text: str
    own: str = ""
    own_at: int = 0


class Prompts:
    """Makes prompts for one model. `exact` says whether lengths are in the model's own tokens."""

    def __init__(self, words: Sequence[str], tokenizer: Any = None, chat_template: str | None = None,
                 special: dict[str, str] | None = None) -> None:  # fmt: skip
        self.words = words
        self.exact = tokenizer is not None
        self._tokenizer = tokenizer
        self._chat_template = chat_template
        self._special = special or {}
        pool = _rng("pool").choices(words, k=POOL_WORDS)
        # Twice over, so that a stretch from any word on is whole.
        self._pool = " ".join(pool * 2)
        self._starts = list(accumulate((len(word) + 1 for word in pool * 2), initial=0))
        self._verified: set[bool] = set()
        self._per_word, self._template = 1.0, 0

    def fitted(self, per_word: float, template: int) -> Prompts:
        """The same words, where each is so many tokens of the model and `template` come before all of them.

        Lengths are then right in the mean. Only for prompts without a tokenizer.
        """
        made = copy(self)
        made._per_word, made._template = per_word, template
        return made

    def make(
        self,
        lengths: Sequence[int],
        salt: str,
        *,
        chat: bool = False,
        shared: int = 0,
        blocks: Sequence[Sequence[int]] = (),
        block_tokens: int = 512,
    ) -> list[Prompt]:
        """One prompt a length (tokens as the server will count them, template included for chat).

        salt: other salts give other prompts; the same gives the same. shared: so many tokens at the
        beginning are common to all. blocks: per prompt, ids of its leading prefix blocks; equal ids give
        equal tokens under one salt. UserError where a length is below what template and special tokens take;
        without a tokenizer a prompt is one word at least.
        """
        overhead = self.overhead(chat)
        order, rng = self.order(salt), _rng(f"{salt}-tails")
        common = self._stretch(_rng(f"{salt}-shared"), self._words(shared - overhead) if shared else 0)
        made = []
        for number, length in enumerate(lengths):
            count = self._words(length - overhead, spread=number * GOLDEN % 1)
            if self.exact and count < 1:
                raise UserError(
                    f"a prompt of {length} tokens: template and special tokens alone take {overhead}",
                    f"input_tokens of {overhead + 1} or more",
                )
            count = max(1, count)
            first = [common] if common else []
            for block in blocks[number] if number < len(blocks) else ():
                first.append(self._block(f"{salt}-block-{block}", order, self._words(block_tokens)))
            head = " ".join(first)
            left = count - (head.count(" ") + 1 if head else 0)
            if left <= 0:
                text, mine = " ".join(head.split(" ")[:count]), ""
            else:
                mine = " ".join(own(order, number).split(" ")[:left])
                text = " ".join(piece for piece in (head, mine, self._stretch(rng, left - 2)) if piece)
            # After a space each word is one token; without one, a tokenizer may read the first otherwise.
            space = " " if self.exact else ""
            made.append(Prompt(space + text, mine, len(space) + (len(head) + 1 if head else 0)))
        self._verify([prompt.text for prompt in made], lengths, chat)
        return made

    def order(self, salt: str) -> list[str]:
        """The words in the order in which prompts of this salt begin with them."""
        return _rng(f"{salt}-first").sample(list(self.words), len(self.words))

    def _words(self, tokens: int, spread: float = 0.5) -> int:
        """Words that are so many tokens; `spread` (0 to 1) rounds some up, some down."""
        return tokens if self._per_word == 1 else int(tokens / self._per_word + spread)

    def _stretch(self, rng: Random, count: int) -> str:
        """So many words of the pool from a random one on."""
        if count < 1:
            return ""
        at, rounds = rng.randrange(POOL_WORDS), count // POOL_WORDS
        whole = [self._pool[: self._starts[POOL_WORDS] - 1]] * rounds
        end = at + count % POOL_WORDS
        part = [self._pool[self._starts[at] : self._starts[end] - 1]] if end > at else []
        return " ".join(part + whole)

    def _block(self, seed: str, order: list[str], count: int) -> str:
        rng = _rng(seed)
        return " ".join([own(order, rng.randrange(len(order) ** 2)), self._stretch(rng, count - 2)])

    def count(self, texts: Sequence[str]) -> list[int] | None:
        """Tokens of each text without special tokens; None without a tokenizer."""
        if self._tokenizer is None:
            return None
        return [len(e.ids) for e in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def overhead(self, chat: bool) -> int:
        """Tokens that the special tokens, and for chat the template, add to a prompt."""
        if self._tokenizer is None:
            return self._template
        if not chat:
            return len(self._tokenizer.encode("", add_special_tokens=True).ids)
        if self._chat_template is None:
            return 0
        word = " " + self.words[0]
        return len(self._tokenizer.encode(self._render(word), add_special_tokens=False).ids) - 1

    def _verify(self, texts: list[str], lengths: Sequence[int], chat: bool) -> None:
        """Encodes the pool once, then the prompts (or a sample of VERIFIED_TOKENS), as the server will."""
        if self._tokenizer is None:
            return
        if chat not in self._verified:
            pool = " " + self._pool[: self._starts[POOL_WORDS] - 1]
            self._hold([pool], [POOL_WORDS + self.overhead(chat)], chat)
            self._verified.add(chat)
        chosen = _rng(0).sample(range(len(texts)), len(texts))
        total = list(accumulate(lengths[i] for i in chosen))
        chosen = chosen[: max(1, bisect(total, VERIFIED_TOKENS))]
        self._hold([texts[i] for i in chosen], [lengths[i] for i in chosen], chat)

    def _hold(self, texts: list[str], lengths: list[int], chat: bool) -> None:
        if chat and self._chat_template is not None:
            encoded = self._tokenizer.encode_batch([self._render(t) for t in texts], add_special_tokens=False)
        else:
            encoded = self._tokenizer.encode_batch(texts, add_special_tokens=not chat)
        wrong = [(len(e.ids), n) for e, n in zip(encoded, lengths, strict=True) if len(e.ids) != n]
        if wrong:
            found, asked = wrong[0]
            raise UserError(
                f"{len(wrong)} of {len(texts)} prompts miss their length ({found} tokens instead of {asked})",
                "this tokenizer merges across words; use --tokenizer none and read lengths from the usage",
            )

    def _render(self, content: str) -> str:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        assert self._chat_template is not None
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        return environment.from_string(self._chat_template).render(
            messages=[{"role": "user", "content": content}], add_generation_prompt=True, **self._special
        )


def prompts_for(config: ServingConfig) -> Prompts:
    """Prompts for a config's model: its own tokenizer, the one it names, or words for `none`."""
    name = config.tokenizer or (None if config.engine == "sim" else config.checkpoint or config.model)
    return prompts(None if name in (None, "none") else name, config.revision)


@lru_cache(maxsize=4)
def prompts(name: str | None, revision: str | None = None) -> Prompts:
    """Prompts by a tokenizer: a folder, a tokenizer.json, a hub id; None: words. UserError if unreadable."""
    if name is None:
        return Prompts(_made_up_words(4096))
    from tokenizers import Tokenizer

    file, settings = _files(name, revision)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:
        raise UserError(f"tokenizer {file}: {error}", "name a folder with tokenizer.json, or none") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    words = _steady_words(tokenizer)
    if len(words) < FEWEST_WORDS:
        raise UserError(
            f"tokenizer {name}: only {len(words)} words are one token each, too few for distinct prompts",
            "use --tokenizer none",
        )
    special = {k: v for k, v in settings.items() if k.endswith("_token") and isinstance(v, str)}
    template = settings.get("chat_template")
    return Prompts(words, tokenizer, template if isinstance(template, str) else None, special)


def _steady_words(tokenizer: Any) -> list[str]:
    """Lower-case words that are one token after a space, alone and in company."""
    candidates = sorted(
        {match[1] for token in tokenizer.get_vocab() if (match := re.fullmatch(r"[Ġ▁]([a-z]{2,12})", token))}
    )
    encoded = tokenizer.encode_batch([f" {w}" for w in candidates], add_special_tokens=False)
    alone = [w for w, e in zip(candidates, encoded, strict=True) if len(e.ids) == 1]
    pairs = tokenizer.encode_batch([f" {w} {w}" for w in alone], add_special_tokens=False)
    return [w for w, e in zip(alone, pairs, strict=True) if len(e.ids) == 2]


def _files(name: str, revision: str | None) -> tuple[Path, dict[str, Any]]:
    folder = Path(name)
    if folder.is_file():
        return folder, {}
    if not folder.is_dir():
        folder = _from_hub(name, revision)
    file, config = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if not file.is_file():
        raise UserError(f"{folder} holds no tokenizer.json", "name a folder that does, or use none")
    settings = json.loads(config.read_text()) if config.is_file() else {}
    template = folder / "chat_template.jinja"
    if template.is_file():
        settings["chat_template"] = template.read_text()
    return file, settings


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        file = hf_hub_download(name, "tokenizer.json", revision=revision)
        for extra in ("tokenizer_config.json",):
            hf_hub_download(name, extra, revision=revision)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UserError(
            f"tokenizer {name}: neither a folder here nor to be had from the hub ({type(error).__name__})",
            "name a folder with tokenizer.json, or none for words",
        ) from error
    return Path(file).parent


def _rng(seed: object) -> Random:
    return Random(str(seed))  # noqa: S311 -- words, not secrets


def own(order: Sequence[str], number: int) -> str:
    """The two words that prompt `number` of a salt begins with: all different up to len(order) squared."""
    return f"{order[number % len(order)]} {order[number // len(order) % len(order)]}"


def _made_up_words(count: int) -> list[str]:
    rng = _rng(0)
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(rng.choices(ALPHABET, k=5))] = None
    return list(found)


def _refuse(message: str) -> str:
    raise UserError(f"the model's chat template refuses: {message}", "use completions")
