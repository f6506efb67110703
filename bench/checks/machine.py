"""Was the machine ours, and at its usual speed?"""

from __future__ import annotations

from bench.checks.case import Case, Finding
from bench.telemetry.nvml import THROTTLE_REASONS

THROTTLED = 0x008 | 0x020 | 0x040 | 0x080
"""Hardware and thermal slowdown and power brake. The power cap (0x004) is the card at its rated power:
that is how it will run in service, so it is no fault of the measurement."""


def clocks_throttled(case: Case) -> Finding | None:
    """Clocks were taken away by heat or the power supply during the window."""
    window = case.view.window
    for index, series in case.view.telemetry.gpu("throttle_reasons").items():
        masks = [int(value) for value in series.between(window.start_s, window.end_s).value]
        slowed = [mask & THROTTLED for mask in masks if mask & THROTTLED]
        if len(slowed) <= case.limits.throttled * len(masks):
            continue
        seen = 0
        for mask in slowed:
            seen |= mask
        named = ", ".join(name for bit, name in THROTTLE_REASONS.items() if seen & bit)
        return Finding(
            "suspect",
            f"GPU {index} was slowed in {len(slowed) / len(masks):.0%} of the window: {named}",
            "cool the card, check its power supply and cap (nvidia-smi -q -d PERFORMANCE), measure again",
        )
    return None


def gpu_shared(case: Case) -> Finding | None:
    """Processes that are not the engine's computed on its GPU."""
    for index, series in case.view.telemetry.gpu("other_processes").items():
        most = int(series.value.max())
        if most:
            return Finding(
                "suspect",
                f"{most} other process{'es' if most > 1 else ''} on GPU {index} during the run",
                "end them or choose a free GPU; servetune doctor lists them",
            )
    return None
