"""Memory and CPU of a process tree, against processes whose size and work are known."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bench.telemetry import host
from bench.telemetry.host import HostProbe, Tree, pss

CHILD = """
import os, sys
pid = os.fork()
block = bytearray(os.urandom(1)) * {size}
os.write(1, b"%d\\n" % os.getpid())  # one write: two processes share the pipe
sys.stdin.read()
"""
SIZE = 40 * 2**20


@pytest.fixture
def family():
    """A parent and its fork, each with 40 MiB of its own, in a process group of their own."""
    command = [sys.executable, "-c", CHILD.format(size=SIZE)]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    pids = {int(child.stdout.readline()) for _ in range(2)}
    yield child, pids
    child.stdin.close()
    child.wait(10)
    child.stdout.close()


def test_the_tree_is_parent_and_fork(family):
    child, pids = family
    tree = Tree(child.pid)
    assert tree.pids == pids
    assert os.getpid() not in tree.pids


def test_memory_counts_both_and_shared_pages_once(family):
    child, _ = family
    tree = Tree(child.pid)
    resident, proportional = tree.rss_bytes(), tree.pss_bytes()
    assert resident >= 2 * SIZE
    if proportional is None:
        pytest.skip("this kernel has no smaps_rollup")
    assert 2 * SIZE <= proportional < resident


def test_a_helper_whose_parent_died_stays_in_the_tree():
    code = (
        "import os, sys\n"
        "if os.fork() == 0 and os.fork() > 0: os._exit(0)\n"
        "os.write(1, b'%d\\n' % os.getpid()); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pids = {int(child.stdout.readline()) for _ in range(2)}
    assert Tree(child.pid).pids >= pids
    child.stdin.close()
    child.wait(10)
    child.stdout.close()


def test_only_the_descendants_of_a_member_of_our_own_group():
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    assert Tree(child.pid).pids == {child.pid}
    child.stdin.close()
    child.wait(10)


def test_names_and_notes_say_which_memory_it_is(family, monkeypatch):
    child, _ = family
    monkeypatch.setattr(host, "pss", lambda pid: 7)
    by_pss = HostProbe(Tree(child.pid))
    assert {s.name for s in by_pss.read()} == {"rss_bytes", "rss_sum_bytes"}
    assert "PSS" in by_pss.notes[0]
    monkeypatch.setattr(host, "pss", lambda pid: None)
    by_rss = HostProbe(Tree(child.pid))
    assert {s.name for s in by_rss.read()} == {"rss_bytes"}
    assert "counted for each process" in by_rss.notes[0]


def test_costly_pss_is_read_rarely_but_at_the_end(family, monkeypatch):
    child, _ = family

    def slow(pid):
        time.sleep(0.02)
        return 7

    monkeypatch.setattr(host, "pss", slow)
    probe = HostProbe(Tree(child.pid))
    taken = [[s.name for s in probe.read()].count("rss_bytes") for _ in range(5)]
    assert taken == [1, 0, 0, 0, 0]
    assert [s.value for s in probe.read(last=True) if s.name == "rss_bytes"] == [14]


def test_cpu_share_is_in_cores():
    """Against a made clock and made CPU times: 0.5 s of work in 0.25 s is two cores."""
    probe = HostProbe(Tree(os.getpid()))
    readings = iter([{1: 10.0, 2: 5.0}, {1: 10.2, 2: 5.3, 3: 99.0}])
    probe.tree.cpu_s = lambda: next(readings)
    assert probe._cpu_share(100.0) == []
    (share,) = probe._cpu_share(100.25)
    assert share.value == pytest.approx(2.0)


def test_cpu_time_of_the_tree_is_that_of_its_members():
    tree = Tree(os.getpid())
    before = tree.cpu_s()[os.getpid()]
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert tree.cpu_s()[os.getpid()] - before >= 0.08


def test_an_engine_that_ended_yields_nothing_and_one_note():
    child = subprocess.Popen([sys.executable, "-c", ""])
    tree = Tree(child.pid)
    probe = HostProbe(tree)
    child.wait(10)
    assert probe.read() == probe.read(last=True) == []
    assert [n for n in probe.notes if "ended" in n] == ["the engine's processes ended while it was watched"]
    assert pss(child.pid) is None
