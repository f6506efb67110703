"""What a scenario says under `accuracy:`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from bench.accuracy.task import Split
from serving.units import seconds

Seconds = Annotated[float, BeforeValidator(seconds), Field(gt=0)]


def floor_share(value: object) -> float:
    """`0.99 of baseline`, `99% of baseline`, `0.99` or `99%` as 0.99. ValueError for anything else."""
    text = str(value).strip().removesuffix("of baseline").strip()
    match = re.fullmatch(r"([0-9.]+)\s*(%?)", text)
    try:
        share = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise ValueError(f"a share of the baseline such as `0.99 of baseline` or `99%`, not {value!r}")
    return share


Items = Annotated[int, Field(ge=1)]
Share = Annotated[float, BeforeValidator(floor_share)]

SCREEN_SHARE = 0.15
SCREEN_S = 60.0
"""Most that screening one candidate may add to its trial (launch and load): a share, and seconds."""


class Accuracy(BaseModel):
    """The floor and how it is tested; every share is a share of the baseline's own score.

    `items`: most items of one task, or of each by name (`{facts: 1000}`; no limit for the others).
    `within_s`: stop asking after this long and judge what is there.
    `split`: `screen` while searching, `certify` (held-out items) for finalists, `all` otherwise.
    `baseline`: settings that single out the baseline among the configurations; default: the first.
    `aa`: evaluate the baseline twice, so that tripwires know its own noise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    floor: Share = 0.99
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    tasks: Annotated[
        tuple[str, ...], Field(min_length=1), BeforeValidator(lambda v: [v] if isinstance(v, str) else v)
    ] = ("quick",)
    items: Items | dict[str, Items] | None = None
    within_s: Seconds | None = None
    split: Split = "all"
    stability_floor: Share = 0.95
    security_margin: Annotated[float, Field(gt=0, lt=1, description="share more that may go wrong")] = 0.05
    output_length: Annotated[
        tuple[float, float], Field(description="output tokens as a share of the baseline's")
    ] = (0.9, 1.1)
    tripwires: Annotated[
        dict[str, float], Field(description="limits: kl_mean, perplexity_ratio, top1_agreement, flips")
    ] = {}
    baseline: dict[str, Any] | None = None
    aa: bool = True
    stop_early: Annotated[bool, Field(description="stop when the sequential test rejects")] = True
    request_timeout_s: Seconds = 120.0
    concurrency: Annotated[int | None, Field(ge=1, description="default: the workload's")] = None

    def budget_s(self, trial_s: float) -> float | None:
        """Seconds in which a candidate is asked, after a launch and load of `trial_s`; None: no limit."""
        if self.split != "screen":
            return self.within_s
        return min(SCREEN_S, SCREEN_SHARE * trial_s, self.within_s or SCREEN_S)

    def limit(self, task: str) -> int | None:
        """Most items of this task; None: all of them."""
        return self.items.get(task) if isinstance(self.items, dict) else self.items
