"""Thinking and answer apart, and whether there is an answer at all: only what was answered can be scored."""

from __future__ import annotations

from collections.abc import Iterable

from bench.accuracy.task import Answer, Ask, Measures

MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
"""What models put around their thinking where no reasoning parser takes it out (their chat templates)."""


def parted(text: str) -> tuple[str, str]:
    """(thinking, answer) of a reply. Thinking without an end is all of it; a template may begin it."""
    begun = text.lstrip()
    for opening, closing in MARKS:
        thought, found, answer = text.partition(closing)
        if begun.startswith(opening):
            return (thought.lstrip().removeprefix(opening), answer) if found else (begun[len(opening) :], "")
        if found and opening not in thought:
            return thought, answer
    return "", text


def unanswered(asks: Iterable[Ask], answers: Iterable[Answer], measures: Measures) -> str:
    """Why these replies are no answer; empty when all of them are. Log-likelihoods always are one.

    For security a reply without a letter or a digit is none either: it leaks nothing and refuses nothing. Of
    any other task it is a wrong answer.
    """
    for ask, answer in zip(asks, answers, strict=False):
        if ask.kind not in ("generate", "chat"):
            continue
        if not answer.text.strip():
            if answer.reasoning:
                return "cut while thinking" if answer.finish == "length" else "thinking and no answer"
            return "empty"
        if measures == "security" and not any(letter.isalnum() for letter in answer.text):
            return "no words"
    return ""
