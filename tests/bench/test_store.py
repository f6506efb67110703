"""What a kill, a full disk and two writers leave of a file: the old one or the new one, and every whole line."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.store import Log, read, write_whole
from serving.errors import BrokenRunError

EVENTS = [{"event": "point", "key": f"k{n}", "text": "größer\n" * (n % 3)} for n in range(5)]
RESUMED = {"event": "resumed"}


def entries(path: Path) -> list[dict[str, Any]]:
    return [entry for _, entry in read(path)]


def written(path: Path, events: list[dict[str, Any]] = EVENTS) -> bytes:
    log = Log(path, sync_s=60)
    for event in events:
        log.append(event)
    return path.read_bytes()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("store") / "log.jsonl"
    return path, written(path)


fields = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=20), max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.lists(fields, max_size=4), st.data())
def test_cut_at_any_byte_it_holds_the_lines_that_were_whole_and_goes_on(
    events: list[dict[str, Any]], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        path.touch()
        whole = written(path, events)
        cut = data.draw(st.integers(0, len(whole)), label="cut")
        path.write_bytes(whole[:cut])
        # A line is whole when only its line break is missing.
        kept = whole[: cut + 1].count(b"\n")
        assert entries(path) == events[:kept]
        Log(path, sync_s=60).append({"event": "any"})
        assert entries(path) == [*events[:kept], {"event": "any"}]
        assert path.read_bytes().count(b"\n") == kept + 1


@pytest.mark.parametrize("name", ["events.jsonl", "study.jsonl"])
def test_a_line_that_an_earlier_servetune_left_torn_before_a_resume_is_passed_over(
    log: tuple[Path, bytes], tmp_path: Path, name: str
) -> None:
    path, whole = tmp_path / name, log[1]
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    resumed = json.dumps(RESUMED, separators=(",", ":")).encode() + b"\n"
    for cut in range(last + 1, len(whole) - 1):
        path.write_bytes(whole[:cut] + b"\n" + resumed)
        assert entries(path) == [*EVENTS[:-1], RESUMED]


@pytest.mark.parametrize(
    "damage", [b"garbage\n", b"17\n", b'{"event":"point"\n', b"\x00\x00\x00\n", b"\xff\xfe{\n"]
)
def test_other_damage_is_named_by_file_line_and_byte(
    log: tuple[Path, bytes], tmp_path: Path, damage: bytes
) -> None:
    path, lines = tmp_path / "events.jsonl", log[1].splitlines(keepends=True)
    for place in range(len(lines)):
        path.write_bytes(b"".join([*lines[:place], damage, *lines[place:]]))
        begin = len(b"".join(lines[:place]))
        with pytest.raises(BrokenRunError, match=rf"events\.jsonl:{place + 1}: at byte {begin}:"):
            entries(path)
    path.write_bytes(log[1] + damage)
    assert entries(path) == EVENTS, "at the end it may be what a kill left"


def test_reading_on_gives_only_what_is_new_and_waits_for_the_rest_of_a_line(
    log: tuple[Path, bytes], tmp_path: Path
) -> None:
    path, whole = tmp_path / "log.jsonl", log[1]
    at, found = 0, []
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        for end, entry in read(path, at):
            assert end > at
            at = end
            found.append(entry)
    assert found == EVENTS
    with pytest.raises(BrokenRunError, match=rf":{len(EVENTS) + 1}: at byte {len(whole)}"):
        path.write_bytes(whole + b"garbage\n" + whole)
        list(read(path, at))


def test_no_file_has_no_entries(tmp_path: Path) -> None:
    assert entries(tmp_path / "none.jsonl") == []


def test_threads_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"

    def write(number: int) -> None:
        for index in range(40):
            Log(path).append({"writer": number, "index": index, "text": "x" * 20_000})

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = entries(path)
    for number in range(4):
        assert [e["index"] for e in found if e["writer"] == number] == list(range(40))


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the files that were synced, at the time."""
    sizes: list[int] = []
    real = os.fsync

    def fsync(number: int) -> None:
        real(number)
        sizes.append(os.fstat(number).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    return sizes


def test_a_line_is_on_disk_before_append_returns(tmp_path: Path, synced: list[int]) -> None:
    path = tmp_path / "log.jsonl"
    for number in range(3):
        Log(path).append({"n": number})
        assert synced[-1] == path.stat().st_size
    assert len(synced) == 3


def test_a_log_may_sync_at_most_each_second(
    tmp_path: Path, synced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    path = tmp_path / "log.jsonl"
    log = Log(path, sync_s=1.0)
    for _ in range(20):
        log.append({"n": 1})
        assert len(path.read_bytes().splitlines()[-1]) == len('{"n":1}'), "a kill loses nothing"
        now[0] += 0.25
    assert len(synced) == 3
    log.sync()
    assert synced[-1] == path.stat().st_size


def test_a_log_keeps_text_that_is_no_unicode_and_may_keep_it_readable(tmp_path: Path) -> None:
    escaped, plain = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    Log(escaped).append({"text": "half \ud83d"})
    assert entries(escaped) == [{"text": "half \ud83d"}]
    Log(plain, escape=False).append({"text": "größer"})
    assert "größer" in plain.read_text(encoding="utf-8")
    assert entries(plain) == [{"text": "größer"}]


CONTENTS = {"text": "größer\r\n", "bytes": b"\x00\xff", "writer": lambda path: path.write_bytes(b"w")}


@pytest.mark.parametrize(
    ("kind", "expected"), [("text", "größer\r\n".encode()), ("bytes", b"\x00\xff"), ("writer", b"w")]
)
def test_a_file_is_written_whole_and_synced(
    tmp_path: Path, synced: list[int], kind: str, expected: bytes
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    write_whole(path, CONTENTS[kind])
    assert path.read_bytes() == expected
    assert synced == [len(expected)]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["write", "sync", "replace"])
def test_what_fails_in_between_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def half(part: Path) -> None:
        part.write_text("ne")
        if step == "write":
            full()

    if step == "sync":
        monkeypatch.setattr(os, "fsync", full)
    if step == "replace":
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_is_written_and_stays_one(tmp_path: Path) -> None:
    link = tmp_path / "stdout"
    link.symlink_to("/dev/null")
    write_whole(link, "text")
    assert link.is_symlink()
    assert list(tmp_path.iterdir()) == [link]
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, "text")
