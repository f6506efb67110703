"""The docs do not lie: files, make targets, commands and links they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from servetune.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "results" / "README.md"]
MADE = ("results/", ".venv", ".engines", ".models", ".cache", "src/")
"""Beginnings of paths that a user's machine has and the repository has not."""


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_named_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:serving|bench|search|scenarios|tests|tools|docs|\.ci)/[\w./-]*)`", page.read_text()
    )
    placeholder = re.compile(r"/x\.(py|yaml)$")
    missing = [n for n in named if not placeholder.search(n) and not (ROOT / n).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists() and not link.startswith(MADE)]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([a-z][a-z-]+)(?=[`\s|,.;:)]|$)", "\n".join(_code(page))))
    assert not named - targets


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    named = set(re.findall(r"\bservetune ([a-z]+)\b", "\n".join(_code(page))))
    assert not named - set(COMMANDS)


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert not [name for name in COMMANDS if f"servetune {name}" not in text]


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = {t for line in re.findall(r"^\.PHONY: (.*)$", text, re.M) for t in line.split()}
    described = set(re.findall(r"^([a-z-]+):.*## ", text, re.M))
    assert targets == described


def test_nothing_of_the_machine_it_was_written_on() -> None:
    """No absolute home or work folders in anything that ships."""
    files = [
        f for part in ("serving", "bench", "tools", "docs", "scenarios") for f in (ROOT / part).rglob("*")
    ]
    texts = {f: f.read_text() for f in files if f.suffix in {".py", ".md", ".yaml", ".txt", ".j2"}}
    assert not [str(f) for f, text in texts.items() if re.search(r"/(work|root|home/\w+)/", text)]


def _code(page: Path) -> list[str]:
    """Fenced blocks and inline code of a page: prose may say "make a table"."""
    text = page.read_text()
    return re.findall(r"```.*?```", text, re.S) + re.findall(r"`([^`\n]+)`", text)
