"""A small grid with a known optimum, failures and a promise, for tests of replay and searchers."""

from __future__ import annotations

from search.objective import Goal
from search.replay.grids import Cell, Grid
from search.result import Settings, key_of
from search.space import Axis, Space

SPACE = Space(
    {
        "sim": (
            Axis("quantization", choices=("none", "fp8", "awq"), default="none"),
            Axis("max_num_seqs", choices=(8, 16, 32, 64, 128)),
            Axis("max_num_batched_tokens", choices=(512, 1024, 2048, 4096)),
            Axis("enforce_eager", choices=(True,)),
        )
    }
)
GOAL = Goal((("cost_per_million_output_tokens", True),))
CONSTRAINTS = ("runs", "tpot:p95<=50ms", "accuracy")
SECONDS = {"launch": 60.0, "warmup": 5.0, "measure": 60.0}


def cell(settings: Settings) -> Cell:
    """Cost falls with sequences and fp8; too many sequences break the promise; awq breaks accuracy; some die."""
    seqs, tokens = settings.get("max_num_seqs") or 256, settings.get("max_num_batched_tokens") or 8192
    assert isinstance(seqs, int)
    assert isinstance(tokens, int)
    fast = {"none": 1.0, "fp8": 0.7, "awq": 0.8}[str(settings["quantization"])]
    if seqs == 256 and tokens == 4096:
        return Cell(settings, (), {}, "oom_at_launch", {"waste": 40.0})
    cost = fast * (1 + 40 / seqs + tokens / 8192) * (1.3 if settings.get("enforce_eager") else 1.0)
    missed = {
        "tpot:p95<=50ms": fast * seqs / 100 - 1,
        "accuracy": 0.5 if settings["quantization"] == "awq" else -0.5,
    }
    return Cell(settings, (cost,), missed, None, SECONDS)


def grid() -> Grid:
    cells = {key_of(one): cell(one) for one in SPACE.all()}
    return Grid("small", GOAL, SPACE, CONSTRAINTS, cells, True, {"question": "which is cheapest?"})
