"""What `ServingConfig.sim` may say, and the faults that the simulated engine can be told to have."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

VERSION = "1+simulated"
"""What /version answers; raised when the model changes, so that old results are not taken for new ones."""

FAULTS: dict[str, tuple[str, str]] = {
    "oom_at_launch": ("", "dies while loading: CUDA out of memory"),
    "oom_under_load": ("N", "dies of CUDA out of memory when request N+1 runs"),
    "crash_at_launch": ("", "dies while loading, for no reason of memory"),
    "crash_after": ("N", "dies when request N+1 runs"),
    "killed_after": ("N", "is killed by a signal when request N+1 runs"),
    "hang_after": ("N", "accepts request N+1 and all after it, and never answers"),
    "slow_ready": ("S", "listens S seconds later"),
    "never_ready": ("", "lives, and never listens"),
    "bad_flag": ("", "refuses its command line, exit status 2"),
    "unsupported": ("", "refuses the quantization on this device"),
    "ignores_setting": ("", "accepts the quantization and quantizes 0 layers"),
    "wrong_model": ("", "serves another model than asked"),
    "port_taken": ("", "finds its port in use"),
    "not_installed": ("", "its program does not exist"),
    "stall": ("S", "stands still once for S seconds, when the tenth request runs"),
    "error_rate": ("P", "answers HTTP 500 to a share P of the requests"),
    "in_stream_error": ("N", "from request N+1 on: an error event after three tokens, inside HTTP 200"),
    "slow_after": ("N", "steps take ten times longer from request N+1 on"),
}
"""Name -> its parameter (N requests, the readiness request included; S seconds; P a share), effect."""

KEYS: dict[str, tuple[type, ...]] = {
    "gpu": (str,),
    "shape": (str,),
    "seed": (int,),
    "time_scale": (int, float),
    "noise": (int, float),
    "fault": (str, type(None)),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `name` is empty for none, `value` its parameter (0 without one)."""

    name: str = ""
    value: float = 0.0

    def strikes(self, name: str, request: int) -> bool:
        """Is this fault `name`, and is request number `request` (from 1) beyond its N?"""
        return self.name == name and request > self.value


@dataclass(frozen=True, slots=True)
class SimSettings:
    """The checked content of `ServingConfig.sim`.

    gpu         a row of serving.costmodel.hardware;  shape  a row of serving.costmodel.shapes or a model's
    folder time_scale  wall seconds per simulated second: 0.1 runs ten times faster, and reports wall time
    noise       sigma of the lognormal spread of step times, and again of whole launches; the launch draws
                from the seed and the last two names of its working directory, so that a restart under
                another name differs and a repetition of the whole run does not
    """

    gpu: str = "h200"
    shape: str | None = None
    seed: int = 0
    time_scale: float = 1.0
    noise: float = 0.0
    fault: Fault = Fault()


def check(sim: Mapping[str, object]) -> list[str]:
    """Why these settings cannot be used, one sentence each; empty when they can."""
    found = []
    for key, value in sim.items():
        if key not in KEYS:
            found.append(f"sim: unknown key {key!r}{_near(key, KEYS)}; known: {', '.join(KEYS)}")
        elif not isinstance(value, KEYS[key]) or isinstance(value, bool):
            kinds = " or ".join(kind.__name__ for kind in KEYS[key] if kind is not type(None))
            found.append(f"sim: {key} must be {kinds}, not {value!r}")
    if found:
        return found
    scale, noise = _number(sim.get("time_scale", 1.0)), _number(sim.get("noise", 0.0))
    if not 0 < scale <= 100:
        found.append(f"sim: time_scale must be above 0 and at most 100, not {scale!r}")
    if not 0 <= noise <= 1:
        found.append(f"sim: noise must be between 0 and 1 (sigma of a lognormal), not {noise!r}")
    try:
        parse_fault(sim.get("fault"))
    except ValueError as error:
        found.append(f"sim: {error}")
    return found


def settings(sim: Mapping[str, object]) -> SimSettings:
    """The settings; ValueError with everything `check` finds."""
    problems = check(sim)
    if problems:
        raise ValueError("; ".join(problems))
    shape = sim.get("shape")
    return SimSettings(
        gpu=str(sim.get("gpu", "h200")),
        shape=None if shape is None else str(shape),
        seed=int(_number(sim.get("seed", 0))),
        time_scale=_number(sim.get("time_scale", 1.0)),
        noise=_number(sim.get("noise", 0.0)),
        fault=parse_fault(sim.get("fault")),
    )


def parse_fault(text: object) -> Fault:
    """`name` or `name:parameter`. ValueError names the known faults and the nearest."""
    if text in (None, "", "none"):
        return Fault()
    name, _, value = str(text).partition(":")
    if name not in FAULTS:
        raise ValueError(f"unknown fault {name!r}{_near(name, FAULTS)}; known: {', '.join(FAULTS)}")
    kind = FAULTS[name][0]
    if not kind:
        if value:
            raise ValueError(f"fault {name} takes no parameter, found {value!r}")
        return Fault(name)
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"fault {name} needs a number, {name}:{kind}; found {str(text)!r}") from None
    if not 0 <= number < float("inf") or (kind == "N" and number % 1) or (kind == "P" and number > 1):
        allowed = {"N": "a whole number from 0", "S": "seconds from 0", "P": "a share from 0 to 1"}[kind]
        raise ValueError(f"fault {name}: {allowed}, not {value!r}")
    return Fault(name, number)


def _number(value: object) -> float:
    assert isinstance(value, (int, float))
    return value


def _near(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
