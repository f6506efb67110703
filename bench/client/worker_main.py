"""The load process: Locust runs our users, our client sends. `python -m bench.client.worker_main JOB`, or,
for Locust's master over several of them, `... master closed|open WORKERS USERS`.

Talks by lines: says `ready`, is told `start <monotonic seconds>`, says `progress {...}` twice a second, is
told `stop <why>` to end early. Locust's request events are fired, so that its own tools work; no number is
read from its statistics (two significant digits, bodies that break go uncounted).
"""

from __future__ import annotations

import os

# Our sockets are the system's own and nothing else here blocks: patching the world would only slow it.
os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"

import ctypes
import gc
import json
import math
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

import gevent
from gevent.event import Event
from gevent.fileobject import FileObjectThread
from locust.env import Environment

from bench.client.client import pause_until
from bench.client.job import LoadJob
from bench.client.share import WorkerShare
from bench.client.users import ClosedUser, OpenUser

TICK_S = 0.01
"""How often the hub's own delay is sampled."""
WRITING_S = 0.0005
"""Of each tick, for writing down what has ended."""
SPARE_CONNECTIONS = 16
"""Open loop: connections held ready beyond those in use, so that their set-up is in no latency."""
PR_SET_PDEATHSIG = 1
BROKEN = 70


def main() -> None:
    """Runs one job, or Locust's master."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    gevent.get_hub().handle_error = _broken
    if sys.argv[1] == "master":
        _master(sys.argv[2] == "closed", int(sys.argv[3]), int(sys.argv[4]))
    _work(LoadJob.read(Path(sys.argv[1])))


def _work(job: LoadJob) -> NoReturn:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    share = WorkerShare(job)
    kind = ClosedUser if job.closed else OpenUser
    kind.share = share
    environment = share.environment = Environment(user_classes=[kind], catch_exceptions=False)
    spawned = Event()
    environment.events.spawning_complete.add_listener(lambda **_: spawned.set())
    if job.master_port:
        runner = environment.create_worker_runner("127.0.0.1", job.master_port)
    else:
        runner = environment.create_local_runner()
        runner.start(job.users, spawn_rate=job.users)
    spawned.wait()
    share.users_left = runner.user_count
    if job.closed:
        share.client.open(runner.user_count)
    else:
        share.client.spare = SPARE_CONNECTIONS
        share.client.open(SPARE_CONNECTIONS)
    share.client.wait_open(timeout_s=5.0)
    share.warm_up(_say)
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection is a pause that would be read as the server's
    gevent.spawn(_listen, share)
    share.started.wait()
    pause_until(share.start_s)
    begun_cpu, begun = time.process_time(), monotonic()
    _watch(share)
    share.write_down(budget_s=math.inf)
    share.raw.close()
    share.write_health(time.process_time() - begun_cpu, monotonic() - begun)
    os._exit(0)  # everything is on disk; Locust's own goodbye takes seconds


def _listen(share: WorkerShare) -> None:
    """Commands from the parent; when it is gone, so are we."""
    commands = FileObjectThread(sys.stdin.buffer, "rb")
    _say("ready")
    for line in commands:
        word, _, value = line.decode().strip().partition(" ")
        if word == "start":
            share.start_s = float(value)
            share.client.last_byte_s = share.start_s
            share.started.set()
        elif word == "stop":
            share.why_stopped = value or share.why_stopped
            share.stopped.set()
    os._exit(BROKEN)


def _watch(share: WorkerShare) -> None:
    """Deadlines, silence, hub delay and progress, until every request has ended."""
    job, client = share.job, share.client
    told = swept = monotonic()
    while not (share.over.is_set() and not client.busy):
        before = monotonic()
        gevent.sleep(TICK_S)
        now = monotonic()
        share.delays.append(now - before - TICK_S)
        share.write_down(WRITING_S)
        if now - swept >= 0.05:
            swept = now
            client.expire(now, share.deadline)
            oldest = min((x.sent_s for x in client.busy if x.sent_s), default=now)
            if now - max(client.last_byte_s, oldest) > job.silence_timeout_s:
                share.why_stopped = "the server fell silent"
                share.stopped.set()
                client.fail_all("silent", f"no byte on any request for {job.silence_timeout_s:g} s")
            elif share.stopped.is_set() and client.busy:
                client.fail_all("censored", share.why_stopped)
        if now - told >= 0.5:
            told = now
            _say(f"progress {json.dumps({'done': share.finished, 'events': client.events})}")


def _master(closed: bool, workers: int, users: int) -> NoReturn:
    """Locust's master on a port of its own: spreads the users over its workers and hears their statistics."""
    environment = Environment(user_classes=[ClosedUser if closed else OpenUser])
    master = environment.create_master_runner("127.0.0.1", 0)
    _say(f"listening {master.server.port}")
    while len(master.clients.ready) < workers:
        gevent.sleep(0.02)
    master.start(users, spawn_rate=users)
    for _ in FileObjectThread(sys.stdin.buffer, "rb"):
        pass
    os._exit(0)


def _broken(context: Any, kind: type[BaseException], value: BaseException, trace: Any) -> None:
    """An error nobody caught: the process ends with it, so that it is never a request that just hangs."""
    if not issubclass(kind, gevent.get_hub().NOT_ERROR):
        traceback.print_exception(kind, value, trace)
        os._exit(BROKEN)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
