"""Memory in use on this machine's GPUs, all processes together: process ids are of no use in containers."""

from __future__ import annotations

import sys
import time

SLACK_BYTES = 64 * 2**20


def used_bytes() -> int | None:
    """Bytes in use over all NVIDIA GPUs; None where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return sum(int(pynvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in handles)
    finally:
        pynvml.nvmlShutdown()


def wait_until(before: int, deadline: float) -> None:
    """Waits until no more than `before` bytes (and a little) are in use: the driver frees after the exit."""
    while True:
        now = used_bytes()
        if now is None or now <= before + SLACK_BYTES:
            return
        if time.monotonic() > deadline:
            print(
                f"warning: {(now - before) / 2**20:.0f} MiB more GPU memory in use than before the launch",
                file=sys.stderr,
            )
            return
        time.sleep(0.2)
