"""Tokens of the simulated engine: how a prompt is counted, and what is "generated".

Without a tokenizer one whitespace-separated word is one token. With one (`tokenizer.json`), prompts are
encoded by it, and the output is made of its whole words, so that encoding the output gives the same count.
A prompt given as token ids is counted as it is.

The output is a fixed function of seed, prompt and position; a quantization changes a share of the tokens
(`Scheme.loss`), and its log-probabilities are lower by a little, both fixed too: quality that can be
measured, compared and repeated, and that says nothing about any real model.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from serving.sim.kv_blocks import Token

SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ha", "ke", "li", "mo", "nu", "pa", "re", "si", "to", "vu", "wa")
WORDS = tuple(a + b for a in SYLLABLES for b in SYLLABLES)
MEAN_ANSWER_TOKENS = 200
"""Mean of the geometric length at which an answer ends by itself, unless the request says ignore_eos."""
_MULTIPLY, _ADD, _MASK = 6364136223846793005, 1442695040888963407, 2**64 - 1


class Vocabulary:
    """Counts prompts, and names the pieces of outputs: `texts` (with their space) and `tokens`."""

    def __init__(self, tokenizer: Path | None = None) -> None:
        self._encode = None
        self.texts: tuple[str, ...] = tuple(f" {word}" for word in WORDS)
        self.tokens: tuple[Token, ...] = WORDS
        if tokenizer is not None:
            from tokenizers import Tokenizer

            loaded = Tokenizer.from_file(str(tokenizer))
            self._encode = loaded.encode
            self.texts, self.tokens = _whole_words(loaded)

    @property
    def words(self) -> bool:
        """One word is one token: there is no tokenizer."""
        return self._encode is None

    def encode(self, text: str) -> list[Token]:
        """The tokens of a prompt."""
        if self._encode is None:
            return list(text.split())
        return list(self._encode(text).ids)

    def text_of(self, tokens: Iterable[Token]) -> list[str]:
        """Each token as text, for `echo`; ids that no output is made of show as `<id>`."""
        known = dict(zip(self.tokens, self.texts, strict=True))
        return [known.get(token, f" {token}" if isinstance(token, str) else f"<{token}>") for token in tokens]


def _whole_words(tokenizer: object) -> tuple[tuple[str, ...], tuple[Token, ...]]:
    """Pieces that are a space and a plain word, and that the tokenizer gives back unchanged."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()  # type: ignore[attr-defined]
    plain = re.compile(r"[Ġ▁]([a-z]{2,10})")
    found: list[tuple[str, int]] = []
    for piece, number in sorted(vocabulary.items(), key=lambda item: item[1]):
        match = plain.fullmatch(piece)
        if match and tokenizer.encode(f" {match[1]}", add_special_tokens=False).ids == [number]:  # type: ignore[attr-defined]
            found.append((f" {match[1]}", number))
            if len(found) == 512:
                break
    if not found:
        raise ValueError("the tokenizer has no whole words of plain letters")
    texts, numbers = zip(*found, strict=True)
    return texts, numbers


class SimText:
    """What one prompt is answered: an endless stream of indices into the vocabulary, and where it ends."""

    __slots__ = ("_base", "_flips", "_size", "_threshold", "natural_tokens")

    def __init__(self, size: int, digest: int, seed: int, loss: float) -> None:
        self._size = size
        self._threshold = round(loss * 2**31)
        self._base = (digest * _MULTIPLY + seed * 0x9E3779B97F4A7C15 + _ADD) & _MASK
        self._flips = (self._base ^ 0xD1B54A32D192ED03 ^ round(loss * 1e6)) & _MASK
        share = (self._next() + 1) / (2**31 + 1)
        self.natural_tokens = 1 + int(-math.log(share) * MEAN_ANSWER_TOKENS)

    def _next(self) -> int:
        self._base = (self._base * _MULTIPLY + _ADD) & _MASK
        return self._base >> 33

    def next(self) -> int:
        """Index of the next token."""
        index = self._next() % self._size
        if self._threshold:
            self._flips = (self._flips * _MULTIPLY + _ADD) & _MASK
            draw = self._flips >> 33
            if draw < self._threshold:
                return (index + 1 + draw % (self._size - 1)) % self._size
        return index


def digest(tokens: Sequence[Token], extra: str = "") -> int:
    """A number for a prompt (and whatever else makes the answer differ), the same in every process."""
    return zlib.crc32(" ".join(map(str, tokens)).encode() + extra.encode())


def log_probability(before: Token, token: Token, seed: int, loss: float) -> tuple[float, bool]:
    """Pseudo log-probability (natural) of `token` after `before`, and whether it is the most likely one."""
    draw = zlib.crc32(f"{seed}|{before}|{token}".encode())
    share = (draw + 1) / (2**32 + 1)
    worse = zlib.crc32(f"{draw}|loss".encode()) / 2**32
    value = 2.0 * math.log(share) - 8.0 * loss * worse
    return value, value > -1.2
