"""Service: how long one replica takes, as few numbers fitted to what was measured, and a simulation of it.

A replica decodes all its sequences together, a step taking `step_s + per_sequence_s * n`, and stops for each
prompt, `prefill_s_per_token` long a token. Slots and cache tokens are the server's. What the model
gets wrong at the measured points is its `error`; no figure from here is a measurement.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from servetune.deploy.spec import ServingSpec
from serving.errors import UserError

UNLIMITED = 1 << 40
END_S = 1e12
ROUNDS = 6


@dataclass(frozen=True)
class Service:
    """`error`: largest relative error of mean TTFT and TPOT at the measured points."""

    step_s: float
    per_sequence_s: float
    prefill_s_per_token: float
    slots: int = UNLIMITED
    cache_tokens: int = UNLIMITED
    error: float = 0.0

    def slower(self, factor: float) -> Service:
        """Everything `factor` times as long."""
        return replace(
            self,
            step_s=factor * self.step_s,
            per_sequence_s=factor * self.per_sequence_s,
            prefill_s_per_token=factor * self.prefill_s_per_token,
        )


class Replica:
    """One server, brought forward only when somebody looks. Times in seconds; requests by their index.

    `first` and `done` are written: when the first token came, and the last. `after`: what follows an answer.
    """

    def __init__(
        self, service: Service, inputs: Sequence[int], outputs: Sequence[int],
        first: list[float], done: list[float],
    ) -> None:  # fmt: skip
        self.service, self.inputs, self.outputs, self.first, self.done = service, inputs, outputs, first, done
        self.now = self.steps = 0.0
        self.tokens = 0
        self.active: list[tuple[float, int]] = []
        self.waiting: deque[int] = deque()
        self.after: Callable[[int], int | None] | None = None

    @property
    def in_flight(self) -> int:
        return len(self.active) + len(self.waiting)

    def arrive(self, index: int, at: float) -> None:
        self.advance(at)
        self.waiting.append(index)

    def advance(self, until: float) -> None:
        """Everything that happens before `until`; a prompt that has begun is read to its end."""
        of, active = self.service, self.active
        while self.now < until:
            if self.waiting and self._fits(self.waiting[0]):
                self._begin(self.waiting.popleft())
                continue
            if not active:
                self.now = until
                return
            step = of.step_s + of.per_sequence_s * len(active)
            ends = self.now + (active[0][0] - self.steps) * step
            if ends > until:
                self.steps += (until - self.now) / step
                self.now = until
                return
            self.now, self.steps = ends, active[0][0]
            while active and active[0][0] <= self.steps:
                self._end(heapq.heappop(active)[1])

    def _fits(self, index: int) -> bool:
        size = self.inputs[index] + self.outputs[index]
        room = not self.active or self.tokens + size <= self.service.cache_tokens
        return room and len(self.active) < self.service.slots

    def _begin(self, index: int) -> None:
        self.now += self.service.prefill_s_per_token * self.inputs[index]
        self.first[index] = self.now
        self.tokens += self.inputs[index] + self.outputs[index]
        heapq.heappush(self.active, (self.steps + self.outputs[index] - 1, index))

    def _end(self, index: int) -> None:
        self.done[index] = self.now
        self.tokens -= self.inputs[index] + self.outputs[index]
        following = self.after(index) if self.after else None
        if following is not None:
            self.waiting.append(following)


def fit(spec: ServingSpec) -> Service:
    """From the believable points of the spec. UserError when they are fewer than two loads."""
    points = [p for e in spec.evidence if (p := _point(e)) is not None]
    if len({round(p["n"], 2) for p in points}) < 2:
        raise UserError(
            "service times cannot be told from one load: at least two points of different load are needed",
            "measure two rates or more of this configuration and write the spec again",
        )
    import numpy as np
    from scipy.optimize import least_squares

    wanted = np.array([v for p in points for v in (p["ttft"], p["tpot"])])

    def predicted(x: Any) -> Any:
        a, b, c = np.exp(x)
        found = []
        for p in points:
            step = a + b * p["n"]
            stopped = min(0.95, p["rate"] * c * p["input"])
            found += [step / 2 + c * p["input"], step / (1 - stopped)]
        return np.array(found)

    tpot = min(p["tpot"] for p in points)
    ttft = min(p["ttft"] / p["input"] for p in points)
    x = np.log([tpot * 0.8, tpot * 0.05, ttft * 0.5])
    known: Mapping[str, Any] = {**spec.effective, **{n: p.value for n, p in spec.parameters.items()}}
    limits = _whole(known.get("max_num_seqs")), _whole(known.get("kv_cache_tokens"))
    found, aim = [], wanted
    for _ in range(ROUNDS):
        # The formula leaves out queueing: it is aimed at what makes the simulation come out as measured.
        x = least_squares(_gap, x, loss="soft_l1", args=(predicted, aim)).x
        a, b, c = (float(v) for v in np.exp(x))
        one = Service(a, b, c, *limits)
        shown = np.array([v for p in points for v in alone(one, p)])
        found.append(replace(one, error=float(np.abs(shown / wanted - 1).max())))
        aim = aim * (wanted / shown) ** 0.7
    return min(found, key=lambda one: one.error)


def _gap(x: Any, predicted: Callable[[Any], Any], aim: Any) -> Any:
    import numpy as np

    return np.log(predicted(x) / aim)


def alone(service: Service, p: Mapping[str, float], requests: int = 400) -> tuple[float, float]:
    """Mean TTFT and TPOT of one simulated replica under the load of a measured point."""
    import numpy as np

    size, length = max(1, round(p["input"])), max(2, round(p["output"]))
    inputs, outputs = [size] * requests, [length] * requests
    first, done = [0.0] * requests, [0.0] * requests
    replica = Replica(service, inputs, outputs, first, done)
    if p["users"]:
        sent = _closed(replica, int(p["users"]), requests)
    else:
        sent = np.random.default_rng(0).exponential(1 / p["rate"], requests).cumsum().tolist()
        for index, at in enumerate(sent):
            replica.arrive(index, at)
        replica.advance(END_S)
    kept = slice(requests // 10, None)
    started, began, ended = (np.array(v)[kept] for v in (sent, first, done))
    return float((began - started).mean()), float((ended - began).mean() / (length - 1))


def _closed(replica: Replica, users: int, requests: int) -> list[float]:
    """Every user sends again when its answer has come. Returns when each request was sent."""
    sent = [0.0] * requests
    left = iter(range(min(users, requests), requests))

    def again(_: int) -> int | None:
        following = next(left, None)
        if following is not None:
            sent[following] = replica.now
        return following

    replica.after = again
    for index in range(min(users, requests)):
        replica.arrive(index, 0.0)
    replica.advance(END_S)
    return sent


def _point(e: Mapping[str, Any]) -> dict[str, float] | None:
    """Load and mean latencies in seconds of a believable point; None for any other."""
    metrics, load = e.get("metrics") or {}, e.get("load") or {}
    names = ("ttft_mean_ms", "tpot_mean_ms", "concurrency_mean", "input_tokens_mean", "output_tokens_mean",
             "request_throughput_per_s")  # fmt: skip
    values = [metrics.get(name) for name in names]
    if (
        e.get("verdict") != "ok"
        or not all(values)
        or load.get("arrivals") not in ("closed", "poisson", "constant")
    ):
        return None
    ttft, tpot, n, came, went, rate = (float(v) for v in values if v is not None)
    users = float(load.get("concurrency") or 0)
    return {"ttft": ttft / 1000, "tpot": tpot / 1000, "n": n, "input": came, "output": went, "rate": rate,
            "users": users}  # fmt: skip


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else UNLIMITED
